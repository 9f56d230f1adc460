"""The one place where a vendor's words come in: what they repeat of a key or a customer is taken out.

Vendors, gateways and proxies repeat what they were sent, in whatever spelling. So a text is read as far as it is
encoded (percent signs, HTML, JSON, base64), folded as search engines fold (case, accents, width), and compared with the
secrets of the connection and with the identities and longer values of the request. What looks like an e-mail address,
a telephone number or a key is taken out whoever wrote it. Nothing is done for an answer without words.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from html import unescape
from typing import Any, NamedTuple
from urllib.parse import unquote

from airflow_provider_events.contract import Outcome
from airflow_provider_events.shown import MASK, personal, shown

__all__ = ["About", "Private", "Redactor", "nobody"]

REASON_LENGTH = 200
CODE_LENGTH = 60
READ_LENGTH = 400  # of a text; the end of a longer one may be a part of something that can't be recognized
KEPT_LENGTH = 300
SHORTEST_ID = 3
SHORTEST_VALUE = 4
SHORTEST_WITHIN_WORDS = 4  # shorter ones are searched as whole words only
SHORTEST_APART = 6  # of letters and digits, with anything else between them
PART_OF_SECRET = 10
PART_OF_VALUE = 12
MAX_ROUNDS = 4
MAX_DEPTH = 32

_UNIT = re.compile(
    r"%[0-7][0-9a-f]|%[cd][0-9a-f]%[89ab][0-9a-f]|%e[0-9a-f](?:%[89ab][0-9a-f]){2}|%f[0-7](?:%[89ab][0-9a-f]){3}"
    r"|&(?:#0*\d{1,7};?|#x0*[0-9a-f]{1,6};?|[a-z]{2,8};)"
    r"|[\\%]ud[89ab][0-9a-f]{2}[\\%]ud[c-f][0-9a-f]{2}|\\u000[01][0-9a-f]{4}|[\\%]u[0-9a-f]{4}"
    r"|\\u\{0*[0-9a-f]{1,6}\}|\\x[0-9a-f]{2}|\\[0-3][0-7]{2}|\\[\"'\\/]",
    re.IGNORECASE,
)
_POINT = re.compile(r"[ux]\{?([0-9a-f]+)", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_ENCODED = re.compile(r"[a-z0-9+/_=-]{5,}")
_KEY = re.compile(r"[A-Za-z0-9+=_-]{16,}")
_CHANGE = re.compile(r"(?<=\d)[A-Za-z]|(?<=[A-Za-z])\d")
_SPACES = re.compile(r"\s+")
_OWN_CODE = re.compile(r"http_\d{3}").fullmatch
_WIDE = str.maketrans("-_", "+/")


class Private(NamedTuple):
    """What a request says of a customer.

    :param identity: ids by their names.
    :param values: whatever else is not to be repeated, nested as it may be.
    """

    identity: Mapping[str, Any]
    values: Any = ()

    def __repr__(self) -> str:
        """Without any of it."""
        return f"<Private of {len(self.identity)} ids>"


About = Callable[[], Iterable[Private]]


def nobody() -> Iterable[Private]:
    """For a request that concerns no customer."""
    return ()


class Redactor:
    """Takes out of a vendor's words what they repeat.

    :param secrets: those of the connection, in the forms in which they travel.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = _Sought(PART_OF_SECRET)
        held = set(secrets)
        for secret in held:
            if secret.rpartition(" ")[2] == secret or secret.rpartition(" ")[2] not in held:  # not its scheme
                self._secrets.add(secret, SHORTEST_ID)
                self._secrets.add_encoded(secret)

    def outcome(self, outcome: Outcome, about: About = nobody) -> Outcome:
        """An outcome as it may be shown.

        :param about: whom the request concerns; called only where there are words.
        """
        return self.outcomes([outcome], about)[0] if _has_words(outcome) else outcome

    def outcomes(self, outcomes: list[Outcome], about: About = nobody) -> list[Outcome]:
        """The same for each event of a request."""
        if not any(map(_has_words, outcomes)):
            return outcomes
        sought = _sought(about)
        known: dict[tuple[str, str], tuple[str, str]] = {}
        clean = []
        for outcome in outcomes:
            if _has_words(outcome):
                said = code, reason = outcome.code, outcome.reason
                if said not in known:
                    theirs = "" if _OWN_CODE(code) else code
                    cleaned, reason = self._clean((theirs, reason), (CODE_LENGTH, REASON_LENGTH), sought)
                    known[said] = cleaned or code, reason
                code, reason = known[said]
                outcome = outcome._replace(code=code, reason=reason)
            clean.append(outcome)
        return clean

    def words(self, text: str, about: About = nobody, limit: int = REASON_LENGTH) -> str:
        """A text of the vendor's as one line of at most `limit` characters."""
        return self._clean([text], [limit], _sought(about))[0]

    def label(self, text: str | None, about: About = nobody) -> str | None:
        """An id that the vendor made, e.g. of a request; None where it repeats what is not its own."""
        if not text:
            return None
        folded = _read(text)
        repeats = any(True for sought in (self._secrets, *_sought(about)) for _ in _found(folded, sought))
        return None if repeats or any(True for _ in personal(folded.text)) else shown(text, 2 * CODE_LENGTH)

    def _clean(self, texts: Sequence[str], limits: Sequence[int], sought: tuple[_Sought, ...]) -> list[str]:
        """Texts that are shown together, each as one line: what is sought may be split over them."""
        heads = [text[:READ_LENGTH] for text in texts]
        read = _read(" ".join(heads))
        spans = [*personal(read.text), *_keys(read.text)]
        for each in (self._secrets, *sought):
            spans += _found(read, each)
        hidden = sorted((read.starts[first], read.ends[last - 1]) for first, last in spans)
        lines = []
        begin = 0
        for text, head, limit in zip(texts, heads, limits, strict=True):
            kept = text if len(text) < READ_LENGTH else text[:KEPT_LENGTH]
            within = [(max(start - begin, 0), stop - begin) for start, stop in hidden if stop > begin]
            lines.append(shown(_without(kept, within), limit))
            begin += len(head) + 1
        return lines


def _without(text: str, spans: Iterable[tuple[int, int]]) -> str:
    parts: list[str] = []
    end = 0
    for start, stop in spans:
        if start >= len(text):
            break
        if start > end or not parts:
            parts += [text[end:start], MASK]
        end = max(end, stop)
    return "".join([*parts, text[end:]])


def _has_words(outcome: Outcome) -> bool:
    return bool(outcome.reason) or bool(outcome.code and not _OWN_CODE(outcome.code))


# -- reading what is encoded -----------------------------------------------------------------------------------------


class _Text(NamedTuple):
    """A text as it reads once decoded and folded; each of its characters stands for a part of the original one."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]
    original: str


def _read(original: str) -> _Text:
    text, starts, ends = original, list(range(len(original))), list(range(1, len(original) + 1))
    for _ in range(MAX_ROUNDS):
        if not ("%" in text or "&" in text or "\\" in text):
            break
        chars: list[str] = []
        from_: list[int] = []
        to: list[int] = []
        at = 0
        for match in _UNIT.finditer(text):
            decoded = _decoded(match[0])
            if decoded is None:
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
    if text.isascii():
        return _Text(text.lower(), starts, ends, original)
    folded = [(part, start, end) for char, start, end in zip(text, starts, ends, strict=True) for part in _fold(char)]
    return _Text(
        "".join(part for part, _, _ in folded),
        [start for _, start, _ in folded],
        [end for _, _, end in folded],
        original,
    )


def _decoded(unit: str) -> str | None:
    """The one character that a unit stands for."""
    if unit[0] == "%" and unit[1] not in "uU":
        char = unquote(unit, errors="replace")
    elif unit[0] == "&":
        char = unescape(unit)
        char = unescape(unit.lower()) if char == unit else char
    elif unit[1] in "uUxX":
        points = [int(digits, 16) for digits in _POINT.findall(unit)]
        if len(points) == 2:
            return b"".join(point.to_bytes(2, "big") for point in points).decode("utf-16-be", "replace")
        char = chr(points[0]) if points[0] <= sys.maxunicode else ""
    elif unit[1].isdigit():
        char = chr(int(unit[1:], 8))
    else:
        char = unit[1]
    return char if len(char) == 1 else None


def _fold(char: str) -> str:
    """Without case, accents and width; nothing for what is invisible."""
    if char.isascii():
        return char.lower()
    parts = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return "".join(part for part in parts if unicodedata.category(part) not in ("Mn", "Cf", "Me"))


# -- what is searched ------------------------------------------------------------------------------------------------


class _Long:
    """Texts of which no part of `part` characters may be repeated."""

    def __init__(self, part: int) -> None:
        self.part = part
        self._texts: list[str] = []
        self._joined: str | None = None

    def add(self, text: str) -> None:
        """One more."""
        self._texts.append(text)

    def repeated(self, text: str) -> Iterator[tuple[int, int]]:
        """Beginning and end of each part that `text` repeats."""
        if not self._texts:
            return
        if self._joined is None:
            self._joined = "\0".join(self._texts)
        part, joined = self.part, self._joined
        for at in range(len(text) - part + 1):
            if text[at : at + part] in joined:
                yield at, at + part


class _Sought:
    """Texts that must not be repeated.

    :param part: of the longer ones, any part of so many characters neither.
    :ivar apart: their letters and digits, for texts that have something else between them.
    """

    def __init__(self, part: int) -> None:
        self.long = _Long(part)
        self.within: set[str] = set()
        self.alone: set[str] = set()
        self.encoded: set[str] = set()
        self.apart: set[str] = set()
        self.long_apart = _Long(part)

    def add(self, value: str, shortest: int) -> None:
        """Search for `value`, if it has at least `shortest` characters."""
        text = _SPACES.sub(" ", _read(value.strip()).text).replace("+", " ")
        if len(text) >= self.long.part:
            self.long.add(text)
        elif len(text) >= shortest:
            (self.within if len(text) >= SHORTEST_WITHIN_WORDS else self.alone).add(text)
        bare = "".join(filter(str.isalnum, text))
        if len(bare) >= self.long_apart.part:
            self.long_apart.add(bare)
        elif len(bare) >= SHORTEST_APART:
            self.apart.add(bare)

    def add_encoded(self, value: str) -> None:
        """Search for base64 and hexadecimal digits that hold `value`, whatever is around it and in either case."""
        data = value.encode(errors="replace")
        if len(data) < SHORTEST_WITHIN_WORDS:
            return
        self.encoded.add(data.hex())
        self.apart.add(data.hex())
        for before, skipped in enumerate((0, 2, 3)):
            text = b64encode(b"\0" * before + data).decode("ascii")[skipped : (before + len(data)) * 8 // 6]
            for form in (text, text.replace("+", "-").replace("/", "_")):
                self.encoded.add(form.lower())

    def add_values(self, value: Any, depth: int = 0) -> None:
        """Search for a value of a property, and for those within it."""
        match value:
            case None | bool():
                return
            case str():
                self.add(value, SHORTEST_VALUE)
            case bytes() | bytearray() | memoryview():
                self.add(b64encode(value).decode("ascii"), SHORTEST_VALUE)
            case datetime():
                with suppress(OverflowError, ValueError):
                    self.add((value.astimezone(UTC) if value.tzinfo else value).isoformat(), SHORTEST_VALUE)
            case date():
                self.add(value.isoformat(), SHORTEST_VALUE)
            case Mapping() if depth < MAX_DEPTH:
                for name, inner in value.items():
                    if depth:  # above are the names of columns
                        self.add(str(name), SHORTEST_VALUE)
                    self.add_values(inner, depth + 1)
            case list() | tuple() if depth < MAX_DEPTH:
                for inner in value:
                    self.add_values(inner, depth + 1)
            case _:
                with suppress(Exception):  # a value may be anything, and none that cannot be printed was sent
                    self.add(str(value), SHORTEST_VALUE)


def _sought(about: About) -> tuple[_Sought, ...]:
    ids, values = _Sought(PART_OF_VALUE), _Sought(PART_OF_VALUE)
    for private in about():
        for value in map(str, private.identity.values()):
            ids.add(value, SHORTEST_ID)
            ids.add_encoded(value)
        for value in private.values if isinstance(private.values, tuple) else (private.values,):
            values.add_values(value)
    values.alone |= values.within  # a short value may be any word, or a part of one
    values.within = {text for text in values.alone if len(text) >= 2 * SHORTEST_VALUE}
    values.apart.clear()
    return ids, values


def _found(read: _Text, sought: _Sought) -> Iterator[tuple[int, int]]:
    """Beginning and end of each part of the text that holds something sought."""
    text = read.text.replace("+", " ")
    yield from _repeated(text, sought)
    yield from _apart(text, sought)
    for match in _ENCODED.finditer(read.text):
        if any(needle in match[0] for needle in sought.encoded):
            yield match.span()
    for match in _BASE64.finditer(read.original):
        run = match[0].rstrip("=").translate(_WIDE)
        for skipped in range(4):
            encoded = run[skipped:]
            encoded = encoded[: len(encoded) // 4 * 4] if len(encoded) % 4 == 1 else encoded + "=" * (-len(encoded) % 4)
            with suppress(ValueError):
                inner = _read(b64decode(encoded).decode(errors="replace")).text.replace("+", " ")
                if any(True for _ in _repeated(inner, sought)):
                    yield from _part(read, *match.span())
                    break


def _repeated(text: str, sought: _Sought) -> Iterator[tuple[int, int]]:
    yield from _each(sought.within, text)
    for at, end in _each(sought.alone, text):
        if not text[at - 1 : at].isalnum() and not text[end : end + 1].isalnum():
            yield at, end
    yield from sought.long.repeated(text)


def _each(needles: Iterable[str], text: str) -> Iterator[tuple[int, int]]:
    for needle in needles:
        at = text.find(needle)
        while at >= 0:
            yield at, at + len(needle)
            at = text.find(needle, at + 1)


def _apart(text: str, sought: _Sought) -> Iterator[tuple[int, int]]:
    """What is repeated with spaces, quotes or the like between its letters."""
    kept = [at for at, char in enumerate(text) if char.isalnum()]
    bare = "".join([text[at] for at in kept])
    for first, last in (*_each(sought.apart, bare), *sought.long_apart.repeated(bare)):
        yield kept[first], kept[last - 1] + 1


def _part(read: _Text, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The characters that stand for a part of the original text."""
    within = [at for at, first in enumerate(read.starts) if start <= first < end]
    if within:
        yield within[0], within[-1] + 1


def _keys(text: str) -> Iterator[tuple[int, int]]:
    """What looks like a key: long, without a space, letters and digits in turn."""
    for match in _KEY.finditer(text):
        if len(_CHANGE.findall(match[0])) >= 3:
            yield match.span()
