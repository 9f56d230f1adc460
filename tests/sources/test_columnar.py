"""Many rows at once: the same bytes and the same rejections as row by row, and nearly always without an event."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_events.contract import BulkRecords, Codec
from airflow_provider_events.delivery.encoding import prepare
from airflow_provider_events.events import Record, Rejection
from airflow_provider_events.exceptions import MappingError
from airflow_provider_events.sources.columnar import BulkEncoder
from airflow_provider_events.sources.jsonl import LineRecords
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.sources.rows import EventRecords, MappedRows, Mappers
from airflow_provider_events.vendors.base import registry
from tests.vendors.wires import T, examples, vendor

VENDORS = sorted(registry())
UPSERTS = ["bloomreach upserts", "vibetrace upserts", "webengage upserts"]
every_vendor = pytest.mark.parametrize("conn_type", VENDORS)
every_codec = pytest.mark.parametrize("conn_type", [*VENDORS, *UPSERTS])
SENT_AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
NAIVE = datetime(2026, 3, 1, 9, 30, 0, 123456)
ONE_UUID = UUID("6f1c1c3e-0d6b-4d52-9a7e-0a3a4b1f6f10")

# For each vendor the keys that a mapping may name; the first ones are those of its documents.
IDENTITIES = {
    "bloomreach": [["registered"], ["registered", "cookie"]],
    "embeddables": [["email"], ["embeddable_id", "email"]],
    "vibetrace": [["email"], ["_id"], ["email", "_id"]],
    "webengage": [["userId"], ["anonymousId"], ["userId", "anonymousId"]],
}


IDENTITIES |= {upserts: IDENTITIES[upserts.split()[0]] for upserts in UPSERTS}


def codec_of(conn_type: str) -> Codec:
    """The vendor, or its upserts; that of Embeddables knows its embeddable."""
    if conn_type in UPSERTS:
        return vendor(conn_type.split()[0]).upserts()
    return vendor(conn_type, **({"embeddable_id": "flow_given"} if conn_type == "embeddables" else {}))


def mapped(options: dict[str, Any], columns: Sequence[str], chunks: Iterable[Sequence[Any]]) -> list[MappedRows]:
    """Chunks of one query: they share what is learned."""
    mapper = EventMapping.of(options).bind(columns)
    encoder, first_row, made = BulkEncoder(mapper), 1, []
    for rows in chunks:
        made.append(MappedRows(first_row, rows, mapper, encoder))
        first_row += len(rows)
    return made


def prepared(chunks: Iterable[Sequence[Record]], codec: Codec) -> list[tuple[int, bytes | Rejection]]:
    """Number of each row, and its bytes or why there are none."""
    return [
        (row.row, row.rejection or row.fragment)
        for chunk in prepare(iter(chunks), codec, SENT_AT, lambda records: None)
        for row in chunk
    ]


def differences(conn_type: str, options: dict[str, Any], columns: Sequence[str], chunks: Sequence[Any]) -> list[Any]:
    """Rows of which rows together make something else than rows one by one; each with both results."""
    together = prepared(mapped(options, columns, chunks), codec_of(conn_type))
    one_by_one = prepared([list(chunk) for chunk in mapped(options, columns, chunks)], codec_of(conn_type))
    rows = [row for chunk in chunks for row in chunk]
    assert len(together) == len(one_by_one) == len(rows)
    return [all_three for all_three in zip(rows, together, one_by_one, strict=True) if all_three[1] != all_three[2]]


# -- both ways agree ---------------------------------------------------------------------------------------------------


class Text(str):
    """A driver's own text."""

    __slots__ = ()

    def __str__(self) -> str:
        return "another text"


class Number(int):
    """A driver's own number."""

    def __str__(self) -> str:
        return "another number"


class Colour(str, Enum):  # noqa: UP042  a `StrEnum` prints otherwise
    """Prints as `Colour.RED`."""

    RED = "red"


class Size(StrEnum):
    """Prints as its value."""

    BIG = "big"


class Level(int, Enum):
    """Prints as `Level.LOW`."""

    LOW = 1


class Step(IntEnum):
    """Prints as its value."""

    FIRST = 1


class NoOffset(tzinfo):
    """A zone that does not know its offset."""

    def utcoffset(self, moment: datetime | None) -> None:
        """Unknown."""

    def dst(self, moment: datetime | None) -> None:
        """Unknown."""

    def tzname(self, moment: datetime | None) -> None:
        """Unknown."""


ZONES = [UTC, timezone(timedelta(hours=2)), timezone(timedelta(hours=-3, minutes=-7, seconds=-11)), NoOffset()]
ZONES += [ZoneInfo("Europe/Bucharest"), ZoneInfo("Australia/Lord_Howe")]
instants = st.datetimes(timezones=st.sampled_from(ZONES))
json_like: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | instants | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
# What a column of a database holds as a rule.
kinds: list[st.SearchStrategy[Any]] = [
    st.text(max_size=12),
    st.emails(),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(-(10**9), 10**9, places=2),
    st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.timezones()),
    st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)),
    instants.map(datetime.isoformat),
    st.dates(),
    st.uuids(),
    st.binary(max_size=8),
    json_like,
]
# And what it may hold all the same.
ODD_TEXTS: list[Any] = [
    *("", " ", "\x1c", "\u2003", "\x00", "\ud800", "null", "undefined", "---", "x" * 101, "y" * 1000, "ü" * 16_001),
    *("we_x", "confirmation", "generic", "checkout", "order_paid", "Order Paid", "'\"\\", "1", "é", "2026-03-01"),
    *("2026-03-01T09:30:00Z", " 2026-03-01T09:30:00+02:00 ", "2026-03-01 09:30", "2026-02-30T00:00Z", "20260301T09Z"),
    *("0001-01-01T00:00+14:00", "9999-12-31T23:59:59-12:00", "2026-W09-7", "2026-03-01T09:30:00.1234567+00:00:30"),
]
ODD_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 2**256, -(2**300), 10**4400),
    *(0.0, -0.0, 7.0, 1.5, 1e300, 5e-324, math.nan, math.inf, -math.inf),
    *map(Decimal, ("0", "-0", "7", "7.00", "1E+3", "1E+30", "1E-400", "1E+9999", "NaN", "sNaN", "-Infinity")),
    *(
        T,
        NAIVE,
        datetime.min,
        datetime.max,
        date(1, 1, 1),
        date(2026, 3, 1),
        time(9, 30),
        timedelta(days=1.5),
        ONE_UUID,
    ),
    *(moment.replace(tzinfo=zone) for moment in (datetime.min, datetime.max, NAIVE) for zone in ZONES),
    *(
        b"",
        b"ada",
        bytearray(b"ada"),
        memoryview(b"ada"),
        [],
        {},
        [[[{"a": [None]}]]],
        {"a": math.nan},
        {1: 2},
        (1, "2"),
    ),
    *(
        {"event_name": "x"},
        {"orderId": 7},
        [{"id": 1}],
        Text(""),
        Text("ada"),
        Text("\ud800"),
        Number(7),
        Number(2**70),
    ),
    *(Colour.RED, Size.BIG, Level.LOW, Step.FIRST, {7}, object, 1j, range(3)),
]
odd = st.sampled_from(ODD_TEXTS) | st.sampled_from(ODD_VALUES) | json_like

NAMES = ["order_placed", "confirmation", "generic", "checkout", "Order placed", "we_order", "x" * 51]
PROPERTY_NAMES = [
    "total",
    "items",
    "orderId",
    "generic",
    "event_name",
    "we_x",
    "p" * 50,
    "email",
    "birthDate",
    "emailOptIn",
    "é",
    "'\"\\\n",
    "{row}",
    "\x7f",
]
COLUMNS = ["a", "b", "c", "d", "e", "f"]


@st.composite
def mappings(draw: st.DrawFn, conn_type: str) -> dict[str, Any]:
    """The options of a mapping of `COLUMNS`."""
    column = st.sampled_from(COLUMNS)
    identity = draw(st.sampled_from(IDENTITIES[conn_type]))
    renamed = st.dictionaries(st.sampled_from(PROPERTY_NAMES), column, max_size=4)
    return {
        **(draw(st.sampled_from([{"name": name} for name in NAMES]) | st.just({"name_column": "a"}))),
        "identity": dict(zip(identity, draw(st.permutations(COLUMNS[1:4])), strict=False)),
        "timestamp": draw(st.none() | st.just("e") | column),
        "id": draw(st.none() | column),
        "properties": draw(st.none() | st.lists(column, unique=True) | renamed),
        "timezone": draw(st.sampled_from([None, "Europe/Bucharest"])),
        "nulls": draw(st.sampled_from(["drop", "send", "fail"])),
    }


@st.composite
def tables(draw: st.DrawFn) -> list[list[tuple[Any, ...]]]:
    """A few chunks; most values of a column are of one kind, or of another one from some chunk on."""
    pools = [draw(st.lists(draw(st.sampled_from(kinds)), min_size=1, max_size=3)) for _ in COLUMNS]
    pools[0] = draw(st.just(NAMES[:2])) if draw(st.booleans()) else pools[0]
    pools[4] = [T, T.isoformat()] if draw(st.booleans()) else pools[4]
    others = [draw(st.lists(odd, max_size=3)) for _ in COLUMNS]
    rates = [draw(st.sampled_from([0.0, 0.02, 0.3])) for _ in range(3)]
    random = Random(draw(st.integers(0, 2**32)))

    def value(at: int, rate: float) -> Any:
        return random.choice(others[at] if others[at] and random.random() < rate else pools[at])

    sizes = draw(st.lists(st.integers(0, 40), min_size=3, max_size=3))
    return [
        [tuple(value(at, rate) for at in range(len(COLUMNS))) for _ in range(size)]
        for size, rate in zip(sizes, rates, strict=True)
    ]


@every_codec
@examples(60)
@given(data=st.data())
def test_rows_together_are_the_same_as_one_by_one(conn_type: str, data: st.DataObject) -> None:
    assert not differences(conn_type, data.draw(mappings(conn_type)), COLUMNS, data.draw(tables()))


@every_codec
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", PROPERTY_NAMES)
def test_so_are_rows_that_are_all_alike(conn_type: str, name: str, key: str) -> None:
    for identity in (*IDENTITIES[conn_type], ["embeddable_id"], ["other"]):
        options = {"name": name, "identity": dict(zip(identity, "ab", strict=False)), "properties": {key: "c"}}
        rows = [("ada@example.com", "ada", n, T) for n in range(5)]
        assert not differences(conn_type, {**options, "timestamp": "d"}, "abcd", [rows])


# What the columns hold that the kinds are learned from: all of one kind, or of several.
TEXTS = ("order_placed", "ada", "lovelace", "7", T.isoformat(), "EUR")
NUMBERS = ("confirmation", 1, 2, 7, T, 39.8)
OTHERS = ("order_placed", ONE_UUID, Decimal(2), ONE_UUID, NAIVE, Decimal("39.80"))


@every_codec
@pytest.mark.parametrize(
    ("simple", "ordinary"),
    [(True, [TEXTS]), (False, [TEXTS]), (True, [NUMBERS]), (False, [OTHERS]), (False, [TEXTS, NUMBERS, OTHERS])],
)
def test_an_odd_value_anywhere_changes_nothing_but_its_row(conn_type: str, simple: bool, ordinary: list[Any]) -> None:
    several = conn_type.split()[0] in ("bloomreach", "embeddables") and not simple
    options = {
        **({"name": ordinary[0][0]} if simple else {"name_column": "a"}),
        "identity": dict(zip(reversed(IDENTITIES[conn_type][several]), "bc", strict=False)),
        "timestamp": "e",
        "id": "d",
        "properties": {"c": "c", "total": "f", "again": "d"},
        "timezone": "Europe/Bucharest" if OTHERS in ordinary else None,
    }
    common = (ordinary * 30)[:30]
    chunks: list[list[tuple[Any, ...]]] = [common]
    for value in ODD_TEXTS + ODD_VALUES:
        odd_rows = [(*ordinary[0][:at], value, *ordinary[0][at + 1 :]) for at in range(len(COLUMNS))]
        chunks.append([*common, *odd_rows, *common])
    assert not differences(conn_type, options, COLUMNS, chunks)


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"timestamp": "a"}, [[7], [T]]),
        ({"timestamp": "a", "name_column": "a"}, [[7], ["order_placed"], [T.isoformat()]]),
        ({"id": "a", "timestamp": "a"}, [[7], [T], [T.isoformat()]]),
        ({"name_column": "b", "timestamp": "b"}, [["order_placed", 7], ["order_placed", T]]),
        ({"name_column": "a", "id": "a"}, [[7], ["order_placed"], [Colour.RED]]),
    ],
)
@every_codec
def test_a_column_may_be_several_things_at_once(conn_type: str, options: dict[str, Any], rows: list[Any]) -> None:
    columns = ["a", "b"][: len(rows[0])]
    named = {"name": "order_placed"} if "name_column" not in options else {}
    all_options = {**named, **options, "identity": {IDENTITIES[conn_type][0][0]: "a"}, "properties": {"again": "a"}}
    for first in rows:
        chunks = [[first] * 20, *([row] * 20 for row in rows), rows * 10]
        assert not differences(conn_type, all_options, columns, chunks)


# -- dictionaries and lines of a file, too -----------------------------------------------------------------------------


def of_dictionaries(options: dict[str, Any], rows: Sequence[Any], one_by_one: bool) -> list[Sequence[Record]]:
    """Records of rows in Python; or why the first one fits no mapping."""
    source = EventRecords(rows, options)
    if one_by_one:
        record = Mappers(EventMapping.of(options)).record
        return [[record(n, row) for n, row in enumerate(rows, start=1)]]
    return list(source.records())


def outcome(conn_type: str, options: dict[str, Any], rows: Sequence[Any], one_by_one: bool) -> list[Any]:
    """Each row's bytes or rejection; or the error of the first one."""
    try:
        return prepared(of_dictionaries(options, rows, one_by_one), codec_of(conn_type))
    except MappingError as error:
        return [str(error)]


@every_codec
@examples(40)
@given(data=st.data())
def test_dictionaries_together_are_the_same_as_one_by_one(conn_type: str, data: st.DataObject) -> None:
    options, table = data.draw(mappings(conn_type)), data.draw(tables())
    rows: list[Any] = [dict(zip(COLUMNS, row, strict=True)) for chunk in table for row in chunk]
    if data.draw(st.booleans()):
        rows += [{"b": "ada@example.com", "a": "order_placed"}, 7, {1: 2}, {}, None]
    assert outcome(conn_type, options, rows, False) == outcome(conn_type, options, rows, True)


def test_dictionaries_of_the_same_columns_need_no_events() -> None:
    good: dict[str, Any] = {"who": "ada", "at": T, "total": 1.5, "tags": ["a"], "gone": None}
    others = [{**good, "who": 7}, {**good, "total": math.nan}, {**good, "more": 1}]
    options = {"name": "order_placed", "identity": {"registered": "who"}, "timestamp": "at"}
    source = EventRecords([*[good] * 498, *others[:2], *[good] * 500, *others, *[good] * 5], options)
    chunks = list(source.records())
    assert [isinstance(chunk, BulkRecords) for chunk in chunks] == [True, True, False]
    assert [chunk[0].row for chunk in chunks] == [1, 501, 1001]
    codec = codec_of("bloomreach")
    assert all(None not in chunk.encoded(codec, SENT_AT) for chunk in chunks if isinstance(chunk, BulkRecords))


@pytest.mark.parametrize(
    ("odd", "together"),
    [
        ("", True),
        ("\ufeff", True),
        ("no JSON", False),
        ("[1]", False),
        ('{"who": "bob"}', False),
        ('{"version": 1, "vendor": "bloomreach", "event": null, "data": {"who": "bob"}}', False),
    ],
)
def test_lines_of_the_same_columns_need_no_events(odd: str, together: bool, tmp_path: Path) -> None:
    line = json.dumps({"who": "ada", "total": 1.5, "number": 2**70})
    path, last = tmp_path / "rows.jsonl", 6
    path.write_text("\n".join([line, line, odd + line if odd in ("", "\ufeff") else odd, line, line, line]))
    mapping = EventMapping.of({"name": "order_placed", "identity": {"registered": "who"}, "properties": ["total"]})
    [chunk] = LineRecords(str(path), "bloomreach", mapping).records()
    assert isinstance(chunk, BulkRecords) is together
    assert [record.row for record in chunk] == list(range(1, last + 1))
    bodies = [made for _, made in prepared([chunk], codec_of("bloomreach")) if isinstance(made, bytes)]
    assert bodies == [made for _, made in prepared([list(chunk)], codec_of("bloomreach")) if isinstance(made, bytes)]
    assert len(bodies) >= last - 1


def test_lines_with_gaps_keep_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"who": "ada"}\n\n{"who": "bob"}\n\n')
    mapping = EventMapping.of({"name": "order_placed", "identity": {"registered": "who"}})
    [chunk] = LineRecords(str(path), "bloomreach", mapping).records()
    assert [record.row for record in chunk] == [1, 3]


# -- and the hot one is taken ------------------------------------------------------------------------------------------


def taken(conn_type: str, rows: Sequence[Any], columns: str = "a b", **options: Any) -> list[bool]:
    """For each row whether it needed no event."""
    [chunk] = all_taken(conn_type, [rows], columns, **options)
    return chunk


def all_taken(
    conn_type: str, chunks: Sequence[Sequence[Any]], columns: str = "a b", **options: Any
) -> list[list[bool]]:
    """The same for the rows of several chunks."""
    codec, least = codec_of(conn_type), {"name": "order_placed", "identity": {IDENTITIES[conn_type][0][0]: "a"}}
    sent_at = SENT_AT if codec.timestamp_sent else None
    return [
        [fragment is not None for fragment in chunk.encoded(codec, sent_at)]
        for chunk in mapped({**least, **options}, columns.split(), chunks)
    ]


@every_vendor
@pytest.mark.parametrize(
    "values",
    [
        ["EUR", "", "é", "null"],
        [0, -(2**63), 2**64 - 1],
        [True, False],
        [0.0, -0.0, 39.8, 1e300],
        [1, 2.5],
        ["EUR", 7, 1.5, True],
        [None],
        [None, "EUR"],
        [None, 7, Decimal("39.80")],
        [Decimal(7), Decimal("39.80"), Decimal("1E+3")],
        [T, T.astimezone(ZoneInfo("Europe/Bucharest"))],
        [date(2026, 3, 1), time(9, 30), timedelta(days=1)],
        [ONE_UUID],
        [b"ada", bytearray(b"ada"), memoryview(b"ada")],
        [[1, "2", None], {"a": [Decimal("1.5")]}, (1, 2)],
    ],
)
def test_properties_of_every_ordinary_kind_need_no_event(conn_type: str, values: list[Any]) -> None:
    assert all(taken(conn_type, [("ada", value) for value in values] * 10))
    assert all(taken(conn_type, [("ada", value) for value in values] * 10, nulls="send"))


@every_vendor
@pytest.mark.parametrize(
    "ids",
    [["ada", "é"], [7, 2**62], ["ada", 7], [ONE_UUID], [Decimal(7), Decimal("7.00"), 7.0], [ONE_UUID, "ada", 7]],
)
def test_identities_of_every_ordinary_kind_need_no_event(conn_type: str, ids: list[Any]) -> None:
    assert all(taken(conn_type, [(value, 1) for value in ids] * 10))
    assert all(taken(conn_type, [("ada", value) for value in ids] * 10, id="b"))


@pytest.mark.parametrize(
    ("conn_type", "keys"), [("bloomreach", ["registered", "cookie"]), ("embeddables", ["embeddable_id", "email"])]
)
def test_one_of_several_ids_may_be_missing(conn_type: str, keys: list[str]) -> None:
    identity = dict(zip(keys, "ab", strict=True))
    rows = [("flow_1", "ada"), (None, "ada"), (None, ONE_UUID)] * 10
    assert all(taken(conn_type, rows, identity=identity, properties=[]))
    rows = [("flow_1", "ada")] * 29 + [(None, None)]
    assert taken(conn_type, rows, identity=identity, properties=[]) == [True] * 29 + [False]


@every_vendor
@pytest.mark.parametrize(
    ("times", "options"),
    [
        ([T], {}),
        ([T.isoformat(), "2026-03-01T09:30:00Z", "2026-03-01 09:30+02:00"], {}),
        ([T, T.isoformat()], {}),
        ([NAIVE, NAIVE.isoformat()], {"timezone": "Europe/Bucharest"}),
    ],
)
def test_times_of_every_ordinary_kind_need_no_event(conn_type: str, times: list[Any], options: Any) -> None:
    assert all(taken(conn_type, [("ada", value) for value in times] * 10, timestamp="b", **options))


@every_vendor
def test_names_in_a_column_need_no_event(conn_type: str) -> None:
    assert all(taken(conn_type, [("ada", "order_placed"), ("ada", "order_paid")] * 10, name=None, name_column="b"))


BAD = [
    (None, 1.5, "EUR"),
    (" ", 1.5, "EUR"),
    ("ada", math.nan, "EUR"),
    ("ada", Decimal(1), "EUR"),
    ("ada", 1.5, object),
]


@every_vendor
@pytest.mark.parametrize("bad", BAD)
def test_one_bad_row_in_a_hundred_takes_no_other_with_it(conn_type: str, bad: tuple[Any, ...]) -> None:
    good = ("ada", 39.8, "EUR")
    chunk = [*[good] * 50, bad, *[good] * 49] * 5
    assert all_taken(conn_type, [[good] * 10, chunk, chunk], "a b c") == [
        [True] * 10,
        *[[r is good for r in chunk]] * 2,
    ]


@every_vendor
@pytest.mark.parametrize(
    "kinds_of_chunks",
    [
        ["EUR", 7, 1.5, ONE_UUID, Decimal(7)],
        [None, "EUR", T, None, True],
        [Decimal(7), "EUR", [1], b"x", date(2026, 3, 1)],
    ],
)
def test_kinds_that_change_are_learned_anew(conn_type: str, kinds_of_chunks: list[Any]) -> None:
    chunks = [[("ada", value)] * 20 for value in kinds_of_chunks]
    assert all(map(all, all_taken(conn_type, chunks)))


@pytest.mark.parametrize("conn_type", UPSERTS)
@pytest.mark.parametrize("value", ["EUR", 7, Decimal("39.80"), T, None, [1], ONE_UUID])
@pytest.mark.parametrize("name", ["b", "birthDate", "company"])
def test_upserts_need_no_event_either(conn_type: str, value: Any, name: str) -> None:
    rows = [("ada@example.com", value, 1)] * 20
    assert all(taken(conn_type, rows, "a b c", properties={name: "b", "c": "c"}, timestamp=None))


def test_a_consent_that_is_none_needs_an_event_for_its_words() -> None:
    rows = [("ada", True), ("ada", 1), ("ada", "0"), ("ada", "yes"), ("ada", 2), ("ada", T)]
    assert taken("webengage upserts", rows, properties={"emailOptIn": "b"}) == [True, True, True, False, False, False]


def test_few_rows_of_a_new_kind_teach_nothing() -> None:
    rare = [("ada", 7)] * 19 + [("ada", "EUR")]
    assert all_taken("bloomreach", [[("ada", 7)] * 20, rare, rare]) == [[True] * 20, *[[True] * 19 + [False]] * 2]


def test_a_null_where_the_mapping_says_fail_needs_an_event_for_its_words() -> None:
    rows = [("ada", 7), ("ada", None)] * 10
    assert taken("bloomreach", rows, nulls="fail") == [True, False] * 10


@every_vendor
def test_more_properties_than_the_vendor_takes_unseen_need_events(conn_type: str) -> None:
    most = codec_of(conn_type).max_bulk_properties
    for count, hot in [(most, True), (most + 1, False)]:
        columns = "a " + " ".join(f"p{n}" for n in range(count))
        assert taken(conn_type, [("ada", *range(count))] * 3, columns) == [hot] * 3


def test_no_rows_are_no_pieces() -> None:
    assert all_taken("bloomreach", [[], [("ada", 7)] * 3, []]) == [[], [True] * 3, []]
