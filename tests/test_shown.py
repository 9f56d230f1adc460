"""What is shown of data is one printable, bounded line without addresses and telephone numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_events.events import Event
from airflow_provider_events.exceptions import InvalidEvent, MappingError
from airflow_provider_events.shown import NAME_LENGTH, TEXT_LENGTH, shown, shown_names, shown_path
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.sources.rows import EventRecords
from airflow_provider_events.values import json_object


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("total_price", "total_price"),
        ("a\n2026-03-01 ERROR forged line", "a 2026-03-01 ERROR forged line"),
        ("\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("price\u202etxt.exe", "price txt.exe"),
        ("zero\u200bwidth\u2028line\x00nul\x85next", "zero width line nul next"),
        ("a\ud800b", "a b"),
        ("x" * 61, "x" * 59 + "…"),
        ("x" * 60, "x" * 60),
        ("by ada.lovelace@example.com now", "by *** now"),
        ("ada%40example.com", "***"),
        ("ada\uff20example.com", "***"),
        ("+40 722 123 456", "***"),
        ("call (0722) 123-456-789", "call ***"),
        ("2026-03-01 09:30", "2026-03-01 09:30"),
        ("price_2026_03_01", "price_2026_03_01"),
        ("1048576 bytes", "1048576 bytes"),
        ("größe", "größe"),
        (12, "12"),
        ("", ""),
    ],
)
def test_a_name_is_shown_as_one_bounded_line(value: object, line: str) -> None:
    assert shown(value) == line


@given(st.text(max_size=300), st.integers(2, 300))
def test_whatever_the_text_the_line_is_printable_and_bounded(text: str, limit: int) -> None:
    line = shown(text, limit)
    assert line.isprintable()
    assert len(line) <= limit
    assert shown(line, limit) == line


def test_a_path_is_bounded_in_each_part() -> None:
    assert shown_path("properties." + "x" * 500) == f"properties.{'x' * 59}…"
    assert shown_path("properties.ada@example.com") == "properties.***"
    assert shown_path("identities[3]") == "identities[3]"


def test_of_many_names_the_first_are_shown() -> None:
    assert shown_names(["b", "a"]) == "b, a"
    assert shown_names(f"c{n}" for n in range(1000)).endswith(", c19 and 980 more")


# -- where names of the data are told ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"by": {"ada@example.com": float("nan")}}, "properties.by.…"),
        ({"by": {"Ada Lovelace": {"score": float("inf")}}}, "properties.by.…"),
        ({"by": [{"Ada": 1}, {"Ada": object()}]}, "properties.by[1].…"),
        ({"by": {"Ada": [[object()]]}}, "properties.by.…"),
        ({"by": {"Ada\ud800": 1}}, "properties.by"),
        ({"by": [1, float("nan")]}, "properties.by[1]"),
        ({"ada@example.com": float("nan")}, "properties.***"),
        ({"a\nERROR b\x1b[1m": float("nan")}, "properties.a ERROR b [1m"),
        ({"k" * 100_000: float("nan")}, f"properties.{'k' * 59}…"),
    ],
)
def test_a_fault_within_a_property_is_told_by_its_column(value: dict[str, object], path: str) -> None:
    with pytest.raises(InvalidEvent) as fault:
        json_object(value, "properties")
    assert fault.value.field == path
    assert str(fault.value).startswith(f"{path}: ")


def test_a_row_that_is_no_event_does_not_name_the_customer() -> None:
    with pytest.raises(InvalidEvent) as fault:
        Event.from_dict({"ada@example.com": {"name": "x"}})
    assert "ada" not in str(fault.value)
    assert "not a field of an event" in str(fault.value)


@pytest.mark.parametrize("names", [["ada@example.com"], ["x" * 100_000, "\x1b[2Jgone"], [f"c{n}" for n in range(9999)]])
def test_columns_that_are_not_there_are_listed_in_bounds(names: list[str]) -> None:
    mapping = EventMapping.of({"name": "n", "identity": {"email": "email"}})
    with pytest.raises(MappingError, match="'email', which is not there") as fault:
        mapping.bind(names)
    rows = EventRecords([{"email": "a@example.com"}, dict.fromkeys(names, 1)], mapping)
    ((_, record),) = rows.records()
    for text in (str(fault.value), str(record.fault)):
        assert text.isprintable()
        assert len(text) < 2000
        assert "ada@" not in text
    assert len(str(record.fault)) <= TEXT_LENGTH + NAME_LENGTH


def test_an_event_prints_its_name_in_one_line() -> None:
    assert repr(Event("a\nb", {"id": 1})) == "<Event 'a b'>"
