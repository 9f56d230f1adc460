"""The vendors' stub as a process: fresh for every run, so that its counts are that run's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.build import program

__all__ = ["Stub", "stub"]


class Stub:
    """A running stub."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._process = process
        self.port = int(process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def stats(self) -> dict[str, Any]:
        """What it received, and the CPU that its one thread has used."""
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as answer:
            stats: dict[str, Any] = json.load(answer)
        nanoseconds = int(Path(f"/proc/{self._process.pid}/schedstat").read_text().split()[0])
        return {**stats, "cpu_seconds": nanoseconds / 1e9}


@contextmanager
def stub(core: int, latency_ms: float = 0, capture: Path | None = None, *, pure_python: bool = False) -> Iterator[Stub]:
    """Run a stub until the block ends.

    :param core: the one that it is pinned to.
    :param capture: also write every request into this file.
    :param pure_python: the one on uvloop, which is there to be compared.
    """
    if pure_python:
        command = [sys.executable, "-m", "benchmarks.stub_uvloop"]
    else:
        command = [str(program("stub.c")), "-l", str(latency_ms), *(["-c", str(capture)] if capture else [])]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        yield Stub(process)
    finally:
        process.terminate()
        process.wait(timeout=10)
        assert process.stdout is not None
        process.stdout.close()
