"""Which column is what: every option, every value of an option, and every way to get it wrong."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from airflow_provider_events.events import Event
from airflow_provider_events.exceptions import InvalidEvent, MappingError
from airflow_provider_events.sources.mapping import EventMapping
from tests.vendors.wires import examples

NAIVE = datetime(2026, 3, 1, 9, 30, 0, 123456)
AWARE = NAIVE.replace(tzinfo=UTC)
BUCHAREST = ZoneInfo("Europe/Bucharest")
UUID_TEXT = "6f1c1c3e-0d6b-4d52-9a7e-0a3a4b1f6f10"
LEAST: dict[Any, Any] = {"name": "purchase", "identity": {"email": "user_email"}}


def stable(value: object) -> str:
    """A test's name for a value, without its address in memory."""
    return type(value).__name__ if " at 0x" in repr(value) else repr(value)


def event(row: dict[str, Any], **options: Any) -> Event:
    """The event of one row, given as column -> value."""
    mapper = EventMapping.of({**LEAST, **options}).bind(list(row))
    values = tuple(row.values())
    mapper.check_times([values])
    return mapper.event(values)


def invalid(row: dict[str, Any], **options: Any) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as refusal:
        event(row, **options)
    return refusal.value


def wrong(options: Any) -> str:
    with pytest.raises(MappingError) as error:
        EventMapping.of(options)
    return str(error.value)


def unbound(columns: list[str], **options: Any) -> str:
    with pytest.raises(MappingError) as error:
        EventMapping.of({**LEAST, **options}).bind(columns)
    return str(error.value)


# -- options -----------------------------------------------------------------------------------------------------------


def test_the_documented_mapping() -> None:
    row = {
        "event_name": "purchase",
        "user_email": "ada@example.com",
        "created_at": NAIVE,
        "order_id": 7,
        "total": Decimal("39.80"),
        "note": "not sent",
    }
    made = EventMapping.of(
        {
            "name_column": "event_name",
            "identity": {"email": "user_email"},
            "timestamp": "created_at",
            "id": "order_id",
            "properties": {"total_price": "total"},
            "timezone": "Europe/Bucharest",
            "nulls": "drop",
        }
    ).bind(list(row))
    assert made.event(tuple(row.values())) == Event(
        "purchase",
        {"email": "ada@example.com"},
        NAIVE.replace(tzinfo=BUCHAREST),
        {"total_price": Decimal("39.80")},
        "7",
    )


ROW = {"user_email": "ada@example.com", "total": 39.8, "currency": "EUR"}


@pytest.mark.parametrize(
    ("properties", "sent"),
    [
        (None, {"total": 39.8, "currency": "EUR"}),
        ([], {}),
        ((), {}),
        ({}, {}),
        (["total"], {"total": 39.8}),
        (("currency", "total"), {"currency": "EUR", "total": 39.8}),
        ({"total_price": "total"}, {"total_price": 39.8}),
        ({"a": "total", "b": "total"}, {"a": 39.8, "b": 39.8}),
        (["user_email"], {"user_email": "ada@example.com"}),
    ],
)
def test_properties_are_listed_renamed_or_all_the_rest(properties: Any, sent: dict[str, Any]) -> None:
    assert event(ROW, properties=properties).properties == sent


def test_columns_used_elsewhere_are_no_properties_by_themselves() -> None:
    row = {"user_email": "ada@example.com", "kind": "purchase", "at": AWARE, "order_id": 7, "total": 39.8}
    made = event(row, name=None, name_column="kind", timestamp="at", id="order_id")
    assert made.properties == {"total": 39.8}


def test_the_constant_name_and_a_mapping_pass_as_they_are() -> None:
    mapping = EventMapping(name="purchase", identity={"email": "user_email"})
    assert EventMapping.of(mapping) is mapping
    assert event(ROW).name == "purchase"


def test_a_mapping_is_a_value() -> None:
    assert EventMapping.of(LEAST) == EventMapping.of(dict(LEAST))
    with pytest.raises(ValidationError):
        EventMapping.of(LEAST).name = "other"  # type: ignore[misc]  # that it is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, ["identity", "Field required"]),
        ({"identity": {"email": "user_email"}}, ["exactly one of name", "name_column"]),
        ({**LEAST, "name_column": "kind"}, ["exactly one of name", "name_column"]),
        ({"name": "purchase", "identity": {}}, ["identity", "at least one column", '{"email": "user_email"}']),
        ({"name": "purchase", "identity": "user_email"}, ["identity"]),
        ({"name": "purchase", "identity": {"email": None}}, ["identity.email"]),
        ({"name": 7, "identity": {"email": "user_email"}}, ["name"]),
        ({**LEAST, "timezon": "UTC"}, ["timezon", "did you mean 'timezone'?"]),
        ({**LEAST, "Timestamp": "at"}, ["Timestamp", "did you mean 'timestamp'?"]),
        ({**LEAST, "qqqq": 1}, ["qqqq", "there are name, name_column, identity, timestamp, id, properties"]),
        ({**LEAST, "timezone": "Bucharest"}, ["timezone", "IANA", "Europe/Bucharest"]),
        ({**LEAST, "timezone": ""}, ["timezone", "IANA"]),
        ({**LEAST, "timezone": "../../etc/passwd"}, ["timezone", "IANA"]),
        ({**LEAST, "timezone": "/etc/localtime"}, ["timezone", "IANA"]),
        ({**LEAST, "nulls": "ignore"}, ["nulls", "'drop', 'send' or 'fail'"]),
        ({**LEAST, "properties": "total"}, ["properties"]),
        ({**LEAST, "properties": [7]}, ["properties"]),
        ({**LEAST, "timezone": "X", "nulls": "y"}, ["timezone", "nulls"]),
        ({**LEAST, 7: "total"}, ["7"]),
        (None, ["mapping", "EventMapping or a dict", "null"]),
        ("purchase", ["mapping", "EventMapping or a dict", "str"]),
        ([LEAST], ["mapping", "EventMapping or a dict", "list"]),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(options: Any, said: list[str]) -> None:
    error = wrong(options)
    assert error.startswith("mapping")
    assert [word for word in said if word not in error] == []


@pytest.mark.parametrize(
    "options",
    [
        {"timestamp": ""},
        {"id": ""},
        {"name": None, "name_column": ""},
        {"identity": {"email": ""}},
    ],
    ids=str,
)
def test_an_empty_column_name_is_refused_not_forgotten(options: dict[str, Any]) -> None:
    with pytest.raises(MappingError):
        EventMapping.of({**LEAST, **options}).bind(["user_email", "total"])


# -- columns -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"identity": {"email": "usr_email"}}, "identity.email names the column 'usr_email'"),
        ({"timestamp": "create_at"}, "timestamp names the column 'create_at'"),
        ({"id": "order_i"}, "id names the column 'order_i'"),
        ({"name": None, "name_column": "event_nam"}, "name_column names the column 'event_nam'"),
        ({"properties": ["totl"]}, "properties.totl names the column 'totl'"),
        ({"properties": {"total_price": "totl"}}, "properties.total_price names the column 'totl'"),
    ],
)
def test_a_missing_column_is_named_with_its_option_and_nearest_neighbour(options: dict[str, Any], said: str) -> None:
    columns = ["user_email", "created_at", "order_id", "event_name", "total"]
    error = unbound(columns, **options)
    assert said in error
    assert "did you mean '" in error
    assert f"the columns are {', '.join(columns)}" in error


def test_a_missing_column_without_a_neighbour_lists_those_there_are() -> None:
    error = unbound(["user_email", "total"], timestamp="zzz")
    assert "did you mean" not in error
    assert "the columns are user_email, total" in error


def test_column_names_are_case_sensitive_and_the_error_helps() -> None:
    assert "(did you mean 'USER_EMAIL'?)" in unbound(["USER_EMAIL", "TOTAL"])


def test_a_column_that_comes_twice_needs_an_alias() -> None:
    assert "'total' twice" in unbound(["user_email", "total", "total"])


# -- identities and ids ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "identity"),
    [
        ("c-1", "c-1"),
        (7, 7),
        (2**63 - 1, 2**63 - 1),
        (UUID(UUID_TEXT), UUID_TEXT),
        (Decimal("7"), 7),
        (Decimal("7.00"), 7),
        (Decimal("9007199254740993"), 9007199254740993),
        (7.0, 7),
    ],
    ids=stable,
)
def test_identities_are_texts_and_whole_numbers(value: Any, identity: str | int) -> None:
    made = event({"user_email": value}).identity["email"]
    assert (made, type(made)) == (identity, type(identity))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "  ",
        7.5,
        Decimal("7.5"),
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        float("nan"),
        float("inf"),
        True,
        b"c-1",
        bytearray(b"c-1"),
        memoryview(b"c-1"),
        ["c-1"],
        {"id": "c-1"},
        AWARE,
    ],
    ids=stable,
)
def test_other_identities_are_refused_by_key(value: Any) -> None:
    assert invalid({"user_email": value}).field == "identity.email"


def test_a_null_identity_leaves_its_key_out() -> None:
    identity = {"registered": "customer_id", "cookie": "cookie"}
    assert event({"customer_id": None, "cookie": "k-1"}, identity=identity).identity == {"cookie": "k-1"}
    assert invalid({"customer_id": None, "cookie": None}, identity=identity).field == "identity"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("order-1", "order-1"),
        (7, "7"),
        (UUID(UUID_TEXT), UUID_TEXT),
        (Decimal("7"), "7"),
        (Decimal("7.00"), "7"),
        (Decimal("1E+3"), "1000"),
        (Decimal("-0.0"), "0"),
        (Decimal("9007199254740993.00"), "9007199254740993"),
        (1001.0, "1001"),
        (1e15, "1000000000000000"),
        (AWARE, "2026-03-01T09:30:00.123456+00:00"),
        (AWARE.astimezone(timezone(timedelta(hours=2))), "2026-03-01T09:30:00.123456+00:00"),
        (date(2026, 3, 1), "2026-03-01"),
        (b"\x00\xff", "00ff"),
        (bytearray(b"\x00\xff"), "00ff"),
        (memoryview(b"\x00\xff"), "00ff"),
    ],
    ids=stable,
)
def test_ids_are_the_same_on_every_encoding(value: Any, text: str) -> None:
    assert event({"user_email": "c-1", "order_id": value}, id="order_id").id == text


@pytest.mark.parametrize(
    "value", [7.0, Decimal("7.00"), Decimal("1E+3"), 2.0**62, Decimal(2**62), 7, UUID(UUID_TEXT)], ids=stable
)
def test_an_id_reads_a_number_as_an_identity_does(value: Any) -> None:
    made = event({"user_email": value, "order_id": value}, id="order_id")

    assert made.id == str(made.identity["email"])


NO_IDS = [
    7.5,
    Decimal("7.5"),
    float("nan"),
    float("inf"),
    1e300,
    Decimal("NaN"),
    Decimal("sNaN"),
    Decimal("1E+50"),
    True,
]


@pytest.mark.parametrize("value", NO_IDS, ids=stable)
def test_a_number_that_is_no_identity_is_no_id_either(value: Any) -> None:
    assert invalid({"user_email": "c-1", "order_id": value}, id="order_id").field == "id"
    assert invalid({"user_email": value}).field == "identity.email"


@pytest.mark.parametrize("value", [None, "", object()], ids=["NULL", "empty", "object"])
def test_an_id_that_tells_nothing_apart_is_refused(value: Any) -> None:
    assert invalid({"user_email": "c-1", "order_id": value}, id="order_id").field == "id"


def test_an_id_out_of_the_range_of_times_is_refused_or_kept() -> None:
    edge = datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=5)))
    row = {"user_email": "c-1", "order_id": edge}
    try:
        event_id = event(row, id="order_id").id
    except InvalidEvent as refusal:
        event_id = f"9999 is no {refusal.field}"
    assert event_id
    assert "9999" in event_id


@pytest.mark.parametrize("value", [None, "", 7, b"purchase"], ids=stable)
def test_a_name_column_holds_texts(value: Any) -> None:
    assert invalid({"user_email": "c-1", "kind": value}, name=None, name_column="kind").field == "name"


# -- NULLs -------------------------------------------------------------------------------------------------------------

WITH_NULL = {"user_email": "c-1", "total": None, "currency": "EUR", "coupon": None}


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({}, {"currency": "EUR"}),
        ({"nulls": "drop"}, {"currency": "EUR"}),
        ({"nulls": "send"}, {"total": None, "currency": "EUR", "coupon": None}),
        ({"nulls": "drop", "properties": ["total"]}, {}),
        ({"nulls": "fail", "properties": ["currency"]}, {"currency": "EUR"}),
    ],
    ids=str,
)
def test_a_null_property_does_what_the_mapping_says(options: dict[str, Any], sent: dict[str, Any]) -> None:
    assert event(WITH_NULL, **options).properties == sent


def test_nulls_fail_names_the_property() -> None:
    refusal = invalid(WITH_NULL, nulls="fail", properties={"total_price": "total", "currency": "currency"})
    assert refusal.field == "properties.total_price"
    assert "nulls=fail" in refusal.reason


@pytest.mark.parametrize("value", [0, False, "", [], {}, Decimal(0)], ids=stable)
@pytest.mark.parametrize("nulls", ["drop", "send", "fail"])
def test_what_is_empty_is_no_null(value: Any, nulls: str) -> None:
    assert event({"user_email": "c-1", "x": value}, nulls=nulls).properties == {"x": value}


def test_a_null_within_a_property_is_left_alone() -> None:
    assert event({"user_email": "c-1", "x": {"a": None}}).properties == {"x": {"a": None}}


def test_a_null_time_is_no_time_of_delivery() -> None:
    refusal = invalid({"user_email": "c-1", "at": None}, timestamp="at")
    assert (refusal.field, "COALESCE" in refusal.reason) == ("timestamp", True)


# -- times -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (NAIVE, NAIVE.replace(tzinfo=BUCHAREST)),
        (AWARE, AWARE),
        ("2026-03-01T09:30:00.123456", NAIVE.replace(tzinfo=BUCHAREST)),
        ("2026-03-01 09:30:00.123456", NAIVE.replace(tzinfo=BUCHAREST)),
        ("2026-03-01T09:30:00.123456Z", AWARE),
        ("2026-07-01T00:00:00", datetime(2026, 6, 30, 21, tzinfo=UTC)),
        ("2026-01-01T00:00:00", datetime(2025, 12, 31, 22, tzinfo=UTC)),
    ],
    ids=str,
)
def test_times_without_a_zone_are_in_the_mappings(value: Any, moment: datetime) -> None:
    made = event({"user_email": "c-1", "at": value}, timestamp="at", timezone="Europe/Bucharest").timestamp
    assert made is not None
    assert made.astimezone(UTC) == moment.astimezone(UTC)


def test_times_among_the_properties_are_in_the_mappings_zone_too() -> None:
    row = {"user_email": "c-1", "at": NAIVE, "text": "2026-03-01T09:30:00"}
    assert event(row, timezone="Europe/Bucharest").properties == {
        "at": NAIVE.replace(tzinfo=BUCHAREST),
        "text": "2026-03-01T09:30:00",
    }


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"user_email": "c-1", "at": NAIVE}, {"timestamp": "at"}),
        ({"user_email": "c-1", "at": "2026-03-01T09:30:00"}, {"timestamp": "at"}),
        ({"user_email": "c-1", "at": "2026-03-01"}, {"timestamp": "at"}),
        ({"user_email": "c-1", "at": NAIVE}, {}),
        ({"user_email": "c-1", "at": NAIVE}, {"properties": {"bought_at": "at"}}),
    ],
    ids=str,
)
def test_a_time_without_a_zone_is_an_error_with_the_line_to_add(row: dict[str, Any], options: dict[str, Any]) -> None:
    with pytest.raises(MappingError) as error:
        event(row, **options)
    assert "'at'" in str(error.value)
    assert '"timezone": "Europe/Bucharest"' in str(error.value)
    assert "2026" not in str(error.value)


def test_all_the_given_rows_are_checked() -> None:
    mapper = EventMapping.of({**LEAST, "timestamp": "at"}).bind(["user_email", "at"])
    mapper.check_times([("c-1", AWARE), ("c-1", None), ("c-1", "2026-03-01T09:30:00Z")])
    mapper.check_times([])
    with pytest.raises(MappingError, match="'at'"):
        mapper.check_times([("c-1", AWARE), ("c-1", None), ("c-1", NAIVE)])


def test_columns_that_are_not_sent_are_not_checked() -> None:
    assert event({"user_email": "c-1", "at": NAIVE, "total": 1}, properties=["total"]).properties == {"total": 1}


@pytest.mark.parametrize("value", ["soon", 1772357400, date(2026, 3, 1), b"2026"], ids=stable)
def test_what_is_no_time_is_refused_by_field(value: Any) -> None:
    refusal = invalid({"user_email": "c-1", "at": value}, timestamp="at", timezone="UTC")
    assert refusal.field == "timestamp"


@given(
    moment=st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)),
    zone=st.sampled_from(["UTC", "Europe/Bucharest", "America/St_Johns", "Asia/Kathmandu", "Pacific/Apia"]),
)
@examples(50)
def test_no_time_is_shifted(moment: datetime, zone: str) -> None:
    made = event({"user_email": "c-1", "at": moment}, timestamp="at", timezone=zone).timestamp
    assert made is not None
    assert made.replace(tzinfo=None) == moment
    assert made.utcoffset() == moment.replace(tzinfo=ZoneInfo(zone)).utcoffset()


# -- property values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["O'Brien", Decimal("1.10"), UUID(UUID_TEXT), [1, None], {"a": [1]}, b"x", date(2026, 3, 1)], ids=stable
)
def test_property_values_are_left_to_the_value_policy(value: Any) -> None:
    made = event({"user_email": "c-1", "x": value}).properties["x"]
    assert (made, type(made)) == (value, type(value))


def test_no_customer_in_an_error() -> None:
    refusal = invalid({"user_email": ["ada@example.com"], "note": "secret"})
    assert "ada" not in str(refusal)
    assert "secret" not in str(refusal)
