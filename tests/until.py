"""Waiting for a condition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["until"]


async def until(met: Callable[[], bool], seconds: float = 5) -> None:
    """Wait for what somebody else will bring about.

    :raises TimeoutError: it did not come about.
    """
    async with asyncio.timeout(seconds):
        while not met():
            await asyncio.sleep(0.005)
