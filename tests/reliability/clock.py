"""Simulated time for whole deliveries."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from tests.delivery.harness import JumpingLoop

__all__ = ["simulate"]

T = TypeVar("T")

TICK_SECONDS = 1e-6


class TickingLoop(JumpingLoop):
    """Jumps from timer to timer, and ticks while there is work: two tasks that each wait for a moment which is less
    than the clock's resolution away would otherwise wake one another for ever."""

    def __init__(self) -> None:
        super().__init__()
        jump = self._jumping.select

        def select(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            return jump(timeout if timeout is None else max(timeout, TICK_SECONDS))

        self._jumping.select = select  # type: ignore[method-assign]  # the real one is inside


def simulate(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in simulated time."""
    with asyncio.Runner(loop_factory=TickingLoop) as runner:
        return runner.run(main)
