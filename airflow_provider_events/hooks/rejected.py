"""Where the rejected events of a delivery go: a local file, or an object in any store that Airflow reaches."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_provider_events._compat import ObjectStoragePath
from airflow_provider_events.exceptions import ConfigurationError

__all__ = ["ObjectFile", "rejected_file", "writable"]


class ObjectFile:
    """One file in Airflow's object storage; see `airflow_provider_events.delivery.sinks.Storage`."""

    def __init__(self, path: ObjectStoragePath) -> None:
        self._path = path
        self.uri = str(path)

    def append(self, data: bytes) -> None:
        """Add to the end; a store without appending gets the whole object anew."""
        try:
            with self._path.open("ab") as stream:
                stream.write(data)
        except (NotImplementedError, ValueError):
            before = self._path.read_bytes() if self._path.exists() else b""
            self._path.write_bytes(before + data)

    def lines_of(self, uri: str) -> Iterable[bytes]:
        """The lines of another file; none if it is not there, or is this one."""
        other = ObjectStoragePath(uri)
        if uri != self.uri and other.exists():
            with other.open("rb") as stream:
                yield from iter(stream.readline, b"")

    def remove(self) -> None:
        """Delete it."""
        self._path.unlink(missing_ok=True)


def rejected_file(path: str, name: str, attempt: int = 1) -> ObjectStoragePath:
    """The file for one try: `path` itself where it ends in `.jsonl` (later tries get their number into the name),
    else `name` in the folder `path`."""
    if not path.endswith(".jsonl"):
        return ObjectStoragePath(f"{path.rstrip('/')}/{name}")
    return ObjectStoragePath(path if attempt == 1 else f"{path.removesuffix('.jsonl')}.try_{attempt}.jsonl")


def writable(path: ObjectStoragePath, option: str) -> ObjectFile:
    """An empty file at `path`.

    :raises ConfigurationError: naming `option`; nothing can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(b"")
    except Exception as error:  # each store has errors of its own
        raise ConfigurationError(f"{option}: cannot write {path} ({type(error).__name__})") from error
    return ObjectFile(path)
