"""A checkpoint as a value, and how it grows: round trips, junk, and every order in which rows can be settled."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_events.delivery.accounts import Ledger
from airflow_provider_events.delivery.checkpoint import Checkpoint, OpenRows, Tally
from airflow_provider_events.delivery.offsets import Digest, OffsetTracker, Slice
from airflow_provider_events.row_data import dump_key, load_key

AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
KEYS = st.one_of(
    st.integers(),
    st.text(),
    st.floats(allow_nan=False),
    st.datetimes(timezones=st.sampled_from([None, UTC])),
    st.dates(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.uuids(),
    st.binary(),
    st.none(),
)


@st.composite
def checkpoints(draw: st.DrawFn) -> Checkpoint:
    """Any checkpoint that a delivery could save."""
    rows = draw(st.integers(1, 400))
    spare = sorted(draw(st.sets(st.integers(1, rows), max_size=30)))
    groups = []
    while spare:
        size = draw(st.integers(1, len(spare)))
        taken, spare = spare[:size], spare[size:]
        groups.append(tuple(OpenRows(row, row, draw(KEYS), draw(KEYS)) for row in taken))
    settled = rows - sum(map(len, groups))
    rejected = draw(st.integers(0, settled))
    skipped = draw(st.integers(0, settled - rejected))
    return Checkpoint(
        fingerprint=draw(st.text(max_size=10)),
        position=rows,
        digest=draw(st.text("0123456789abcdef", min_size=32, max_size=32)),
        tally=Tally(settled - rejected - skipped, rejected, skipped, Counter({"why": rejected} if rejected else {})),
        sent_at=draw(st.datetimes(timezones=st.just(UTC))),
        last_key=draw(KEYS),
        open=tuple(groups),
        before_open=(groups[0][0].first - 1, draw(KEYS)) if groups else (0, None),
        rejected_uri=draw(st.none() | st.text()),
    )


@given(checkpoints())
def test_a_checkpoint_comes_back_from_json_as_it_was(checkpoint: Checkpoint) -> None:
    text = json.dumps(checkpoint.to_dict())
    assert Checkpoint.from_dict(json.loads(text)) == checkpoint


@given(checkpoints())
def test_a_checkpoint_says_which_rows_are_open(checkpoint: Checkpoint) -> None:
    still_open = {row for group in checkpoint.open for rows in group for row in range(rows.first, rows.last + 1)}
    for row in range(1, checkpoint.position + 20):
        assert checkpoint.is_open(row) == (row in still_open or row > checkpoint.position)


def test_a_checkpoint_holds_nothing_of_a_row_but_number_and_key() -> None:
    offsets = OffsetTracker()
    offsets.mark_read(Slice((0, None), (1, "order-1"), [1], ["order-1"], "digest"))
    checkpoint = offsets.checkpoint("fingerprint", AT, None, Tally(), 1)
    assert set(checkpoint.to_dict()) == {
        "version", "fingerprint", "position", "digest", "delivered", "rejected", "skipped", "reasons", "sent_at",
        "last_key", "open", "before_open", "rejected_uri", "unused", "pending",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("uri", "rejected", "pending", "left", "unused"),
    [(None, 3, 0, 0, 5), (None, 3, 2, 2, 3), (None, 3, 3, 3, 2), ("s3://rejected.jsonl", 3, 1, 3, 2)],
)
def test_a_source_that_keeps_its_place_comes_back_to_what_is_open_and_to_what_is_kept_nowhere(
    uri: str | None, rejected: int, pending: int, left: int, unused: int
) -> None:
    tally = Tally(5, rejected, 0, Counter({"missing": rejected}), pending)
    checkpoint = Checkpoint("f", 10, "d", tally, AT, open=((OpenRows(4, 5),),), rejected_uri=uri)

    again = Checkpoint.from_dict(json.loads(json.dumps(checkpoint.without_open().to_dict())))

    assert (again.tally.rejected, again.tally.pending, again.unused, again.open) == (left, pending, unused, ())
    assert again.tally.delivered + again.tally.rejected + again.unused == again.position == 10


# -- keys ------------------------------------------------------------------------------------------------------------

MOMENT = datetime(2026, 3, 1, 9, 30, 0, 123456)


@pytest.mark.parametrize(
    "key",
    [
        0, -5, 2**80, "", "ключ", "a\x00b", 0.1, -0.0, 1e300, float("inf"), MOMENT, MOMENT.replace(tzinfo=UTC),
        MOMENT.astimezone(), date(2026, 3, 1), Decimal("1.10"), Decimal("1E+5"), UUID(int=7), b"\x00\xff", None,
    ],
)  # fmt: skip
def test_keys_of_sql_types_keep_type_and_value(key: Any) -> None:
    again = load_key(json.loads(json.dumps(dump_key(key))))
    assert again == key
    assert type(again) is type(key)
    assert repr(again) == repr(key) or isinstance(key, datetime)


class OddText(str):
    """What a driver of its own might give."""


@pytest.mark.parametrize("key", [True, memoryview(b"x"), OddText("x"), ("a", 1), {"a": 1}, timedelta(1), object()])
def test_keys_of_other_types_are_not_kept_rather_than_kept_wrongly(key: Any) -> None:
    assert dump_key(key) is None


# -- junk ------------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def refused_or_whole(data: Any) -> None:
    """Junk is a ValueError; what passes for a checkpoint is one that a delivery can work with."""
    try:
        checkpoint = Checkpoint.from_dict(data)
    except ValueError:
        return
    json.dumps(checkpoint.to_dict())
    assert checkpoint.sent_at.utcoffset() is not None
    last = 0
    for group in checkpoint.open:
        assert group
        for rows in group:
            assert last < rows.first <= rows.last <= checkpoint.position
            last = rows.last
    offsets = OffsetTracker()
    offsets.reset(checkpoint)
    assert offsets.checkpoint("f", checkpoint.sent_at, None, Tally(), 0).open == checkpoint.open


@given(JSON)
def test_anything_else_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match=r"version|not whole"):
        Checkpoint.from_dict(data)


@settings(max_examples=500)
@given(checkpoints(), st.data())
def test_a_damaged_checkpoint_is_refused_and_nothing_else_is_raised(
    checkpoint: Checkpoint, data: st.DataObject
) -> None:
    damaged: Any = json.loads(json.dumps(checkpoint.to_dict()))
    for _ in range(data.draw(st.integers(1, 2))):
        where: Any = damaged
        while True:
            places = list(where) if isinstance(where, dict) else list(range(len(where)))
            place = data.draw(st.sampled_from(places))
            if not (isinstance(where[place], dict | list) and where[place] and data.draw(st.booleans())):
                break
            where = where[place]
        if data.draw(st.booleans()):
            where[place] = data.draw(JSON)
        else:
            del where[place]
        if not damaged or not isinstance(damaged, dict):
            break
    refused_or_whole(damaged)


GOOD = Checkpoint(
    "f", 10, "0" * 32, Tally(8), AT, 10, ((OpenRows(4, 4, 4, 4), OpenRows(6, 6, 6, 6)),), (3, 3), None
).to_dict()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["version"], 2),
        (["version"], "1"),
        (["position"], "10"),
        (["position"], True),
        (["position"], 11),
        (["delivered"], -1),
        (["delivered"], 8.0),
        (["open"], [[]]),
        (["open"], [[], [[4, 5, None, None]]]),
        (["open"], [[[6, 6, None, None], [4, 4, None, None]]]),
        (["open"], [[[4, 4, None, None], [4, 4, None, None]]]),
        (["open"], [[[5, 3, None, None], [2, 4, None, None]]]),
        (["open"], [[[10, 11, None, None]]]),
        (["open"], [[[0, 1, None, None]]]),
        (["open", 0, 0, 2], ["int", "four"]),
        (["open", 0, 0, 2], ["complex", "1j"]),
        (["open", 0, 0, 2], [["int"], "4"]),
        (["open", 0, 0, 2], "4"),
        (["before_open"], []),
        (["before_open"], 3),
        (["sent_at"], None),
        (["sent_at"], "yesterday"),
        (["sent_at"], "2026-03-01T09:30:00"),
        (["reasons"], {"why": "many"}),
        (["reasons"], {"why": float("inf")}),
        (["reasons"], ["why"]),
        (["last_key"], ["decimal", "ten"]),
        (["last_key"], ["uuid", 5]),
        (["last_key"], ["bytes", "é"]),
        (["last_key"], ["float", "0x1p99999"]),
    ],
)
def test_what_does_not_fit_together_is_refused(path: Sequence[Any], value: Any) -> None:
    damaged = copy.deepcopy(GOOD)
    where: Any = damaged
    for step in path[:-1]:
        where = where[step]
    where[path[-1]] = value
    with pytest.raises(ValueError):  # noqa: PT011  the words do not matter: they go into a warning
        Checkpoint.from_dict(damaged)
    assert Checkpoint.from_dict(GOOD).position == 10


def test_a_checkpoint_of_absurd_size_is_refused_before_it_costs_memory() -> None:
    absurd = {**GOOD, "position": 10**15, "delivered": 0, "open": [[[1, 10**15, None, None]]]}
    with pytest.raises(ValueError):  # noqa: PT011  nor here
        Checkpoint.from_dict(absurd)


# -- the offsets ----------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), max_size=12), st.randoms(use_true_random=False))
def test_at_every_moment_the_checkpoint_names_exactly_the_rows_without_outcome(
    batches: list[list[bool]], random: Any
) -> None:
    """Whatever the order in which batches are taken and their rows settled; False: a row that is no event."""
    offsets, row, waiting = OffsetTracker(), 0, list(batches)
    delivered = rejected = 0
    underway: list[tuple[Slice, list[int]]] = []
    unsettled: set[int] = set()

    def check() -> None:
        checkpoint = offsets.checkpoint("f", AT, "uri", Tally(delivered, rejected), row)
        assert Checkpoint.from_dict(checkpoint.to_dict()) == checkpoint
        assert checkpoint.position == row
        assert {number for number in range(1, row + 1) if checkpoint.is_open(number)} == unsettled
        first = min(unsettled, default=None)
        assert checkpoint.before_open[0] < (first or 1)

    while waiting or underway:
        check()
        if waiting and (not underway or random.random() < 0.5):
            kinds = waiting.pop(0)
            before = (row, row)
            events = [row + n for n, good in enumerate(kinds, start=1) if good]
            row += len(kinds)
            taken = Slice(before, (row, row), events, events, "digest")
            offsets.mark_read(taken)
            rejected += kinds.count(False)
            unsettled |= set(events)
            if events:
                underway.append((taken, list(events)))
        else:
            taken, rows = random.choice(underway)
            some = random.sample(rows, random.randint(1, len(rows)))
            delivered += len(some)
            offsets.ack(taken, some)
            unsettled -= set(some)
            rows[:] = [number for number in rows if number not in some]
            underway[:] = [(taken, rows) for taken, rows in underway if rows]
    check()
    assert delivered + rejected == row


def test_a_later_change_does_not_reach_a_checkpoint_that_was_taken() -> None:
    ledger = Ledger("vibetrace")
    taken = Slice((0, None), (2, None), [1, 2], digest="digest")
    ledger.offsets.mark_read(taken)
    checkpoint = ledger.checkpoint("f", AT)
    ledger.delivered(taken, (1, 2))
    assert checkpoint.tally.delivered == 0
    assert checkpoint.is_open(1)


def test_rows_of_an_earlier_try_stay_open_until_they_are_taken_again() -> None:
    offsets = OffsetTracker()
    start = Checkpoint.from_dict(GOOD)
    offsets.reset(start)
    assert offsets.checkpoint("f", start.sent_at, None, start.tally, start.position) == start
    taken = Slice((3, 3), (start.position, start.last_key), [4, 6], [4, 6], group=start.open[0])
    offsets.mark_read(taken)
    assert offsets.checkpoint("f", start.sent_at, None, start.tally, start.position) == start
    offsets.ack(taken, (4,))
    after = offsets.checkpoint("f", start.sent_at, None, start.tally, start.position)
    assert after.open == ((OpenRows(6, 6, 6, 6),),)


def test_the_digest_depends_on_order_and_content() -> None:
    digests = set()
    for rows in ([b"a", b"b"], [b"b", b"a"], [b"a"], []):
        digest = Digest()
        for row in rows:
            digest.update(row)
        digests.add(digest.hexdigest())
    assert len(digests) == 4
