"""What a text says to whoever can read it: without percent signs, escapes and entities, and with what is encoded in it.

Each text that is made of another one knows which part of that one each of its characters stands for.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import unescape
from typing import NamedTuple, Self

__all__ = ["Reading", "encoded_within", "fold", "read"]

MAX_ROUNDS = 4


def _utf8(before: str, ascii: str, two: str, three: str, four: str, further: str) -> str:
    """A character by its bytes, each written as `before` and digits."""
    heads = ((two, 1), (three, 2), (four, 3))
    return "|".join([f"{before}{ascii}", *(f"{before}{head}(?:{before}{further}){{{more}}}" for head, more in heads)])


_HEXADECIMAL = _utf8(r"(?:[%=]|\\x)", "[0-7][0-9a-f]", "[cd][0-9a-f]", "e[0-9a-f]", "f[0-7]", "[89ab][0-9a-f]")
_OCTAL = _utf8(r"\\", "[01][0-7]{2}", "3[0-3][0-7]", "3[45][0-7]", "36[0-7]", "2[0-7]{2}")
_UNIT = re.compile(
    rf"(?P<hexadecimal>{_HEXADECIMAL})|(?P<octal>{_OCTAL})"
    r"|&(?:#0*\d{1,7};?|#x0*[0-9a-f]{1,6};?|[a-z]{2,8};)"
    r"|[\\%]ud[89ab][0-9a-f]{2}[\\%]ud[c-f][0-9a-f]{2}|\\u000[01][0-9a-f]{4}|[\\%]u[0-9a-f]{4}"
    r"|\\u\{0*[0-9a-f]{1,6}\}|\\x[0-9a-f]{2}|\\[23][0-7]{2}|\\[\"'\\/]",
    re.IGNORECASE,
)
_BYTE: Mapping[str, tuple[re.Pattern[str], int]] = {
    "hexadecimal": (re.compile("[0-9a-f]{2}", re.IGNORECASE), 16),
    "octal": (re.compile("[0-7]{3}"), 8),
}
_POINT = re.compile(r"[ux]\{?([0-9a-f]+)", re.IGNORECASE)
_INVISIBLE = ("Mn", "Cf", "Me")


class Reading(NamedTuple):
    """A text made of another one.

    :param starts: where the part begins that a character stands for; `ends`: where it ends.
    """

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    @classmethod
    def of(cls, text: str) -> Self:
        """A text as it is."""
        return cls(text, range(len(text)), range(1, len(text) + 1))

    def place(self, first: int, last: int) -> tuple[int, int]:
        """Beginning and end, in the other text, of what the characters from `first` up to `last` stand for."""
        return self.starts[first], self.ends[last - 1]


def read(original: str) -> Reading:
    """A text without the escapes of URLs, HTML, JSON, mails and scripts, however often they were put on."""
    text, starts, ends = Reading.of(original)
    for _ in range(MAX_ROUNDS):
        if not ("%" in text or "&" in text or "\\" in text or "=" in text):
            break
        chars: list[str] = []
        from_: list[int] = []
        to: list[int] = []
        at = 0
        for match in _UNIT.finditer(text):
            decoded = _decoded(match)
            if len(decoded) != 1:
                continue
            first, last = match.span()
            chars += [*text[at:first], decoded]
            from_ += [*starts[at:first], starts[first]]
            to += [*ends[at:first], ends[last - 1]]
            at = last
        if not at:
            break
        chars += text[at:]
        from_ += starts[at:]
        to += ends[at:]
        text, starts, ends = "".join(chars), from_, to
    return Reading(text, starts, ends)


def _decoded(match: re.Match[str]) -> str:
    """The character that a unit stands for; anything longer or shorter where it stands for none."""
    unit = match[0]
    if match.lastgroup:
        digits, base = _BYTE[match.lastgroup]
        return bytes(int(byte, base) for byte in digits.findall(unit)).decode(errors="replace")
    if unit[0] == "&":
        char = unescape(unit)
        return unescape(unit.lower()) if char == unit else char
    if unit[1] in "uUxX":
        points = [int(number, 16) for number in _POINT.findall(unit)]
        if len(points) == 2:
            return b"".join(point.to_bytes(2, "big") for point in points).decode("utf-16-be", "replace")
        return chr(points[0]) if points[0] <= sys.maxunicode else ""
    return chr(int(unit[1:], 8)) if unit[1].isdigit() else unit[1]


def fold(reading: Reading) -> Reading:
    """As search engines fold: without case, accents, width, and what is invisible."""
    text, starts, ends = reading
    if text.isascii():
        return Reading(text.lower(), starts, ends)
    parts = [(part, start, end) for char, start, end in zip(text, starts, ends, strict=True) for part in _folded(char)]
    return Reading("".join(part for part, _, _ in parts), [s for _, s, _ in parts], [end for _, _, end in parts])


def _folded(char: str) -> str:
    if char.isascii():
        return char.lower()
    parts = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return "".join(part for part in parts if unicodedata.category(part) not in _INVISIBLE)


def encoded_within(text: str) -> Iterator[tuple[int, int, str]]:
    """Each part of a text that may be encoded bytes, by its beginning and end, with each text that it may stand for.

    Base64, base32, hexadecimal digits and decimal numbers, at each place of a byte at which they may begin.
    """
    for pattern, decode in _RUNS:
        for match in pattern.finditer(text):
            for data in decode(match[0]):
                inner = data.decode(errors="replace").replace("\0", "")  # as texts of two bytes a character have them
                if inner.count("\ufffd") * 2 < len(inner):
                    yield *match.span(), inner


def _base64(run: str) -> Iterator[bytes]:
    digits = run.rstrip("=").translate(_STANDARD)
    for skipped in range(4):
        part = digits[skipped:]
        part = part[: len(part) - (len(part) % 4 == 1)]
        yield b64decode(part + "=" * (-len(part) % 4))


def _base32(run: str) -> Iterator[bytes]:
    digits = run.rstrip("=").upper().translate(_DIGITS)
    for shift in range(8):
        yield (int(digits, 32) >> shift).to_bytes(len(digits) * 5 // 8 + 1, "big")


def _hexadecimal(run: str) -> Iterator[bytes]:
    digits = _NO_DIGITS.sub("", run.lower())
    for skipped in range(2):
        yield bytes.fromhex(digits[skipped : len(digits) - (len(digits) - skipped) % 2])


def _numbers(run: str) -> Iterator[bytes]:
    yield bytes(int(number) & 0xFF for number in _NUMBER.findall(run))


_STANDARD = str.maketrans("-_", "+/")
_DIGITS = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789ABCDEFGHIJKLMNOPQRSTUV")
_NO_DIGITS = re.compile("0x|[^0-9a-f]")
_NUMBER = re.compile(r"-?\d+")
_RUNS: Sequence[tuple[re.Pattern[str], Callable[[str], Iterator[bytes]]]] = (
    (re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}"), _base64),
    (re.compile(r"(?:[A-Z2-7]{12,}|[a-z2-7]{12,})={0,6}"), _base32),
    (re.compile(r"(?:0x)?[0-9a-f]{2}(?:\W{0,2}(?:0x)?[0-9a-f]{2}){4,}", re.IGNORECASE), _hexadecimal),
    (re.compile(r"(?<![\w.])-?\d{1,3}(?:[^\w.]{1,3}-?\d{1,3}(?![\w.])){3,}"), _numbers),
)
