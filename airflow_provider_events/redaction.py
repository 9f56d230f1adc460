"""The one place where a vendor's words come in: what they repeat of a key or a customer is taken out.

Vendors, gateways and proxies repeat what they were sent, in whatever spelling. So a text is decoded and folded, and
compared with the secrets of the connection and with the identities and longer values of the request, forwards and
backwards. What looks like an e-mail address, a telephone number or a key is taken out whoever wrote it. Nothing is done
for an answer without words.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any, NamedTuple, Self

from airflow_provider_events.contract import Outcome
from airflow_provider_events.decoding import Reading, encoded_within, fold, read
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
MAX_DEPTH = 32
MAX_NESTED = 3  # encoded, in what is encoded, in what is encoded

_ENCODED = re.compile(r"[a-z0-9+/_=-]{5,}")
_KEY = re.compile(r"[A-Za-z0-9+=_-]{16,}")
_CHANGE = re.compile(r"(?<=\d)[A-Za-z]|(?<=[A-Za-z])\d")
_SPACES = re.compile(r"\s+")
_OWN_CODE = re.compile(r"http_\d{3}").fullmatch


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
        said = _Said.of(text)
        repeats = any(_holds(said, sought) for sought in (self._secrets, *_sought(about)))
        return None if repeats or any(True for _ in personal(said.folded.text)) else shown(text, 2 * CODE_LENGTH)

    def holds_secret(self, text: str) -> bool:
        """Whether a text repeats a secret of the connection, in whatever spelling."""
        return bool(text) and _holds(_Said.of(text), self._secrets)

    def _clean(self, texts: Sequence[str], limits: Sequence[int], sought: tuple[_Sought, ...]) -> list[str]:
        """Texts that are shown together, each as one line: what is sought may be split over them."""
        heads = [text[:READ_LENGTH] for text in texts]
        said = _Said.of(" ".join(heads))
        hidden = [said.folded.place(*span) for span in (*personal(said.folded.text), *_keys(said.folded.text))]
        for each in (self._secrets, *sought):
            hidden += _found(said, each)
        hidden.sort()
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
        value = value.strip()
        given = {fold(read(value)).text, fold(Reading.of(value)).text}  # it may look like an escape, and be none
        forwards = [_SPACES.sub(" ", text).replace("+", " ") for text in given]
        for text in (*forwards, *(text[::-1] for text in forwards)):
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


class _Said(NamedTuple):
    """A text of the vendor's, decoded, and folded as well."""

    decoded: Reading
    folded: Reading

    @classmethod
    def of(cls, text: str) -> Self:
        decoded = read(text)
        return cls(decoded, fold(decoded))


def _found(said: _Said, sought: _Sought, depth: int = 0) -> Iterator[tuple[int, int]]:
    """Beginning and end of each part of the original text that holds something sought."""
    decoded, folded = said
    text = folded.text.replace("+", " ")
    for span in (*_repeated(text, sought), *_apart(text, sought)):
        yield folded.place(*span)
    for match in _ENCODED.finditer(folded.text):
        if any(needle in match[0] for needle in sought.encoded):
            yield folded.place(*match.span())
    if depth < MAX_NESTED:
        for first, last, inner in encoded_within(decoded.text):
            if _holds(_Said.of(inner), sought, depth + 1):
                yield decoded.place(first, last)


def _holds(said: _Said, sought: _Sought, depth: int = 0) -> bool:
    return any(True for _ in _found(said, sought, depth))


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


def _keys(text: str) -> Iterator[tuple[int, int]]:
    """What looks like a key: long, without a space, letters and digits in turn."""
    for match in _KEY.finditer(text):
        if len(_CHANGE.findall(match[0])) >= 3:
            yield match.span()
