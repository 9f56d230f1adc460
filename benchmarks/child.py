"""`python -m benchmarks.child JOB`: one run in a process of its own. Prints what it took as JSON."""

from __future__ import annotations

import gc
import json
import re
import resource
import sys
import time
from pathlib import Path

from benchmarks.clients import CLIENTS
from benchmarks.job import Job

__all__ = ["main"]


def main() -> None:
    """Import, warm up, deliver."""
    job = Job(**json.loads(sys.argv[1]))
    run = CLIENTS[job.client](job)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    imported = memory("VmRSS")
    warm = run(job.warm_up) if job.warm_up else 0
    gc.collect()
    cpu, wall = cpu_seconds(), time.perf_counter()
    delivered = run(job.rows)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    result = {
        "delivered": delivered,
        "warm": warm,
        "seconds": wall,
        "cpu_seconds": cpu,
        "peak_mib": (memory("VmHWM") - imported) / 1024,
        "imported_mib": imported / 1024,
    }
    print(json.dumps(result))


def cpu_seconds() -> float:
    """User and system time of this process, all threads, and of its children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def memory(name: str) -> int:
    """KiB, as the kernel tells."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


if __name__ == "__main__":
    main()
