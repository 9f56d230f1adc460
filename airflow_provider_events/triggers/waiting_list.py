"""A list of identities on its way to a trigger: as compressed text, or in a folder with what was found so far."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_events.events import check_identity
from airflow_provider_events.exceptions import ConfigurationError, SourceError
from airflow_provider_events.hooks.files import stored_file

__all__ = ["WaitingList", "pack", "unpack"]

MAX_BYTES = 128 * 2**20  # of a list that is unpacked, with room for millions of identities


def pack(identities: Sequence[Mapping[str, str | int]]) -> str:
    """The list as compressed text.

    :raises ConfigurationError: it is longer than `unpack` takes.
    """
    text = json.dumps([dict(identity) for identity in identities]).encode()
    if len(text) > MAX_BYTES:
        raise ConfigurationError(f"identities: more than {MAX_BYTES:,} bytes; wait for them in several tasks")
    return b64encode(zlib.compress(text)).decode("ascii")


def unpack(text: str) -> list[Mapping[str, str | int]]:
    """The inverse of `pack`; what it is given came through a database or a file.

    :raises SourceError: it is no packed list of identities, or one that takes too much memory.
    """
    try:
        unpacker = zlib.decompressobj()
        packed = unpacker.decompress(b64decode(text, validate=True), MAX_BYTES)
        if not unpacker.eof:
            raise ValueError("too long, or cut off")
        identities = json.loads(packed)
        if not isinstance(identities, list):
            raise ValueError("no list")
        for identity in identities:
            check_identity(identity)
    except (ValueError, TypeError, zlib.error, RecursionError) as error:
        raise SourceError(f"the list of identities to wait for is damaged ({type(error).__name__})") from None
    return identities


class WaitingList:
    """A packed list in a file, beside it the progress of its search; both are removed when the wait is over.

    :param path: a folder in Airflow's object storage, or a local one that workers and triggerers share.
    """

    def __init__(self, path: str) -> None:
        self._identities = stored_file(path, "identities")
        self._progress = stored_file(path, "progress.json")

    def write(self, packed: str) -> None:
        """Keep a packed list."""
        self._identities.replace(packed.encode())

    def identities(self) -> list[Mapping[str, str | int]]:
        """The list.

        :raises SourceError: it is damaged.
        :raises FileNotFoundError: it is not there.
        """
        packed = self._identities.read()
        if packed is None:
            raise FileNotFoundError(self._identities.uri)
        return unpack(packed.decode("ascii", "replace"))

    def save(self, progress: Mapping[str, Any]) -> None:
        """Keep a packed progress."""
        self._progress.replace(json.dumps(progress).encode())

    def progress(self) -> Mapping[str, Any] | None:
        """The progress kept last, if any."""
        text = self._progress.read()
        progress: Mapping[str, Any] | None = json.loads(text) if text else None
        return progress

    def remove(self) -> None:
        """Remove what is there."""
        for file in (self._identities, self._progress):
            file.remove()
