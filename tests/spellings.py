"""Every spelling in which somebody may repeat a text: to write them, and to find them again, whatever writes them."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from html import escape
from typing import Any
from urllib.parse import quote

__all__ = ["SPELLINGS", "Marks"]

PART = 14  # of a longer mark its beginning and its end are sought too: whoever repeats it may cut it off
PACKED = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")
MAX_DEPTH = 4

Spelling = Callable[[str], str]


def _bytes(text: str, form: Callable[[int], str], between: str = "") -> str:
    return between.join(map(form, text.encode()))


def _chars(text: str, form: Callable[[int], str]) -> str:
    return "".join(form(ord(char)) for char in text)


def _inside(encode: Callable[[bytes], bytes], group: int, bits: int, text: str, before: int) -> str:
    """What stands for `text` alone where `before` bytes are encoded in front of it, and others behind it."""
    data = text.encode()
    first = -(-before * 8 // bits)
    last = (before + len(data)) * 8 // bits
    return encode(b"\0" * before + data + b"\0" * group).decode()[first:last]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _urlsafe(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _percent(text: str) -> str:
    return quote(text, safe="")


SPELLINGS: Mapping[str, Spelling] = {
    "plain": str,
    "upper": str.upper,
    "lower": str.lower,
    "json": _json,
    "json in json": lambda text: _json(_json(text)),
    "json in json in json": lambda text: _json(_json(_json(text))),
    "json points": lambda text: _chars(text, "\\u{:04x}".format),
    "percent": quote,
    "percent, all of it": _percent,
    "percent, each byte": lambda text: _bytes(text, "%{:02X}".format),
    "percent twice": lambda text: _percent(_percent(text)),
    "plus": lambda text: _percent(text).replace("%20", "+"),
    "html": lambda text: escape(text),
    "html, decimal": lambda text: _chars(text, "&#{:d};".format),
    "html, hexadecimal": lambda text: _chars(text, "&#x{:x};".format),
    "base64": _base64,
    "base64, after one": lambda text: _base64(f"x{text}"),
    "base64, after two": lambda text: _base64(f"xy{text}"),
    "base64 for urls": _urlsafe,
    "base64 for urls, after one": lambda text: _urlsafe(f"x{text}"),
    "base64 twice": lambda text: _base64(_base64(text)),
    "base32": lambda text: base64.b32encode(text.encode()).decode(),
    "base32, after three": lambda text: base64.b32encode(b"xyz" + text.encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal, in capitals": lambda text: text.encode().hex().upper(),
    "hexadecimal, with colons": lambda text: text.encode().hex(":"),
    "hexadecimal, with spaces": lambda text: text.encode().hex(" "),
    "escaped bytes": lambda text: _bytes(text, "\\x{:02x}".format),
    "octal bytes": lambda text: _bytes(text, "\\{:03o}".format),
    "quoted-printable": lambda text: _bytes(text, "={:02X}".format),
    "decimal bytes": lambda text: _bytes(text, str, ", "),
    "decimal bytes, close": lambda text: _bytes(text, str, ","),
    "decimal bytes, with spaces": lambda text: _bytes(text, str, " "),
    "reversed": lambda text: text[::-1],
    "wide": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "spaced": " ".join,
}


def _needles(mark: str) -> Iterator[bytes]:
    """All that may stand for a mark within something else, in lower case."""
    forms = {mark, mark.upper(), mark.lower()}
    for form in forms:
        for spell in SPELLINGS.values():
            yield spell(form).encode().lower()
        for before in range(3):
            inner = _inside(base64.b64encode, 3, 6, form, before)
            yield from (inner.lower().encode(), inner.translate(str.maketrans("+/", "-_")).lower().encode())
        for before in range(5):
            yield _inside(base64.b32encode, 5, 5, form, before).lower().encode()
        for codec in ("utf-16-le", "utf-16-be"):
            yield form.lower().encode(codec)


class Marks:
    """Texts that are nowhere but where the tests put them, by their names.

    :param texts: name to text.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = dict(texts)
        self._needles = {name: sorted(set(self._all(text))) for name, text in texts.items()}
        self._shortest = {name: min(map(len, needles)) for name, needles in self._needles.items()}
        self._within = lru_cache(10_000)(self._search)  # a database says most things many times

    @staticmethod
    def _all(text: str) -> Iterator[bytes]:
        for part in {text} if len(text) <= PART else {text[:PART], text[-PART:]}:
            yield from filter(None, _needles(part))

    def found(self, data: Any) -> set[str]:
        """Names of the marks that are in a value, in whatever spelling, and in what is packed in it."""
        return {name for part in _unpacked(_as_bytes(data)) for name in self._within(part)}

    def _search(self, data: bytes) -> Sequence[str]:
        data = data.lower()
        return [
            name
            for name, needles in self._needles.items()
            if len(data) >= self._shortest[name] and any(needle in data for needle in needles)
        ]


def _as_bytes(data: Any) -> bytes:
    return bytes(data) if isinstance(data, bytes | bytearray | memoryview) else str(data).encode("utf-8", "replace")


def _unpacked(data: bytes, depth: int = 0) -> Iterator[bytes]:
    """The data, and whatever is encoded, compressed or encrypted for this Airflow in it."""
    yield data
    if depth == MAX_DEPTH:
        return
    for inflate in (partial(zlib.decompress, wbits=47), partial(zlib.decompress, wbits=-15)):
        try:
            inner = inflate(data)
        except zlib.error:
            continue
        yield from _unpacked(inner, depth + 1)
        break
    for match in PACKED.finditer(data):
        text = match[0].rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        try:
            inner = base64.b64decode(text + b"=" * (-len(text) % 4))
        except ValueError:
            continue
        yield from _unpacked(inner, depth + 1)
