"""What importing each public module adds to a DAG file's process that has Airflow's SDK already.

`python -m benchmarks.imports` imports the SDK once, then measures each module in a fork of that process: each starts
from the same state, as a fresh interpreter would be after the SDK's import. Prints JSON.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["BASE", "measure_all", "modules"]

PACKAGE = "airflow_provider_events"
# What any DAG file has loaded before it imports a provider; the SDK itself resolves its names lazily.
BASE = ("DAG", "BaseHook", "BaseOperator", "BaseSensorOperator", "Param", "task")
# No DAG file imports these.
INTERNAL = ("cli", "sandbox", "__main__", "_compat")


def modules() -> list[str]:
    """Every module that a DAG file or its helpers may import."""
    package = importlib.import_module(PACKAGE)
    found = [module.name for module in pkgutil.walk_packages(package.__path__, f"{PACKAGE}.")]
    return [PACKAGE, *(name for name in found if name.split(".")[1] not in INTERNAL)]


def measure_all() -> dict[str, dict[str, float]]:
    """Milliseconds and number of modules that each one adds."""
    sdk = importlib.import_module("airflow.sdk")
    for name in BASE:
        getattr(sdk, name)
    names: list[str] = forked(modules)  # walking a package imports it
    gc.collect()
    return {name: forked(partial(timed, name)) for name in names}


def timed(name: str) -> dict[str, float]:
    """Import it."""
    before, started = len(sys.modules), time.perf_counter()
    importlib.import_module(name)
    return {"ms": (time.perf_counter() - started) * 1000, "modules": len(sys.modules) - before}


def forked(work: Callable[[], Any]) -> Any:
    """What `work` gives in a fork of this process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


if __name__ == "__main__":
    print(json.dumps(measure_all()))
