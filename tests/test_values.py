"""The one policy for values: the table of the module, row by row."""

from __future__ import annotations

import ipaddress
import json
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_events.exceptions import InvalidEvent
from airflow_provider_events.values import MAX_DEPTH, iso_utc, json_object, json_value, kind, parse_time
from tests.vendors.wires import exactly, examples, nested, on_the_wire

MOMENT = datetime(2026, 3, 1, 9, 30, 0, 123456, UTC)


class Colour(StrEnum):
    RED = "red"


OldColour = Enum("OldColour", {"RED": "red"}, type=str)


class Level(IntEnum):
    HIGH = 3


class Plain(Enum):
    RED = "red"


class Text(str):
    __slots__ = ()


def stable(value: object) -> str:
    """A test's name for a value, without its address in memory."""
    return type(value).__name__ if " at 0x" in repr(value) else ascii(value)[:40]


def levels(depth: int, kind: type = list) -> Any:
    """A value of `depth` nested arrays or objects."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (None, None),
        (True, True),
        ("Zoë 日本 😀", "Zoë 日本 😀"),
        ("\x00\x1f", "\x00\x1f"),
        ("", ""),
        (Text("red"), "red"),
        (Colour.RED, "red"),
        (OldColour.RED, "red"),
        (Level.HIGH, 3),
        (0, 0),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
        (0.1, 0.1),
        (1e300, 1e300),
        (Decimal("10"), 10),
        (Decimal("10.00"), 10.0),
        (Decimal("39.80"), 39.8),
        (Decimal("1E+3"), 1000),
        (Decimal("0E+30"), 0),
        (Decimal("-7"), -7),
        (Decimal("18446744073709551615"), 18446744073709551615),
        (MOMENT, "2026-03-01T09:30:00.123456Z"),
        (MOMENT.replace(microsecond=0), "2026-03-01T09:30:00Z"),
        (MOMENT.astimezone(timezone(timedelta(hours=2))), "2026-03-01T09:30:00.123456Z"),
        (date(2026, 3, 1), "2026-03-01"),
        (time(9, 30), "09:30:00"),
        (time(9, 30, 0, 5), "09:30:00.000005"),
        (timedelta(minutes=1, milliseconds=500), 60.5),
        (timedelta(seconds=-90), -90.0),
        (UUID("6F1C1C3E-0D6B-4D52-9A7E-0A3A4B1F6F10"), "6f1c1c3e-0d6b-4d52-9a7e-0a3a4b1f6f10"),
        (b"\x00\xff", "AP8="),
        (bytearray(b"\x00\xff"), "AP8="),
        (memoryview(b"\x00\xff"), "AP8="),
        ([], []),
        ((1, "a"), [1, "a"]),
        ({}, {}),
        ({"a": [{"b": None}]}, {"a": [{"b": None}]}),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
    ],
    ids=stable,
)
def test_every_row_of_the_table(value: Any, wire: Any) -> None:
    made = json_value(value, "properties.x")
    assert exactly(made) == exactly(wire)
    assert exactly(json_object({"x": value}, "properties")) == exactly({"x": wire})


NEVER = [
    float("nan"),
    float("inf"),
    float("-inf"),
    Decimal("NaN"),
    Decimal("sNaN"),
    Decimal("Infinity"),
    Decimal("1.5E+400"),
    2**64,
    -(2**63) - 1,
    Decimal(2**64),
    Decimal("1E+20"),
    Decimal("1E+21"),
    Decimal("123456789012345678901234567890"),
    Decimal("1E+999999"),
    datetime(2026, 3, 1),
    datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))),
    datetime.max,
    datetime.min.replace(tzinfo=UTC),
    date.max,
    date.min,
    "lone\ud800surrogate",
    {"lone\ud800surrogate": 1},
    {7: 1},
    {None: 1},
    {1, 2},
    frozenset(),
    object(),
    Plain.RED,
    range(3),
    (n for n in range(3)),
    complex(1, 2),
    Exception("secret"),
]


@pytest.mark.parametrize("value", NEVER, ids=stable)
@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "nested"])
def test_what_has_no_place_in_json_is_refused_by_field(value: Any, wrapped: bool) -> None:
    with pytest.raises(InvalidEvent) as refusal:
        json_object({"price": {"list": [value]} if wrapped else value}, "properties")
    assert refusal.value.field.startswith("properties.price" + (".…" if wrapped else ""))
    assert "surrogate" not in refusal.value.reason.replace("a lone surrogate", "")
    assert "secret" not in str(refusal.value)
    assert not any(character.isdigit() for character in refusal.value.reason.replace("64 bits", ""))


@pytest.mark.parametrize("zone", [None, UTC, timezone(timedelta(hours=3)), timezone(-timedelta(hours=3))], ids=str)
@pytest.mark.parametrize("moment", [datetime.min, datetime.max])
def test_the_first_and_the_last_time_that_there_is_are_infinity_and_refused(
    moment: datetime, zone: timezone | None
) -> None:
    for refuse in (
        lambda at: parse_time(at, "at"),
        lambda at: json_value(at, "at"),
        lambda at: json_value(at.date(), "at"),
    ):
        with pytest.raises(InvalidEvent, match=r"^at: out of the range of times: the first or last one.*infinity"):
            refuse(moment.replace(tzinfo=zone))


def test_times_and_dates_beside_the_last_are_sent() -> None:
    assert json_value(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), "at") == "9999-12-31T23:59:59Z"
    assert json_value(date(9999, 12, 30), "at") == "9999-12-30"


@pytest.mark.parametrize("text", ["10.0.0.1", "::1"])
def test_addresses_and_networks_are_their_text(text: str) -> None:
    for make in (ipaddress.ip_address, ipaddress.ip_network, ipaddress.ip_interface):
        address = make(text)
        assert json_value([address], "ip") == [str(address)]


@pytest.mark.parametrize("container", [list, dict])
def test_nesting_is_bounded(container: type) -> None:
    value = levels(MAX_DEPTH, container)
    assert json_value(value, "x") == value
    with pytest.raises(InvalidEvent, match="deeper than 32 levels"):
        json_value(levels(MAX_DEPTH + 1, container), "x")


def test_a_value_within_itself_is_refused() -> None:
    snake: list[Any] = []
    snake.append(snake)
    with pytest.raises(InvalidEvent, match="deeper than 32 levels"):
        json_object({"x": snake}, "properties")


def test_the_vendors_text_for_times_is_used_at_every_depth() -> None:
    def render(moment: datetime) -> str:
        return f"{moment:%Y}"

    assert json_object({"a": MOMENT, "b": [{"c": MOMENT}]}, "p", lambda name: render) == {
        "a": "2026",
        "b": [{"c": "2026"}],
    }


def test_the_given_values_are_left_alone() -> None:
    inner = [Decimal("1.5")]
    given_values: Mapping[str, Any] = {"a": inner}
    json_object(given_values, "p")
    assert given_values == {"a": [Decimal("1.5")]}
    assert inner == [Decimal("1.5")]


@given(st.dictionaries(st.text(max_size=10), nested, max_size=4))
@examples(80)
def test_what_passes_round_trips_through_json(values: dict[str, Any]) -> None:
    made = json_object(values, "properties")
    assert exactly(json.loads(json.dumps(made, allow_nan=False))) == exactly(on_the_wire(values))


@given(st.sampled_from(NEVER[:7]), st.lists(st.sampled_from([list, tuple, dict]), max_size=12))
@examples(60)
def test_what_is_refused_is_refused_at_every_depth(value: Any, wrappings: list[type]) -> None:
    for wrapping in wrappings:
        value = {"a": value} if wrapping is dict else wrapping([1, value])
    with pytest.raises(InvalidEvent, match=r"^properties\.price"):
        json_object({"price": value}, "properties")


# -- times -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (MOMENT, "2026-03-01T09:30:00.123456Z"),
        (MOMENT.replace(microsecond=1), "2026-03-01T09:30:00.000001Z"),
        (MOMENT.replace(microsecond=0), "2026-03-01T09:30:00Z"),
        (datetime(2026, 3, 1, 15, tzinfo=timezone(timedelta(hours=5.5))), "2026-03-01T09:30:00Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
        (datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_times_are_utc_and_keep_their_microseconds(moment: datetime, text: str) -> None:
    assert iso_utc(moment) == text
    assert parse_time(text, "t") == moment


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("soon", "ISO 8601"),
        ("2026-13-01T00:00:00Z", "ISO 8601"),
        ("2026-03-01", "without a zone"),
        ("2026-03-01T09:30:00", "without a zone"),
        (datetime(2026, 3, 1), "timezone"),
        (None, "not null"),
        (1772357400, "not int"),
        (1772357400.5, "not float"),
        (date(2026, 3, 1), "not date"),
        (datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))), "out of the range"),
    ],
    ids=str,
)
def test_what_is_no_time_is_refused(value: object, reason: str) -> None:
    with pytest.raises(InvalidEvent, match=reason) as refusal:
        parse_time(value, "timestamp")
    assert refusal.value.field == "timestamp"


@pytest.mark.parametrize(("value", "name"), [(None, "null"), (1, "int"), ("secret", "str"), (MOMENT, "datetime")])
def test_the_kind_of_a_value_is_not_the_value(value: object, name: str) -> None:
    assert kind(value) == name
