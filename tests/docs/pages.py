"""The pages of this repository as its tests read them: text, blocks of code, spans of code, links, headings, tables."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FILES = sorted(
    {*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / ".github").rglob("*.md")},
    key=lambda file: (file.parent != DOCS, file),
)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MEASURED = re.compile(r"^<!-- ([\w ]+): begin -->$.*?^<!-- \1: end -->$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    :param line: of its first line in its file, from 1.
    """

    file: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}"


@cache
def text_of(page: str | Path) -> str:
    """The text of a file, or of a page of `docs` by its name."""
    return (DOCS / f"{page}.md" if isinstance(page, str) else page).read_text(encoding="utf-8")


@cache
def blocks(*languages: str) -> list[Block]:
    """All blocks of code in these languages; without one, in all."""
    return [
        Block(file, text_of(file)[: found.start(2)].count("\n") + 1, found[1], found[2])
        for file in FILES
        for found in FENCED.finditer(text_of(file))
        if not languages or found[1] in languages
    ]


def prose_of(file: Path) -> str:
    """The text without blocks of code and without what a measurement wrote, which says how it was on that day."""
    return FENCED.sub("", MEASURED.sub("", text_of(file)))


def spans(file: Path) -> list[str]:
    """What stands between backticks in the prose."""
    return [found[2].strip() for found in re.finditer(r"(`+)(.+?)\1(?!`)", prose_of(file), re.DOTALL)]


def links(file: Path) -> list[str]:
    """The targets of all links."""
    text = re.sub(r"`[^`\n]*`", "", FENCED.sub("", text_of(file)))
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)", text, re.MULTILINE)


def anchors(file: Path) -> set[str]:
    """What a link into the page may name, as GitHub makes it of the headings."""
    found: dict[str, int] = {}
    anchors: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", FENCED.sub("", text_of(file)), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        anchors.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return anchors


def section(page: str, title: str) -> str:
    """The text under a heading, up to the next heading of the same level or a higher one."""
    text = text_of(page)
    hashes, _, _ = next(line for line in text.splitlines() if re.fullmatch(rf"#+ {re.escape(title)}", line)).partition(
        " "
    )
    after = text.split(f"\n{hashes} {title}\n", 1)[1]
    return re.split(rf"\n#{{1,{len(hashes)}}} ", after)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables in a text, heads and rulers left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = {n for n in range(len(lines) - 1) if set(lines[n + 1]) <= set("|- :")}
    kept = [line for n, line in enumerate(lines) if n not in heads and n - 1 not in heads]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in kept]


def code(cell: str) -> list[str]:
    """What stands between backticks in a cell."""
    return re.findall(r"`([^`]*)`", cell)


@cache
def defined() -> set[str]:
    """All classes, functions and methods of the package, methods also with their class."""
    found: set[str] = set()

    def walk(body: Iterable[ast.stmt], inside: str = "") -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found.update({node.name, f"{inside}{node.name}"})
                walk(node.body, f"{node.name}." if isinstance(node, ast.ClassDef) else inside)

    for module in (ROOT / "airflow_provider_events").rglob("*.py"):
        walk(ast.parse(module.read_text(encoding="utf-8")).body)
    return found
