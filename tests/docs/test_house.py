"""The page about the house: its drawing is what is imported, its words and its files are there."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import blocks, code, defined, rows, section, text_of
from tests.test_boundaries import MODULES, ROOMS, WORDS, arrows

Arrows = set[tuple[str, str]]


def drawn() -> Arrows:
    (drawing,) = [block.text for block in blocks("mermaid") if block.file.stem == "house"]
    node = r'(\w+)(?:\["[^"]+"\])?'
    found = set(re.findall(rf"^    {node} --> {node}$", drawing, re.MULTILINE))
    assert len(found) == drawing.count("-->")
    return found


def imported() -> Arrows:
    """Which room uses which, all words as one."""
    pairs = {(room, "words" if used in WORDS else used) for room, used in arrows() if room in ROOMS}
    return {(room, used) for room, used in pairs if used != "__init__"}


def reached(arrows: Arrows) -> Arrows:
    """The arrows, and all ways along them."""
    while more := {(a, d) for a, b in arrows for c, d in arrows if b == c} - arrows:
        arrows = arrows | more
    return arrows


def without_detours(arrows: Arrows) -> Arrows:
    """The fewest arrows along which as much is reached."""
    ways = reached(arrows)
    return {(a, b) for a, b in arrows if not any((a, c) in ways and (c, b) in ways for c in {d for _, d in ways})}


def test_the_drawing_is_what_is_imported() -> None:
    assert sorted(drawn()) == sorted(without_detours(imported()))
    assert {room for arrow in drawn() for room in arrow} == {*ROOMS, "words"} - {"__init__"}


@pytest.mark.parametrize("title", ["The words", "The life of a row"])
def test_each_word_is_a_class_or_function(title: str) -> None:
    column = {"The words": 1, "The life of a row": 2}[title]
    named = [name for cells in rows(section("house", title)) for name in code(cells[column])]
    assert len(named) > 10
    assert [name for name in named if name not in defined()] == []


def test_a_row_lives_in_ten_lines() -> None:
    assert [cells[0] for cells in rows(section("house", "The life of a row"))] == [str(n) for n in range(1, 11)]


def test_the_threads_have_these_names() -> None:
    told = {name for cells in rows(section("house", "The four threads")) for name in code(cells[1])}
    source = "\n".join(module.read_text(encoding="utf-8") for module in MODULES if "delivery" in module.parts)
    assert told == set(re.findall(r'"(events-[a-z]+)"', source))


def test_every_room_is_told_of() -> None:
    told = {name for cells in rows(section("house", "The rooms")) for name in code(cells[0])}
    assert told <= set(ROOMS)
    assert [name for name in (*ROOMS, *WORDS) if f"`{name}`" not in text_of("house")] == ["__init__", "__main__"]
