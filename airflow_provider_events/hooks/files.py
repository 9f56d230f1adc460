"""Files that hold customers, or where a delivery stands: local ones for their owner alone, or objects in any store."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO
from urllib.parse import quote
from uuid import uuid4

from airflow_provider_events._compat import ObjectStoragePath, conf
from airflow_provider_events.exceptions import ConfigurationError

__all__ = ["LocalFile", "ObjectFile", "StoredFile", "safe_name", "stored_file"]

LONGEST_NAME = 200  # bytes; file systems end at 255, and numbers and endings come behind
PERMISSIONS = {"0600": 0o600, "0640": 0o640, "0660": 0o660}


def safe_name(text: str) -> str:
    """The name of a file or folder that only this text gives: percent-encoded, and no way out of its folder.

    A text too long for a file system keeps its beginning, and gets a digest.
    """
    name = quote(text, safe="", errors="surrogatepass")
    if not name.strip("."):
        name = name.replace(".", "%2E") or "%"
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 34]}%~{sha256(text.encode(errors='surrogatepass')).hexdigest()[:32]}"


def stored_file(base: str, name: str) -> StoredFile:
    """The file `name`, which may lie in folders, below the folder `base`: a local path, or a URI of Airflow's object
    storage."""
    where = ObjectStoragePath(base)
    if where.protocol in ("", "file", "local"):
        return LocalFile(where.path if "://" in base else base, name, base)
    return ObjectFile(f"{base.rstrip('/')}/{name}")


class LocalFile:
    """A file that only its owner reads (Airflow's `[events] file_permissions` says otherwise), in folders likewise.

    Below `base` no link is followed: whoever may write there cannot lead a task to another file.

    :param uri_base: `base` as it was given, for the file's name in reports.
    """

    def __init__(self, base: str, name: str, uri_base: str) -> None:
        self._base = Path(base).absolute()
        *self._folders, self._name = name.split("/")
        self._uri_base = uri_base
        self.uri = f"{uri_base.rstrip('/')}/{name}"
        self._mode = _permissions()

    def create(self) -> None:
        """Make it, empty.

        :raises FileExistsError: something of that name is there.
        """
        os.close(self._open(os.O_WRONLY | os.O_CREAT | os.O_EXCL))

    def append(self, data: bytes) -> None:
        """Add to its end; makes it if it is not there."""
        with os.fdopen(self._open(os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab") as stream:
            stream.write(data)

    def replace(self, data: bytes) -> None:
        """Write it as a whole, beside it and moved into place: a crash leaves the old one or the new one."""
        fresh = f".{self._name}.{uuid4().hex}.new"
        with self._folder(make=True) as folder:
            try:
                with os.fdopen(self._open_in(folder, fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as stream:
                    stream.write(data)
                os.replace(fresh, self._name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(fresh, dir_fd=folder)
                raise

    def read(self) -> bytes | None:
        """What it holds; None if it is not there."""
        try:
            with os.fdopen(self._open(os.O_RDONLY), "rb") as stream:
                return stream.read()
        except FileNotFoundError:
            return None

    def lines(self) -> Iterator[bytes]:
        """Its lines; none if it is not there."""
        try:
            descriptor = self._open(os.O_RDONLY)
        except FileNotFoundError:
            return
        with os.fdopen(descriptor, "rb") as stream:
            yield from stream

    def remove(self) -> None:
        """Delete it, if it is there."""
        with suppress(FileNotFoundError), self._folder(make=False) as folder:
            os.unlink(self._name, dir_fd=folder)

    def names_beside(self) -> list[str]:
        """The names of all that is in its folder; none if that is not there."""
        with suppress(FileNotFoundError), self._folder(make=False) as folder:
            return os.listdir(folder)
        return []

    def sibling(self, name: str) -> LocalFile:
        """Another file in the same folder."""
        return LocalFile(str(self._base), "/".join([*self._folders, name]), self._uri_base)

    def _open(self, flags: int) -> int:
        with self._folder(make=bool(flags & os.O_CREAT)) as folder:
            return self._open_in(folder, self._name, flags)

    def _open_in(self, folder: int, name: str, flags: int) -> int:
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, self._mode, dir_fd=folder)
        if flags & os.O_EXCL:
            os.fchmod(descriptor, self._mode)  # whatever the umask is
        return descriptor

    @contextmanager
    def _folder(self, make: bool) -> Iterator[int]:
        """Its folder, opened step by step."""
        if make:
            self._make_base()
        descriptor = os.open(self._base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in self._folders:
                made = False
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=descriptor)
                        made = True
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
                if made:
                    self._share(descriptor)
            yield descriptor
        finally:
            os.close(descriptor)

    def _make_base(self) -> None:
        missing = []
        folder = self._base
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            with suppress(FileExistsError):  # another task was quicker
                folder.mkdir(0o700)
                self._share(folder)

    def _share(self, folder: int | Path) -> None:
        """Let those into a new folder who may read the file; its group is the one that the folder above hands on."""
        handed_on = os.stat(folder).st_mode & stat.S_ISGID
        os.chmod(folder, self._mode | (self._mode & 0o444) >> 2 | handed_on)


class ObjectFile:
    """An object in one of Airflow's object stores; who may see it is that store's affair."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._path = ObjectStoragePath(uri)

    def create(self) -> None:
        """Make it, empty.

        :raises FileExistsError: an object of that name is there.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._path.open("xb"):
                pass
        except (NotImplementedError, ValueError):  # a store that cannot create exclusively
            if self._path.exists():
                raise FileExistsError(self.uri) from None
            self._path.write_bytes(b"")

    def append(self, data: bytes) -> None:
        """Add to the end; a store without appending gets the whole object anew."""
        try:
            with self._path.open("ab") as stream:
                stream.write(data)
        except (NotImplementedError, ValueError):
            self._path.write_bytes((self.read() or b"") + data)

    def replace(self, data: bytes) -> None:
        """Write it as a whole; stores show the old object or the new one."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_bytes(data)

    def read(self) -> bytes | None:
        """What it holds; None if it is not there."""
        return self._path.read_bytes() if self._path.exists() else None

    def lines(self) -> Iterator[bytes]:
        """Its lines; none if it is not there."""
        if self._path.exists():
            stream: IO[bytes]
            with self._path.open("rb") as stream:
                yield from iter(stream.readline, b"")

    def remove(self) -> None:
        """Delete it, if it is there."""
        self._path.unlink(missing_ok=True)

    def names_beside(self) -> list[str]:
        """The names of all that is in its folder; none if that is not there."""
        with suppress(FileNotFoundError):
            return [path.name for path in self._path.parent.iterdir()]
        return []

    def sibling(self, name: str) -> ObjectFile:
        """Another object in the same folder."""
        return ObjectFile(f"{self.uri.rpartition('/')[0]}/{name}")


StoredFile = LocalFile | ObjectFile


def _permissions() -> int:
    text = conf.get("events", "file_permissions", fallback="") or "0600"
    if text not in PERMISSIONS:
        raise ConfigurationError(f"[events] file_permissions has to be one of {', '.join(PERMISSIONS)}, not {text!r}")
    return PERMISSIONS[text]
