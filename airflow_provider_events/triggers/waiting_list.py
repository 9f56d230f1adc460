"""A list of identities on its way to a trigger: as compressed text, or in a folder with what was found so far."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_events._compat import ObjectStoragePath

__all__ = ["WaitingList", "pack", "unpack"]


def pack(identities: Sequence[Mapping[str, str | int]]) -> str:
    """The list as compressed text."""
    text = json.dumps([dict(identity) for identity in identities])
    return b64encode(zlib.compress(text.encode())).decode("ascii")


def unpack(text: str) -> list[Mapping[str, str | int]]:
    """The inverse of `pack`."""
    identities: list[Mapping[str, str | int]] = json.loads(zlib.decompress(b64decode(text)))
    return identities


class WaitingList:
    """A packed list in a file, beside it the progress of its search; both are removed when the wait is over.

    :param path: a folder in Airflow's object storage, or a local one that workers and triggerers share.
    """

    def __init__(self, path: str) -> None:
        self._folder = ObjectStoragePath(path)
        self._identities = ObjectStoragePath(f"{path}/identities")
        self._progress = ObjectStoragePath(f"{path}/progress.json")

    def write(self, packed: str) -> None:
        """Keep a packed list."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._identities.write_text(packed)

    def identities(self) -> list[Mapping[str, str | int]]:
        """The list."""
        return unpack(self._identities.read_text())

    def save(self, progress: Mapping[str, Any]) -> None:
        """Keep a packed progress."""
        self._progress.write_text(json.dumps(progress))

    def progress(self) -> Mapping[str, Any] | None:
        """The progress kept last, if any."""
        if not self._progress.exists():
            return None
        progress: Mapping[str, Any] = json.loads(self._progress.read_text())
        return progress

    def remove(self) -> None:
        """Remove what is there."""
        for file in (self._identities, self._progress):
            file.unlink(missing_ok=True)
