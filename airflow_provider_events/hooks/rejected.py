"""Where the rejected events of a delivery go: a new local file, or a new object in any store that Airflow reaches."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import count, islice

from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.hooks.files import LONGEST_NAME, StoredFile, stored_file

__all__ = ["RejectedFile", "rejected_file"]

ENDING = ".jsonl"
MOST_NAMES = 1000


class RejectedFile:
    """One file of rejected events; see `airflow_provider_events.delivery.dead_letter.Storage`."""

    def __init__(self, file: StoredFile) -> None:
        self._file = file
        self.uri = file.uri

    def append(self, data: bytes) -> None:
        """Add to its end."""
        self._file.append(data)

    def lines_of(self, uri: str) -> Iterator[bytes] | None:
        """The lines of a file in the same folder; None for any other: whatever a checkpoint names is not to be read."""
        folder, _, name = uri.rpartition("/")
        if folder != self.uri.rpartition("/")[0] or not name.endswith(ENDING):
            return None
        return iter(()) if uri == self.uri else self._file.sibling(name).lines()

    def remove(self) -> None:
        """Delete it."""
        self._file.remove()


def rejected_file(path: str, name: str) -> RejectedFile:
    """A file that was not there before, so that no delivery writes over what another one has written.

    :param path: a folder; or, where it ends in `.jsonl`, the file. Where that is taken, `name` is put into its name.
    :param name: of the file in a folder, which may lie in folders.
    :raises ConfigurationError: nothing can be written there.
    """
    folder, wanted = path, [name]
    if path.endswith(ENDING):
        folder, slash, fixed = path.rpartition("/")
        folder = folder or slash or "."
        own = name.removesuffix(ENDING).replace("/", ".")
        wanted = [fixed, f"{fixed.removesuffix(ENDING)}.{_shortened(own)}{ENDING}"]
    for candidate in islice(_with_numbers(wanted), MOST_NAMES):
        try:
            file = stored_file(folder, candidate)
            file.create()
        except FileExistsError:
            continue
        except ConfigurationError:
            raise
        except Exception as error:  # each store has errors of its own
            raise ConfigurationError(
                f"rejected_path: cannot write {folder.rstrip('/')}/{candidate} ({type(error).__name__})"
            ) from error
        return RejectedFile(file)
    raise ConfigurationError(f"rejected_path: {path} has {MOST_NAMES} files of that name; name another folder")


def _with_numbers(names: list[str]) -> Iterator[str]:
    yield from names
    for number in count(2):
        yield f"{names[-1].removesuffix(ENDING)}.{number}{ENDING}"


def _shortened(name: str) -> str:
    if len(name) <= LONGEST_NAME // 2:
        return name
    return f"{name[: LONGEST_NAME // 2]}~{sha256(name.encode()).hexdigest()[:16]}"
