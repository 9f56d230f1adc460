"""Which function costs what: a sampling profiler (py-spy) looks at our delivery from outside, so that it slows nothing.

Own time: a function's own lines and the C code that it calls. Of all threads only the one that holds the interpreter's
lock is counted: on one core, others that could run but do not would be counted beside it.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.build import Missing
from benchmarks.job import Job
from benchmarks.measure import STUB_CORE, finish, job_command, temporary
from benchmarks.stub import stub

__all__ = ["profile"]

SAMPLES_PER_SECOND = 500
KEPT = 40
# What our process does before it delivers, and what is no delivery.
IMPORTING = ("<frozen importlib", "ours (benchmarks/clients.py")


def profile(job: Job) -> dict[str, Any]:
    """Samples per function of one delivery.

    :raises Missing: py-spy is not installed.
    :raises Failed: it may not look into a process here, or the delivery failed.
    """
    spy = shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if spy is None:
        raise Missing("py-spy is not installed")
    with stub(STUB_CORE) as server, temporary() as folder:
        stacks = folder / "stacks"
        options = ["--rate", str(SAMPLES_PER_SECOND), "--format", "raw", "--output", str(stacks), "--full-filenames"]
        command = job_command(replace(job, url=server.url, folder=str(folder)))
        finish([spy, "record", "--gil", "--function", *options, "--", *command], json_expected=False)
        functions = own_time(stacks.read_text())
        arrived = server.stats()["events"]
    return {"functions": functions.most_common(KEPT), "samples": functions.total(), "arrived": arrived}


def own_time(stacks: str) -> Counter[str]:
    """Samples by the function that was running; lines are `frame;frame;frame count`."""
    found: Counter[str] = Counter()
    for line in stacks.splitlines():
        text, _, count = line.rpartition(" ")
        frames = text.split(";")
        if not text:  # a thread that begins or ends
            continue
        if not any(part in frame for frame in frames for part in IMPORTING) and delivers(frames):
            found[short(frames[-1])] += int(count)
    return found


def delivers(frames: list[str]) -> bool:
    """Other threads do nothing but deliver; the main one does so inside `run`."""
    main = any("benchmarks/child.py" in frame for frame in frames)
    return not main or any(re.match(r"run \(.*benchmarks/clients\.py", frame) for frame in frames)


def short(frame: str) -> str:
    """`function (module)` with a path that says the same on every machine."""
    found = re.fullmatch(r"(.+) \((.+?)(?::\d+)?\)", frame)
    if found is None:
        return frame
    name, path = found[1], found[2]
    for start in ("site-packages/", "airflow_provider_events/", "benchmarks/", f"python3.{sys.version_info.minor}/"):
        _, mark, rest = path.rpartition(start)
        if mark:
            return f"{name} ({(start if start.startswith(('airflow', 'bench')) else '') + rest})"
    return f"{name} ({Path(path).name})"
