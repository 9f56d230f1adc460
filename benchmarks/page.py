"""docs/performance.md: what stands between its markers is made here, all else is written by hand."""

from __future__ import annotations

from pathlib import Path

from benchmarks.results import RESULTS, Results
from benchmarks.tables import TABLES, facts
from benchmarks.targets import targets

__all__ = ["PAGE", "rewrite"]

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
IMAGES = PAGE.parent / "images"


def rewrite() -> None:
    """Tables and plots anew from all results that are there."""
    from benchmarks.plots import draw  # here, so that what draws nothing needs no matplotlib

    found = {name: results for name in TABLES if (results := Results.read(name, RESULTS))}
    text = PAGE.read_text()
    for name, results in found.items():
        text = put(text, name, TABLES[name](results))
        draw(results, IMAGES)
    text = put(text, "targets", targets(found))
    if "cpu" in found:
        text = put(text, "machine", facts(found["cpu"]))
    PAGE.write_text(text)


def put(text: str, name: str, lines: list[str]) -> str:
    """`text` with these lines between the markers of that name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{PAGE.name} has no place for {name}: {begin} … {end}")
    content = "\n".join(lines).strip("\n")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"
