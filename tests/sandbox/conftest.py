"""A client of the running sandbox, keys for each vendor, and a clock that tests move by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from airflow_provider_events.sandbox import Sandbox


@dataclass
class Clock:
    """Seconds since the epoch, standing still."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def client(events_sandbox: Sandbox) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=events_sandbox.url, verify=False) as client:  # spares reading the CA bundle each time
        yield client


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(clock: Clock) -> Iterator[Sandbox]:
    """A sandbox on the hand-moved clock."""
    with Sandbox(clock=clock) as sandbox:
        yield sandbox
