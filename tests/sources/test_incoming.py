"""Whatever values come in, they are taken as they are meant, or rejected one by one: no single one ends a delivery."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest

from airflow_provider_events.delivery.encoding import prepare
from airflow_provider_events.delivery.options import DeliveryOptions
from airflow_provider_events.events import NOBODY, Event
from airflow_provider_events.exceptions import ConfigurationError, InvalidEvent
from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.hooks.ensuring import ensure_entries
from airflow_provider_events.operators.entries import UpsertEntryOperator
from airflow_provider_events.operators.redacted import listed
from airflow_provider_events.sensors.entry import EntryExistsSensor
from airflow_provider_events.sources.columnar import BulkEncoder
from airflow_provider_events.sources.jsonl import LineRecords
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.sources.rows import EventRecords, MappedRows
from airflow_provider_events.values import is_missing
from airflow_provider_events.vendors.base import Vendor
from tests.conftest import IDENTITY_KEYS
from tests.delivery.harness import VENDORS
from tests.vendors import wires

MOMENT = datetime(2026, 10, 25, 0, 30, 15, 123456, tzinfo=UTC)


class Nanoseconds(datetime):
    """A time that knows more, as pandas' do."""

    nanosecond = 789


class Stubborn:
    """A value that none of its methods can tell of."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __iter__ = __len__ = __str__


class StubbornText(str):
    def encode(self, *_: Any) -> bytes:
        raise RuntimeError("no")


class StubbornDict(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no")


SUBCLASSES = {
    "pendulum": pendulum.instance(MOMENT),
    "pendulum elsewhere": pendulum.instance(MOMENT).in_timezone("Europe/Bucharest"),
    "nanoseconds": Nanoseconds.combine(MOMENT.date(), MOMENT.timetz()),
    "elsewhere": Nanoseconds.fromtimestamp(MOMENT.timestamp(), ZoneInfo("America/New_York")),
    "in the hour that comes twice": Nanoseconds.fromtimestamp(MOMENT.timestamp(), ZoneInfo("Europe/Paris")),
}
OF_EACH_KIND = pytest.mark.parametrize("moment", SUBCLASSES.values(), ids=SUBCLASSES)
OF_EACH_VENDOR = pytest.mark.parametrize("vendor", VENDORS)


def sample(vendor: str) -> Vendor:
    return wires.vendor(vendor, **({"embeddable_id": "flow_1"} if vendor == "embeddables" else {}))


def plainly(moment: datetime) -> datetime:
    """The same time in the same zone, as nothing but a datetime."""
    return datetime.strptime(f"{moment:%Y-%m-%d %H:%M:%S.%f}", "%Y-%m-%d %H:%M:%S.%f").replace(
        tzinfo=moment.tzinfo, fold=moment.fold
    )


def event(vendor: str, **fields: Any) -> dict[str, Any]:
    identity = {IDENTITY_KEYS[vendor]: "customer1@example.com"}
    return {"name": "paid", "identity": identity, "timestamp": MOMENT, "properties": {"n": 1}, **fields}


def fragments(vendor: str, events: Any, mapping: Any = None, codec: Any = None) -> list[bytes | None]:
    """Each event as it travels; None where it was rejected."""
    source = EventRecords(events, mapping)
    chunks = prepare(source.records(), codec or sample(vendor), MOMENT, source.keys)
    return [fragment or None for chunk in chunks for fragment in chunk.fragments]


# -- times and other subclasses ----------------------------------------------------------------------------------------


@OF_EACH_VENDOR
@OF_EACH_KIND
def test_a_kind_of_datetime_travels_as_the_time_that_it_is(vendor: str, moment: datetime) -> None:
    same = plainly(moment)
    assert same.timestamp() == MOMENT.timestamp()
    plain = fragments(vendor, [event(vendor, timestamp=same, properties={"at": same, "deep": {"at": [same]}})])
    assert plain != [None]
    assert (
        fragments(vendor, [event(vendor, timestamp=moment, properties={"at": moment, "deep": {"at": [moment]}})])
        == plain
    )


@OF_EACH_VENDOR
@OF_EACH_KIND
def test_so_it_does_in_rows_one_by_one_and_together(vendor: str, moment: datetime) -> None:
    mapping = {"name": "paid", "identity": {IDENTITY_KEYS[vendor]: "who"}, "timestamp": "at", "properties": ["when"]}
    same = plainly(moment)
    row = {"who": "customer1@example.com", "at": same, "when": same}
    plain = fragments(vendor, [row], mapping)
    assert plain != [None]
    assert fragments(vendor, [row, {**row, "at": moment, "when": moment}, row], mapping) == plain * 3
    mapper = EventMapping.of(mapping).bind(list(row))
    rows = MappedRows(
        1, [tuple(row.values()), ("customer1@example.com", moment, moment)] * 3, mapper, BulkEncoder(mapper)
    )
    (chunk,) = prepare(iter([rows]), sample(vendor), MOMENT, lambda _: None)
    assert list(chunk.fragments) == plain * 6


@OF_EACH_VENDOR
@OF_EACH_KIND
def test_so_it_does_as_the_time_of_all_that_have_none(vendor: str, moment: datetime, connections: Any) -> None:
    hook = EventsHook.for_connection(f"{vendor}_default")
    events = [event(vendor, timestamp=None)] * 3
    assert hook.deliver(events, sent_at=moment).delivered == 3
    assert hook.send(event(vendor, timestamp=moment)).vendor == vendor


@pytest.mark.parametrize("vendor", ["vibetrace", "webengage", "bloomreach"])
@OF_EACH_KIND
def test_so_it_does_in_upserts(vendor: str, moment: datetime, connections: Any) -> None:
    upserts = sample(vendor).upserts()
    same = plainly(moment)
    entry = event(vendor, name="upsert", timestamp=same, properties={"seen": same})
    plain = fragments(vendor, [entry], codec=upserts)
    assert plain != [None]
    assert fragments(vendor, [{**entry, "timestamp": moment, "properties": {"seen": moment}}], codec=upserts) == plain
    who = {IDENTITY_KEYS[vendor]: "customer1@example.com"}
    EventsHook.for_connection(f"{vendor}_default").upsert(who, {"seen": moment}, sent_at=moment)


@OF_EACH_KIND
def test_so_it_does_in_the_file_of_rejected_events(moment: datetime, connections: Any, tmp_path: Path) -> None:
    path = tmp_path / "rejected.jsonl"
    bad = event("bloomreach", timestamp=moment, properties={"at": moment, "bad": float("nan")})
    hook = EventsHook.for_connection("bloomreach_default")
    hook.deliver([bad, event("bloomreach")], rejected_path=str(path), max_rejected=1)
    (line,) = map(json.loads, path.read_text().splitlines())
    assert line["data"]["properties"]["at"] == "2026-10-25T00:30:15.123456Z"


class Colour(enum.StrEnum):
    RED = "red"


class Number(int):
    pass


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (Colour.RED, "red"),
        (Number(7), 7),
        (type("F", (float,), {})(1.5), 1.5),
        (type("D", (Decimal,), {})("1.50"), 1.5),
        (OrderedDict(a=1), {"a": 1}),
        (UserDict(a=1), {"a": 1}),
        (type("L", (list,), {})([1]), [1]),
        (pendulum.date(2026, 3, 1), "2026-03-01"),
        (pendulum.time(9, 30), "09:30:00"),
        (pendulum.duration(minutes=1), 60.0),
        (bytearray(b"a"), "YQ=="),
        (date(2026, 3, 1), "2026-03-01"),
        (time(9, 30), "09:30:00"),
        (timedelta(minutes=1), 60.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_a_kind_of_a_plain_value_travels_as_that(given: Any, plain: Any) -> None:
    said = [event("bloomreach", properties={"value": value}) for value in (given, plain)]
    one, other = fragments("bloomreach", said)
    assert one is not None
    assert one == other


@OF_EACH_VENDOR
@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("where", ["property", "deep", "identity", "mapping", "text", "id"])
def test_a_value_that_nobody_can_write_costs_its_own_event(where: str, position: int, vendor: str) -> None:
    key = IDENTITY_KEYS[vendor]
    bad: dict[str, dict[str, Any]] = {
        "property": {"properties": {"value": Stubborn()}},
        "deep": {"properties": {"value": [{"deep": Stubborn()}]}},
        "identity": {"identity": {key: StubbornText("x")}},
        "mapping": {"properties": StubbornDict(a=1)},
        "text": {"properties": {"value": StubbornText("x")}},
        "id": {"id": Stubborn()},
    }
    events = [event(vendor) for _ in range(3)]
    events[position] = event(vendor, **bad[where])
    for several in (events, iter(events)):
        made = fragments(vendor, several)
        assert [fragment is None for fragment in made] == [at == position for at in range(3)]
    for codec in (sample(vendor), *((sample(vendor).upserts(),) if vendor != "embeddables" else ())):
        assert fragments(vendor, events, codec=codec)[position] is None


def test_a_single_event_that_nobody_can_write_is_said_in_words(connections: Any) -> None:
    with pytest.raises(InvalidEvent, match="holds a value that cannot be"):
        EventsHook.for_connection("bloomreach_default").send(event("bloomreach", properties={"v": StubbornText("x")}))
    assert connections.events("bloomreach") == []


# -- what a caller changes after handing it over -----------------------------------------------------------------------


def reused(depth: int) -> Iterator[Any]:
    """One dictionary, filled anew for each event; or one of its parts."""
    properties: dict[str, Any] = {"list": [], "object": {}}
    said: dict[str, Any] = {"name": "paid", "identity": {}, "timestamp": MOMENT, "properties": properties}
    for n in range(1200):
        if depth == 0:
            said["id"] = n
        properties["n"] = n
        properties["list"][:] = [n]
        properties["object"]["n"] = n
        said["identity"]["registered"] = f"customer{n % 100}@example.com"
        yield said if depth < 2 else Event(**said)


@pytest.mark.parametrize("depth", [0, 1, 2], ids=["dictionary", "properties", "event"])
def test_a_generator_may_use_its_dictionary_again(depth: int) -> None:
    made = fragments("bloomreach", reused(depth))
    numbers = [json.loads(fragment)["properties"] for fragment in made if fragment]
    assert [(said["n"], said["list"], said["object"]) for said in numbers] == [(n, [n], {"n": n}) for n in range(1200)]


def test_a_generator_may_use_its_row_again() -> None:
    def rows() -> Iterator[dict[str, Any]]:
        row: dict[str, Any] = {"tags": []}
        for n in range(1200):
            row.update(who=f"customer{n}", n=n)
            row["tags"][:] = [n]
            yield row

    mapping = {"name": "paid", "identity": {"registered": "who"}}
    made = [json.loads(fragment) for fragment in fragments("bloomreach", rows(), mapping) if fragment]
    assert [(said["customer_ids"]["registered"], said["properties"]) for said in made] == [
        (f"customer{n}", {"tags": [n], "n": n}) for n in range(1200)
    ]


def test_what_was_rejected_is_kept_as_it_was(connections: Any, tmp_path: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        bad = event("bloomreach")
        for n in range(700):
            bad["properties"] = {"n": n, "bad": float("nan")}
            yield bad

    path = tmp_path / "rejected.jsonl"
    with pytest.raises(Exception, match="700 of 700"):
        EventsHook.for_connection("bloomreach_default").deliver(rows(), rejected_path=str(path))
    assert [json.loads(line)["data"]["properties"]["n"] for line in path.read_text().splitlines()] == list(range(700))


# -- lines -------------------------------------------------------------------------------------------------------------


def lines(tmp_path: Path, data: bytes) -> list[Any]:
    path = tmp_path / "events.jsonl"
    path.write_bytes(data)
    return [record for chunk in LineRecords(str(path), "bloomreach").records() for record in chunk]


GOOD = b'{"name": "paid", "identity": {"registered": "c"}, "properties": {"n": %s}}\n'


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 2**64 - 1, 2**64, 10**30, -(10**25)])
def test_a_large_whole_number_in_a_line_is_what_it_is_in_a_list(number: int, tmp_path: Path) -> None:
    (record,) = lines(tmp_path, GOOD % str(number).encode())
    assert record.event.properties == {"n": number}
    listed = fragments("bloomreach", [event("bloomreach", properties={"n": number})])
    read = fragments("bloomreach", [event("bloomreach", properties=record.event.properties)])
    assert read == listed
    assert (listed == [None]) == (not -(2**63) <= number < 2**64)


def test_a_large_whole_number_is_rejected_by_name_and_kept(connections: Any, tmp_path: Path) -> None:
    path, rejected = tmp_path / "events.jsonl", tmp_path / "rejected.jsonl"
    path.write_bytes(GOOD % str(2**64).encode() + GOOD % b"1")
    hook = EventsHook.for_connection("bloomreach_default")
    options = DeliveryOptions(max_rejected=1)
    report = hook.deliver_source(LineRecords(str(path), "bloomreach"), options, rejected_path=str(rejected))
    assert (report.delivered, report.rejected) == (1, 1)
    (line,) = map(json.loads, rejected.read_text().splitlines())
    assert line["field"] == "properties.n"
    assert "more than 64 bits" in line["reason"]
    assert line["data"]["properties"]["n"] == 2**64


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999", b"0.1234567890123456789012345", b"9" * 5000])
def test_other_long_numbers_make_no_other_value(number: bytes, tmp_path: Path) -> None:
    (record,) = lines(tmp_path, GOOD % number)
    if number.startswith(b"0."):
        assert record.event.properties["n"] == float(number)
    else:
        assert record.event is None or fragments("bloomreach", [record.event]) == [None]


@pytest.mark.parametrize(
    "line",
    [{"name": "paid", "identity": {}, "note": "mine"}, {"nam": "paid"}, {"name": 5, "identity": {"registered": "c"}}],
)
def test_a_line_that_fails_keeps_its_object(line: dict[str, Any], tmp_path: Path) -> None:
    (record,) = lines(tmp_path, json.dumps(line).encode())
    assert (record.event, record.data) == (None, line)
    wrapped = {"version": 1, "vendor": "bloomreach", "row": 1, "event": line, "data": None}
    (record,) = lines(tmp_path, json.dumps(wrapped).encode())
    assert (record.event, record.data) == (None, line)


def test_a_byte_order_mark_costs_no_event(tmp_path: Path) -> None:
    first, second = lines(tmp_path, b"\xef\xbb\xbf" + GOOD % b"1" + GOOD % b"2")
    assert (first.event.properties, second.event.properties) == ({"n": 1}, {"n": 2})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((GOOD % b"1").decode().encode("utf-16"), "UTF-16"),
        ((GOOD % b"1").decode().encode("utf-16-le"), "UTF-16"),
        ((GOOD % b"1").decode().encode("utf-16-be"), "UTF-16"),
        ((GOOD % b"1").decode().encode("utf-32"), "UTF-16"),
        (b'[{"name": "paid"}]', "a JSON array"),
        (b' [\n  {"name": "paid"},\n  {"name": "paid"}\n]\n', "a JSON array"),
        (b"\x1f\x8b\x08\x00", "compressed"),
    ],
)
def test_another_kind_of_file_is_said_to_be_one(data: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=words):
        lines(tmp_path, data)


# -- what is no list of events -----------------------------------------------------------------------------------------


def test_a_single_event_is_a_list_of_one() -> None:
    assert EventRecords(event("bloomreach")).total == 1
    assert len(fragments("bloomreach", event("bloomreach"))) == 1
    assert len(fragments("bloomreach", Event("paid", {"registered": "c"}))) == 1


@pytest.mark.parametrize("events", [None, 5, "events.json", "s3://bucket/x.jsonl.gz", b"[]"])
def test_what_is_no_list_of_events_is_named(events: Any, connections: Any) -> None:
    with pytest.raises(ConfigurationError, match="events: has to be a list or another iterable of events"):
        EventsHook.for_connection("bloomreach_default").deliver(events)


def test_a_list_of_lists_gets_a_hint() -> None:
    (chunk,) = EventRecords([[event("bloomreach")]]).records()  # type: ignore[list-item]  # that it is rejected
    assert "flatten a list of lists, or map over it with .expand()" in str(chunk[0].fault)


@pytest.mark.parametrize("value", [None, float("nan"), type("NaTType", (), {})(), type("NAType", (), {})()])
def test_a_missing_value_of_a_row_is_a_null(value: Any) -> None:
    assert is_missing(value)
    mapping = {"name": "paid", "identity": {"registered": "who"}, "properties": ["n", "m"]}
    (fragment,) = fragments("bloomreach", [{"who": "c", "n": value, "m": 1}], mapping)
    assert fragment is not None
    assert json.loads(fragment)["properties"] == {"m": 1}


class Boxed:
    """A value as NumPy boxes it."""

    ndim = 0

    def __init__(self, value: Any, code: str) -> None:
        self._value = value
        self.dtype = type("dtype", (), {"kind": code})()

    def astype(self, unit: str) -> Boxed:
        assert unit in ("datetime64[us]", "timedelta64[us]")
        return self

    def tolist(self) -> Any:
        return self._value

    def __ne__(self, other: object) -> bool:
        return self._value is None or self._value != self._value


Boxed.__module__ = "numpy"


def test_a_row_of_boxed_values_travels_as_one_of_python() -> None:
    row = {
        "who": Boxed(7, "i"),
        "at": Boxed(MOMENT.replace(tzinfo=None), "M"),
        "key": Boxed(3, "u"),
        "paid": Boxed(True, "b"),
        "took": Boxed(timedelta(seconds=2), "m"),
        "none": Boxed(None, "M"),
        "nan": Boxed(float("nan"), "f"),
    }
    mapping = {"name": "paid", "identity": {"registered": "who"}, "timestamp": "at", "id": "key", "timezone": "UTC"}
    (fragment,) = fragments("bloomreach", [row], mapping)
    assert fragment is not None
    said = json.loads(fragment)
    assert (said["customer_ids"], said["timestamp"]) == ({"registered": "7"}, MOMENT.timestamp())
    assert said["properties"] == {"paid": True, "took": 2.0}
    made = Event("paid", {"registered": Boxed(7, "i")}, id=Boxed(3, "u"))  # type: ignore[dict-item, arg-type]  # as NumPy gives them
    assert (made.identity, made.id) == ({"registered": 7}, "3")


def test_a_boxed_value_that_is_none_of_pythons_is_rejected_by_name() -> None:
    long = Boxed(None, "f")
    long._value = long
    with pytest.raises(InvalidEvent, match=r"properties\.n: a value of kind Boxed"):
        sample("bloomreach").encode(Event("paid", {"registered": "c"}, properties={"n": long}))


def test_a_missing_time_is_said_to_be_missing() -> None:
    missing: Any = type("NaTType", (datetime,), {})(2026, 1, 1)
    with pytest.raises(InvalidEvent, match="timestamp: a missing value"):
        Event("paid", {"registered": "c"}, missing)
    with pytest.raises(InvalidEvent, match=r"properties\.at: a missing value"):
        sample("bloomreach").encode(Event("paid", {"registered": "c"}, properties={"at": missing}))


def test_a_list_of_lists_of_rows_gets_a_hint() -> None:
    rows: Any = [{"who": "c"}, [{"who": "d"}]]
    (chunk,) = EventRecords(rows, {"name": "paid", "identity": {"registered": "who"}}).records()
    assert "flatten a list of lists" in str(chunk[1].fault)


@pytest.mark.parametrize("text", ["events.json", "s3://bucket/x.jsonl.gz", "/data/events.csv"])
def test_another_file_than_json_lines_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"no path of a \.jsonl file, the only kind that is read"):
        listed(text, "events")


@pytest.mark.parametrize("given", [{"a": 1}, '{"a": 1}', "{'a': 1}", '\ufeff[{"a": 1}]'])
def test_a_single_one_in_an_operator_is_a_list_of_one(given: Any) -> None:
    assert listed(given, "events") == [{"a": 1}]


def test_files_that_were_put_together_keep_their_events(tmp_path: Path) -> None:
    marked = b"\xef\xbb\xbf" + GOOD % b"1"
    assert [record.fault for record in lines(tmp_path, marked * 3)] == [None] * 3
    assert lines(tmp_path, b"\xef\xbb\xbf\n") == []


# -- identities --------------------------------------------------------------------------------------------------------


@OF_EACH_VENDOR
@pytest.mark.parametrize("text", [*sorted(NOBODY), "", "  "])
def test_the_text_of_a_missing_value_is_no_customer(text: str, vendor: str) -> None:
    key = IDENTITY_KEYS[vendor]
    with pytest.raises(InvalidEvent, match=rf"identity\.{key}: "):
        Event("paid", {key: text})
    mapping = EventMapping.of({"name": "paid", "identity": {key: "who"}})
    mapper = mapping.bind(["who", "n"])
    rows = MappedRows(1, [("c", 1), (text, 2), ("d", 3)], mapper, BulkEncoder(mapper))
    (chunk,) = prepare(iter([rows]), sample(vendor), MOMENT, lambda _: None)
    assert list(chunk.rejections) == [1]


@OF_EACH_VENDOR
@pytest.mark.parametrize("text", sorted(NOBODY))
def test_the_text_of_a_missing_value_is_no_idempotency_key(text: str, vendor: str) -> None:
    key = IDENTITY_KEYS[vendor]
    with pytest.raises(InvalidEvent, match="id: the text of a missing value"):
        Event("paid", {key: "c"}, id=text)
    mapper = EventMapping.of({"name": "paid", "identity": {key: "who"}, "id": "key"}).bind(["who", "key"])
    rows = MappedRows(1, [("c", "1"), ("c", text), ("d", "3")], mapper, BulkEncoder(mapper))
    (chunk,) = prepare(iter([rows]), sample(vendor), MOMENT, lambda _: None)
    assert list(chunk.rejections) == [1]


NO_IDENTITIES: dict[str, Any] = {
    "nothing": {},
    "None": {"registered": None},
    "True": {"registered": True},
    "text of None": {"registered": "None"},
    "nan": {"registered": float("nan")},
    "text of nan": {"registered": "nan"},
    "blank": {"registered": " "},
    "enormous": {"registered": 2**300},
    "a list": [("registered", "c")],
}


@pytest.mark.parametrize("identity", NO_IDENTITIES.values(), ids=NO_IDENTITIES)
def test_what_is_no_identity_is_one_nowhere(identity: Any, connections: Any) -> None:
    hook = EventsHook.for_connection("bloomreach_default")
    sensor = EntryExistsSensor(task_id="t", conn_id=hook.conn_id, identities=[identity])
    asks: list[Callable[[], Any]] = [
        lambda: hook.lookup([{"registered": "c"}, identity]),
        lambda: hook.entry_exists(identity),
        lambda: hook.upsert(identity, {"a": 1}),
        lambda: hook.send({"name": "paid", "identity": identity}),
        sensor._wanted,
    ]
    for ask in asks:
        with pytest.raises(InvalidEvent, match="identit"):
            ask()
    assert not connections.requests("bloomreach")


@pytest.mark.parametrize("number", [2**63, 2**64, 10**40, -(2**70)])
def test_a_customer_with_a_large_number_is_asked_for_as_events_name_him(number: int, connections: Any) -> None:
    hook = EventsHook.for_connection("bloomreach_default")
    assert hook.lookup([{"registered": number}, {"registered": str(number)}, {"registered": 1}]) == [False] * 3
    asked = [str(seen.body) for seen in connections.requests("bloomreach")]
    assert sum(str(number) in body for body in asked) == 2


def test_embeddables_refuses_a_large_number_by_name() -> None:
    vendor = sample("embeddables")
    who: Any = {"customer": 2**64}
    for ask in (lambda: vendor.lookup(who), lambda: vendor.encode(Event("paid", who, MOMENT))):
        with pytest.raises(InvalidEvent, match=r"identity\.customer: an integer of more than 64 bits"):
            ask()


def test_an_empty_name_of_a_property_is_said_to_be_empty() -> None:
    with pytest.raises(InvalidEvent, match="a property has an empty name"):
        Event("paid", {"registered": "c"}, properties={"": 1})
    with pytest.raises(InvalidEvent, match="an id has an empty name"):
        Event("paid", {"": "c"})


# -- entries -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", ["vibetrace", "webengage", "bloomreach"])
def test_an_upsert_without_a_mapping_leaves_missing_values_out(vendor: str, connections: Any) -> None:
    hook = EventsHook.for_connection(f"{vendor}_default")
    who = {IDENTITY_KEYS[vendor]: "customer1@example.com"}
    hook.upsert(who, {"city": "Cluj", "street": None, "lat": float("nan")})
    entry = {"identity": who, "attributes": {"city": "Cluj", "street": None}}
    operator = UpsertEntryOperator(task_id="t", conn_id=hook.conn_id, entries=[entry])
    assert hook.deliver_source(operator.source(hook), codec=operator.codec(hook)).delivered == 1
    bodies = [str(seen.body) for seen in connections.requests(vendor)]
    assert len(bodies) == 2
    for body in bodies:
        assert "Cluj" in body
        assert "street" not in body
        assert "lat" not in body


def test_an_entry_that_is_ensured_keeps_what_has_no_value_here(connections: Any) -> None:
    source = EventRecords([event("bloomreach")])
    ensure_entries(
        EventsHook.for_connection("bloomreach_default"), source, {"city": "Cluj", "street": None}, DeliveryOptions()
    )
    (seen,) = connections.requests("bloomreach")
    assert "Cluj" in str(seen.body)
    assert "street" not in str(seen.body)


@pytest.mark.parametrize(
    ("given", "sent"),
    [("false", False), ("true", True), (" False ", False), (0, False), (1, True), (True, True), ("0", False)],
)
def test_a_consent_is_the_boolean_that_it_means(given: Any, sent: bool) -> None:
    upserts = sample("webengage").upserts()
    fragment = upserts.encode(Event("upsert", {"userId": "c"}, properties={"emailOptIn": given, "smsOptIn": given}))
    said = json.loads(fragment.partition(b"\n")[2])
    assert (said["emailOptIn"], said["smsOptIn"]) == (sent, sent)


@pytest.mark.parametrize("given", ["no", "yes", 2, "", 1.5, ["false"]])
def test_another_consent_is_rejected_by_name(given: Any) -> None:
    with pytest.raises(InvalidEvent, match=r"properties\.emailOptIn: a consent has to be true or false"):
        sample("webengage").upserts().encode(Event("upsert", {"userId": "c"}, properties={"emailOptIn": given}))
