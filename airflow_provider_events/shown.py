"""Whatever is shown of data: in errors, reasons, examples, logs and reports it is one printable, bounded line.

Names of columns and properties come from the data as much as values do, and may be anything.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from itertools import islice

__all__ = ["MASK", "NAME_LENGTH", "TEXT_LENGTH", "did_you_mean", "personal", "shown", "shown_names", "shown_path"]

MASK = "***"
NAME_LENGTH = 60
TEXT_LENGTH = 300
MOST_NAMES = 20

_OUTSIDE = r"\s\"'`<>()\[\]{},;:=/?&|\\"
_ADDRESS = re.compile(rf"[^{_OUTSIDE}@]+(?:@|%40|\uff20)[^{_OUTSIDE}]+", re.IGNORECASE)
_TELEPHONE = re.compile(r"(?<![\w.])(?:\+\(?\d(?:[ ().\-/]{0,2}\d){6,}|\(?\d(?:[ ().\-/]{0,2}\d){8,})(?![\w])")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def shown(value: object, limit: int = NAME_LENGTH) -> str:
    """A text of the data as one printable line, cut to `limit` characters, without addresses and telephone numbers."""
    text = str(value)[: 4 * limit]
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    for start, end in reversed(list(personal(text))):
        text = f"{text[:start]}{MASK}{text[end:]}"
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def shown_names(names: Iterable[object]) -> str:
    """Names as a list, the first 20 of them."""
    names = names if isinstance(names, Collection) else list(names)
    more = len(names) - MOST_NAMES
    return ", ".join(map(shown, islice(names, MOST_NAMES))) + (f" and {more} more" if more > 0 else "")


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The nearest neighbour of an unknown name as a question, or all that are known."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def shown_path(path: str) -> str:
    """Where a fault is, e.g. `properties.price`: a known word, and a name from the data."""
    known, dot, name = path.partition(".")
    return f"{shown(known)}{dot}{shown(name)}" if dot else shown(path)


def personal(text: str) -> Iterable[tuple[int, int]]:
    """Beginning and end of each part that looks like an e-mail address or a telephone number, in their order."""
    spans = []
    if "@" in text or "%40" in text or "\uff20" in text:
        spans += [match.span() for match in _ADDRESS.finditer(text)]
    spans += [match.span() for match in _TELEPHONE.finditer(text) if not _DATE.match(match[0])]
    end = 0
    for span in sorted(spans):
        if span[0] >= end:
            yield span
            end = span[1]
