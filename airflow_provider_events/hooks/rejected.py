"""Where the rejected events of a delivery go: a local file or any object store that Airflow reaches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_events._compat import ObjectStoragePath
from airflow_provider_events.delivery.sinks import RejectedSink
from airflow_provider_events.exceptions import ConfigurationError

__all__ = ["open_rejected"]


@contextmanager
def open_rejected(path: str, name: str, vendor: str) -> Iterator[RejectedSink]:
    """A sink at `path`, or at `name` inside it where `path` is no `.jsonl` file; an empty file is removed at the end.

    :raises ConfigurationError: nothing can be written there.
    """
    target = ObjectStoragePath(path if path.endswith(".jsonl") else f"{path.rstrip('/')}/{name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = target.open("wb")
    except Exception as error:
        raise ConfigurationError(f"rejected_path: cannot write {target} ({type(error).__name__})") from error
    sink = RejectedSink(str(target), stream, vendor)
    try:
        yield sink
    finally:
        sink.close()
        if not sink.written:
            target.unlink(missing_ok=True)
