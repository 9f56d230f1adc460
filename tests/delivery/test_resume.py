"""Tries of one delivery: whatever stops them, every row arrives once; a kill doubles only what no checkpoint knew."""

from __future__ import annotations

import asyncio
import json
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count, pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_events.contract import Answer, Request
from airflow_provider_events.delivery import job as job_module
from airflow_provider_events.delivery import resume
from airflow_provider_events.delivery.checkpoint import Checkpoint, Tally
from airflow_provider_events.delivery.checkpoint_writer import SAVE_SECONDS
from airflow_provider_events.delivery.dead_letter import DeadLetterFile
from airflow_provider_events.delivery.job import Delivery, Plan
from airflow_provider_events.delivery.offsets import Digest, Settled
from airflow_provider_events.delivery.options import DeliveryOptions, Limits
from airflow_provider_events.delivery.pacing import RetryPolicy
from airflow_provider_events.events import DeliveryReport, Event, Record
from airflow_provider_events.exceptions import (
    CursorNotMoved,
    DeliveryInterrupted,
    EventsError,
    InvalidEvent,
    RejectedNotWritten,
    SourceChanged,
    SourceError,
    TooManyRejected,
)
from airflow_provider_events.http.contract import TransportError
from tests.delivery.harness import SENT_AT, FakeTransport, PlainWire, said
from tests.reliability.clock import simulate

PATIENT = RetryPolicy(budget_seconds=1e9, max_wait_seconds=1e9)
KINDS = ("good", "faulty", "refused", "late", "never")
CHUNK = 7


@pytest.fixture(autouse=True)
def simulated_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deliveries run in simulated time: pauses cost nothing, and everything that would run in a thread runs at once."""
    monkeypatch.setattr(job_module, "on_own_loop", lambda main, stop: simulate(main()))


def name_of(key: Any) -> str:
    """What a row with this key is called at the vendor."""
    return key.hex() if isinstance(key, bytes) else str(key)


@dataclass
class Rows:
    """A source with a key for each row; a row that is no event is `"faulty"`.

    :param spacing: from one row's number to the next one's: the lines of a file may be blank.
    """

    kinds: dict[Any, str]
    keyed: bool = False
    fails_at: int | None = None
    reads: list[Any] = field(default_factory=list)
    cursor: Any = None
    spacing: int = 1

    def keys(self, records: Sequence[Record]) -> Sequence[Any] | None:
        """See `Source.keys`."""
        return [record.data["key"] if record.data else None for record in records] if self.keyed else None

    def count(self, limit: int) -> int:
        """See `Source.count`."""
        return min(len(self.kinds), limit)

    def records(self, after: Any = None, first_row: int = 1) -> Iterator[Sequence[Record]]:
        """See `Source.records`."""
        self.reads.append(after)
        keys = sorted(self.kinds)
        if after is not None:
            keys = keys[bisect_right(keys, after) :]
        made = []
        for row, key in zip(count(first_row, self.spacing), keys, strict=False):
            if self.fails_at is not None and row > self.fails_at:
                raise SourceError("the database went away")
            faulty = self.kinds[key] == "faulty"
            customer = str(key) if self.kinds[key] in ("late", "never") else "regular"
            event = None if faulty else Event("e", {"id": customer}, id=name_of(key))
            fault = InvalidEvent("name", "missing") if faulty else None
            made.append(Record(row, event, {"key": key}, fault))
            if len(made) == CHUNK:
                yield made
                made = []
        yield made


@dataclass
class World:
    """A vendor, a state store and a folder for files, which outlive the tries."""

    kinds: dict[str, str]
    seed: int = 0
    trouble: float = 0.0
    slowness: float = 0.5
    accepted: Counter[str] = field(default_factory=Counter)
    accepted_at: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    files: dict[str, list[bytes]] = field(default_factory=dict)
    saved: Mapping[str, Any] | None = None
    saved_at: tuple[int, float] = (0, 0.0)
    damaged: list[str] = field(default_factory=list)
    alive: bool = True
    tries: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    async def answer(self, request: Request) -> Answer:
        """Some trouble, none of which comes after acceptance; else a verdict for each event."""
        await asyncio.sleep(self.random.uniform(0, self.slowness))
        luck = self.random.random()
        if not self.alive or luck < self.trouble:
            raise TransportError("no answer")
        if luck < 2 * self.trouble:
            return said(503, "retry")
        return said(200, [self._verdict(one) for one in (request.body or b"").decode().split(",")])

    def _verdict(self, event: str) -> str:
        kind = self.kinds[event]
        self.asked[event] += 1
        if kind == "refused":
            return "rejected"
        if kind == "never" or (kind == "late" and self.asked[event] < 3):
            return "missing"
        if self.unknown[event] < 2 and self.random.random() < self.trouble:
            self.unknown[event] += 1
            return "retry"
        self.accepted[event] += 1
        self.accepted_at.setdefault(event, []).append((self.tries, asyncio.get_running_loop().time()))
        return "delivered"

    def load(self) -> Mapping[str, Any] | None:
        """See `CheckpointStore.load`."""
        return None if self.saved is None or self.saved["completed"] else self.saved

    def save(self, checkpoint: Mapping[str, Any], *, completed: bool) -> None:
        """See `CheckpointStore.save`. The dead save nothing."""
        if self.alive:
            try:
                Checkpoint.from_dict(checkpoint)
            except ValueError as error:
                self.damaged.append(f"{error}: {checkpoint}")
            self.saved = json.loads(json.dumps({**checkpoint, "completed": completed}))
            self.saved_at = (self.tries, asyncio.get_running_loop().time())

    def rejected(self) -> list[int]:
        """Rows in the file of the last try."""
        return [json.loads(line)["row"] for line in self.files.get(f"try-{self.tries}", [])]


class File:
    """A file of one try."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.uri = f"try-{world.tries}"
        world.files[self.uri] = []

    def append(self, data: bytes) -> None:
        """See `Storage.append`."""
        if self._world.alive:
            self._world.files[self.uri] += data.splitlines(keepends=True)

    def lines_of(self, uri: str) -> Iterable[bytes]:
        """See `Storage.lines_of`."""
        return list(self._world.files.get(uri, ()))

    def remove(self) -> None:
        """See `Storage.remove`."""


def attempt(
    world: World,
    source: Rows | RowsLeft,
    *,
    stop_after: int | None = None,
    kill_after: int | None = None,
    fingerprint: str = "f",
    dead_letters: bool = True,
    slow_vendor: bool = False,
    **options: Any,
) -> DeliveryReport | None:
    """One try, stopped or killed at a request; the accounts, if it came to its end."""
    world.tries += 1
    world.alive = True
    world.slowness = 5.0 if slow_vendor else world.slowness
    requests = 0

    async def answer(request: Request) -> Answer:
        nonlocal requests
        requests += 1
        if requests == kill_after:
            world.alive = False
        if requests in (stop_after, kill_after):
            delivery.stop()
        return await world.answer(request)

    given = {"on_missing_entry": "wait", "max_rejected": 10**6, **options}
    batch_size = given.pop("batch_size", 5)
    plan = Plan(
        "plain",
        DeliveryOptions(**given),
        Limits(batch_size, 3),
        SENT_AT,
        fingerprint,
        retry_policy=PATIENT,
    )
    file = DeadLetterFile(File(world)) if dead_letters else None
    delivery = Delivery(PlainWire(), lambda: FakeTransport(answer), plan, (), file, world)
    try:
        return delivery.run(source)
    except TooManyRejected as error:  # nothing but rejected ones, which is an end as well
        return error.report
    except DeliveryInterrupted:
        return None


def close(report: DeliveryReport | None, world: World, kinds: Mapping[Any, str]) -> None:
    """The accounts of the last try count every row once."""
    assert report is not None
    counts = Counter(kinds.values())
    rejected = counts["faulty"] + counts["refused"] + counts["never"]
    assert report.read == counts.total()
    assert report.rejected == rejected == sum(report.reasons.values())
    assert report.delivered + report.resumed == counts["good"] + counts["late"]
    assert (report.unsent, report.skipped) == (0, 0)
    assert sorted(set(world.rejected())) == sorted(world.rejected())
    assert len(world.rejected()) == rejected


def rows_of(kinds: dict[Any, str], layout: tuple[bool, int]) -> Rows:
    """A source of this layout."""
    keyed, spacing = layout
    return Rows(kinds, keyed, spacing=spacing)


sources = st.lists(st.sampled_from(KINDS), min_size=1, max_size=60)
stops = st.lists(st.integers(1, 12), max_size=5)
layouts = st.sampled_from([(True, 1), (False, 1), (False, 3)])  # whether there are keys, and how rows are numbered
PROPERTY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@PROPERTY
@given(sources, stops, layouts, st.sampled_from(["none", "identity"]), st.integers(0, 2**32))
def test_stops_lose_nothing_and_double_nothing(
    listed: list[str], stopped: list[int], layout: tuple[bool, int], ordering: str, seed: int
) -> None:
    kinds = dict(enumerate(listed, start=1))
    world = World({str(key): kind for key, kind in kinds.items()}, seed, trouble=0.1)
    report = None
    for stop_after in stopped:
        report = attempt(world, rows_of(kinds, layout), stop_after=stop_after, ordering=ordering)
        if report is not None:
            break
    if report is None:
        report = attempt(world, rows_of(kinds, layout), ordering=ordering)
    assert world.accepted == Counter({str(key): 1 for key, kind in kinds.items() if kind in ("good", "late")})
    if ordering == "identity":
        of_one_customer = [key for key, kind in kinds.items() if kind == "good"]
        assert of_one_customer == sorted(of_one_customer, key=lambda key: world.accepted_at[str(key)])
    close(report, world, kinds)


@PROPERTY
@given(sources, stops, layouts, st.sampled_from(["none", "identity"]), st.integers(0, 2**32))
def test_kills_lose_nothing_and_double_only_what_no_checkpoint_knew(
    listed: list[str], killed: list[int], layout: tuple[bool, int], ordering: str, seed: int
) -> None:
    kinds = dict(enumerate(listed, start=1))
    world = World({str(key): kind for key, kind in kinds.items()}, seed, trouble=0.1)
    report = None
    known: set[str] = set()
    for kill_after in killed:
        report = attempt(world, rows_of(kinds, layout), kill_after=kill_after, ordering=ordering)
        if report is not None:
            break
        known |= {
            event for event, times in world.accepted_at.items() if any(at < world.saved_at for at in times)
        } & world.accepted.keys()
    if report is None:
        report = attempt(world, rows_of(kinds, layout), ordering=ordering)
    assert set(world.accepted) == {str(key) for key, kind in kinds.items() if kind in ("good", "late")}
    for event, times in world.accepted_at.items():
        for (one, at), (later, _) in pairwise(times):
            assert later > one, f"{event} was sent twice in one try"
            assert (one, at) >= world_saved(world, one), f"{event} was sent again though a checkpoint knew it"
    if ordering == "identity" and "good" in listed:
        of_one_customer = [key for key, kind in kinds.items() if kind == "good"]
        assert max(of_one_customer, key=lambda key: world.accepted_at[str(key)][-1]) == of_one_customer[-1]
    close(report, world, kinds)


def world_saved(world: World, attempt_number: int) -> tuple[int, float]:
    """The moment from which nothing of a try is known for sure: its last save, or its start."""
    return world.saved_at if world.saved_at[0] == attempt_number else (attempt_number, 0.0)


def test_a_kill_doubles_at_most_what_was_settled_since_the_last_save() -> None:
    """At most two seconds of them, and what was in flight."""
    kinds = dict.fromkeys(range(1, 400), "good")
    world = World({str(key): "good" for key in kinds})
    attempt(world, Rows(kinds), kill_after=60)
    tried, saved_at = world.saved_at
    assert tried == 1
    assert saved_at > 0
    last = max(at for times in world.accepted_at.values() for _, at in times)
    assert last - saved_at <= SAVE_SECONDS
    close(attempt(world, Rows(kinds)), world, kinds)
    doubled = {event for event, count in world.accepted.items() if count > 1}
    assert doubled
    assert all(world.accepted_at[event][0][1] > saved_at for event in doubled)


@PROPERTY
@given(
    st.lists(st.sampled_from(("good", "faulty", "refused", "late")), min_size=20, max_size=60),
    st.lists(st.tuples(st.integers(2, 8), st.integers(1, 9), st.sampled_from(["none", "identity"])), max_size=5),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_other_batches_or_another_ordering_in_a_retry_do_no_harm(
    listed: list[str], stopped: list[tuple[int, int, str]], keyed: bool, seed: int
) -> None:
    """These options may be changed between two tries: every checkpoint stays one that can be gone on from."""
    kinds = dict(enumerate(listed, start=1))
    world = World({str(key): kind for key, kind in kinds.items()}, seed, trouble=0.1)
    report = None
    for stop_after, batch_size, ordering in stopped:
        report = attempt(
            world, Rows(kinds, keyed), stop_after=stop_after, batch_size=batch_size, ordering=ordering, slow_vendor=True
        )
        if report is not None:
            break
    if report is None:
        report = attempt(world, Rows(kinds, keyed))
    assert world.damaged == []
    assert world.accepted == Counter({str(key): 1 for key, kind in kinds.items() if kind in ("good", "late")})
    close(report, world, kinds)


# -- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        [f"order-{n:03}" for n in range(60)],
        [Decimal(n) / 7 for n in range(60)],
        [n / 7 for n in range(60)],
        [datetime(2026, 3, 1, tzinfo=UTC).replace(microsecond=n) for n in range(60)],
        [datetime(2026, 3, 1).date().replace(year=1900 + n) for n in range(60)],
        [UUID(int=n) for n in range(60)],
        [bytes([n]) for n in range(60)],
        list(range(60)),
    ],
    ids=lambda keys: type(keys[0]).__name__,
)
def test_a_later_try_starts_behind_the_last_key_of_any_type(keys: list[Any]) -> None:
    kinds = dict.fromkeys(keys, "good")
    world = World({name_of(key): "good" for key in keys})
    assert attempt(world, Rows(kinds, keyed=True), stop_after=5) is None
    again = Rows(kinds, keyed=True)
    close(attempt(world, again), world, kinds)
    assert set(world.accepted.values()) == {1}
    assert None not in again.reads, "the rows that were settled were read once more"


class OddKey(str):
    """A type that a checkpoint cannot keep."""


def test_keys_that_cannot_be_kept_resume_by_digest() -> None:
    kinds = {OddKey(f"{n:03}"): "good" for n in range(60)}
    world = World({str(key): "good" for key in kinds})
    assert attempt(world, Rows(kinds, keyed=True), stop_after=5) is None
    assert attempt(world, Rows(kinds, keyed=True), stop_after=2) is None
    close(attempt(world, Rows(kinds, keyed=True)), world, kinds)
    assert set(world.accepted.values()) == {1}


def keyed_world(count: int = 60) -> tuple[dict[Any, str], World]:
    """Rows with the keys 10, 20, 30, …, of which one try has sent some."""
    kinds = dict.fromkeys(range(10, 10 * count + 10, 10), "good")
    world = World({str(key): "good" for key in range(10 * count + 500)})
    assert attempt(world, Rows(kinds, keyed=True), stop_after=6) is None
    return kinds, world


def test_rows_that_came_behind_the_last_key_are_delivered_as_well() -> None:
    kinds, world = keyed_world()
    assert world.saved is not None
    last = world.saved["last_key"][1]
    kinds |= {last + 5: "good", 1000: "good"}
    close(attempt(world, Rows(kinds, keyed=True)), world, kinds)
    assert set(world.accepted.values()) == {1}


def test_rows_that_went_before_the_open_ones_do_no_harm() -> None:
    """They were delivered; `read` counts them, as an earlier try took them."""
    kinds, world = keyed_world()
    gone = [key for key in kinds if world.accepted[str(key)]][:3]
    before = dict(kinds)
    for key in gone:
        del kinds[key]
    close(attempt(world, Rows(kinds, keyed=True)), world, before)
    assert set(world.accepted.values()) == {1}


def test_rows_that_came_between_delivered_ones_are_not_sent_and_nothing_is_doubled() -> None:
    """As with every key: a row that is committed late, below the last key, is for the next run's window."""
    kinds, world = keyed_world()
    before = dict(kinds)
    kinds[15] = "good"
    close(attempt(world, Rows(kinds, keyed=True)), world, before)
    assert set(world.accepted.values()) == {1}
    assert "15" not in world.accepted


@pytest.mark.parametrize("policy", ["restart", "fail"])
@pytest.mark.parametrize("keyed", [True, False])
def test_a_source_that_changed_starts_over_or_fails(keyed: bool, policy: str) -> None:
    kinds = dict.fromkeys(range(1, 60), "good")
    world = World({str(key): "good" for key in range(200)})
    world.kinds["100"] = "never"
    kinds[0] = "late"
    world.kinds["0"] = "late"
    assert attempt(world, Rows(kinds, keyed), stop_after=6, on_source_changed=policy) is None
    del kinds[0]  # it was held: open
    delivered = world.accepted.copy()
    if policy == "fail":
        with pytest.raises(SourceChanged):
            attempt(world, Rows(kinds, keyed), on_source_changed=policy)
        assert world.accepted == delivered
    else:
        report = attempt(world, Rows(kinds, keyed), on_source_changed=policy)
        close(report, world, kinds)
        assert report is not None
        assert report.resumed == 0
        assert set(world.accepted) == {str(key) for key in kinds}


@pytest.mark.parametrize("change", ["fingerprint", "content", "order"])
def test_each_kind_of_change_is_noticed_without_a_key(change: str, caplog: pytest.LogCaptureFixture) -> None:
    kinds: dict[Any, str] = dict.fromkeys(range(1, 60), "good")
    world = World({str(key): "good" for key in range(-5, 200)})
    assert attempt(world, Rows(kinds), stop_after=6) is None
    if change == "content":
        kinds = {key + 1: kind for key, kind in kinds.items()}
    elif change == "order":
        kinds[-1] = "good"
    with pytest.raises(SourceChanged):
        attempt(world, Rows(kinds), on_source_changed="fail", fingerprint="g" if change == "fingerprint" else "f")
    report = attempt(world, Rows(kinds), fingerprint="g" if change == "fingerprint" else "f")
    close(report, world, kinds)
    assert "starting over from the first row" in caplog.text


def test_a_source_that_became_shorter_than_the_checkpoint_starts_over() -> None:
    kinds: dict[Any, str] = dict.fromkeys(range(1, 60), "good")
    world = World({str(key): "good" for key in kinds})
    assert attempt(world, Rows(kinds), stop_after=6) is None
    kinds = {1: "good"}
    report = attempt(world, Rows(kinds))
    close(report, world, kinds)


# -- ends of other kinds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyed", [True, False])
def test_a_database_that_goes_away_costs_nothing(keyed: bool) -> None:
    kinds = dict.fromkeys(range(1, 60), "good")
    world = World({str(key): "good" for key in kinds})
    for fails_at in (20, 40):
        with pytest.raises(SourceError, match="went away"):
            attempt(world, Rows(kinds, keyed, fails_at))
    close(attempt(world, Rows(kinds, keyed)), world, kinds)
    assert set(world.accepted.values()) == {1}


def test_after_a_success_everything_is_sent_again() -> None:
    """A completed checkpoint is kept for people to see; a clear of the task starts over."""
    kinds = dict.fromkeys(range(1, 20), "good")
    world = World({str(key): "good" for key in kinds})
    for times in (1, 2):
        close(attempt(world, Rows(kinds)), world, kinds)
        assert set(world.accepted.values()) == {times}


def test_a_dry_run_keeps_no_checkpoint_and_uses_none() -> None:
    kinds = dict.fromkeys(range(1, 60), "good")
    world = World({str(key): "good" for key in kinds})
    assert attempt(world, Rows(kinds), stop_after=3) is None
    saved = world.saved
    report = attempt(world, Rows(kinds), dry_run=True, dead_letters=False)
    assert report is not None
    assert (report.read, report.unsent) == (59, 59)
    assert world.saved is saved


class Broken:
    """A state store that is down; it answers after so many attempts to read, if it has anything to say."""

    def __init__(self, saved: Any = None, failures: int = 0) -> None:
        self.saved = saved
        self.failures = failures
        self.loads = self.saves = 0

    def load(self) -> Any:
        """See `CheckpointStore.load`."""
        self.loads += 1
        if self.saved is None or self.loads <= self.failures:
            raise ConnectionError("down")
        return self.saved

    def save(self, checkpoint: Mapping[str, Any], *, completed: bool) -> None:
        """See `CheckpointStore.save`."""
        self.saves += 1
        raise ConnectionError("down")


def with_store(store: Any, kinds: dict[Any, str], world: World, **options: Any) -> DeliveryReport:
    plan = Plan("plain", DeliveryOptions(**options), Limits(2, 2), SENT_AT, "f", retry_policy=PATIENT)
    return Delivery(PlainWire(), lambda: FakeTransport(world.answer), plan, (), None, store).run(Rows(kinds))


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts to read a checkpoint, which take no time here."""
    pauses: list[float] = []
    monkeypatch.setattr(resume.patiently, "sleep", pauses.append)
    return pauses


def test_a_state_store_that_is_down_stops_nothing_and_is_complained_of_once(
    slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    kinds = dict.fromkeys(range(1, 100), "good")
    world = World({str(key): "good" for key in kinds})
    store = Broken()
    report = with_store(store, kinds, world)
    assert report.delivered == 99
    assert store.loads == 5
    assert sum(slept) == 15
    assert store.saves > 2
    assert caplog.text.count("cannot be saved") == 1


def test_a_state_store_that_comes_back_is_waited_for(slept: list[float]) -> None:
    kinds = dict.fromkeys(range(1, 100), "good")
    world = World({str(key): "good" for key in kinds})
    start = Checkpoint("f", 0, Digest().hexdigest(), Tally(), SENT_AT).to_dict()
    store = Broken({**start, "position": 7, "delivered": 7}, failures=3)
    with pytest.raises(SourceChanged):
        with_store(store, kinds, world, on_source_changed="fail")
    assert store.loads == 4
    assert slept == [1, 2, 4]


@pytest.mark.parametrize(
    "saved", ["junk", b"junk", 7, [], {"version": 1}, {"version": 99, "position": 5}, {"version": 1, "open": [[]]}]
)
def test_a_checkpoint_that_is_junk_is_a_warning_and_a_fresh_start(saved: Any, caplog: pytest.LogCaptureFixture) -> None:
    kinds = dict.fromkeys(range(1, 20), "good")
    world = World({str(key): "good" for key in kinds})
    assert with_store(Broken(saved), kinds, world).delivered == 19
    assert "cannot be used" in caplog.text


# -- rejected events -------------------------------------------------------------------------------------------------


def test_events_without_a_time_keep_that_of_the_first_try() -> None:
    """So that they are sent again as the same bytes, whenever the retry comes."""
    kinds = dict.fromkeys(range(1, 60), "good")
    world = World({str(key): "good" for key in kinds})
    assert attempt(world, Rows(kinds), stop_after=3) is None
    assert world.saved is not None
    assert datetime.fromisoformat(world.saved["sent_at"]) == SENT_AT


class FullDisk(File):
    """There is room for the first lines only."""

    room = 3

    def append(self, data: bytes) -> None:
        """See `Storage.append`; what fits is written, as a disk does it."""
        for line in data.splitlines(keepends=True):
            if self.room == 0:
                self._world.files[self.uri].append(line[:10])
                raise OSError(28, "No space left on device")
            self.room -= 1
            self._world.files[self.uri].append(line)


def test_a_full_disk_fails_the_try_and_the_next_one_has_every_rejected_row() -> None:
    """What could not be written must not count as rejected in the checkpoint."""
    kinds = {n: "faulty" if n % 5 == 0 else "good" for n in range(1, 400)}
    world = World({str(key): "good" for key in kinds})
    world.tries = 1
    plan = Plan("plain", DeliveryOptions(max_rejected=1000), Limits(5, 3), SENT_AT, "f", retry_policy=PATIENT)
    delivery = Delivery(
        PlainWire(), lambda: FakeTransport(world.answer), plan, (), DeadLetterFile(FullDisk(world)), world
    )
    with pytest.raises(RejectedNotWritten):
        delivery.run(Rows(kinds))
    close(attempt(world, Rows(kinds)), world, kinds)


def test_many_held_events_do_not_keep_a_stop_from_being_saved() -> None:
    """A graceful stop doubles nothing, also while thousands of events wait for their entries."""
    kinds = {n: "good" if n % 2 else "late" for n in range(1, 13_000)}
    world = World({str(key): kind for key, kind in kinds.items()}, slowness=0.001)
    assert attempt(world, Rows(kinds), stop_after=12_900, batch_size=1) is None
    assert len(world.accepted) > 6000
    close(attempt(world, Rows(kinds), batch_size=1), world, kinds)
    assert set(world.accepted.values()) == {1}


# -- a source that keeps its place from run to run ---------------------------------------------------------------------


@dataclass
class RowsLeft:
    """A source and its cursor: it comes back to whatever was not settled, in whatever order."""

    kinds: dict[Any, str]
    noted: set[Any] = field(default_factory=set)
    told: list[Settled] = field(default_factory=list)
    fails: EventsError | None = None
    keyed: bool = False
    excluded: int = 0

    @property
    def cursor(self) -> Any:
        """See `Source.cursor`."""
        return self

    def keys(self, records: Sequence[Record]) -> None:
        """There are none."""

    def count(self, limit: int) -> None:
        """It is not known."""

    def records(self, after: Any = None, first_row: int = 1) -> Iterator[Sequence[Record]]:
        """Those that are left."""
        assert after is None
        left = {key: kind for key, kind in self.kinds.items() if key not in self.noted}
        self.numbers = dict(enumerate(sorted(left), start=first_row))
        return Rows(left).records(None, first_row)

    def settled(self, rows: Settled) -> None:
        """See `SourceCursor.settled`."""
        if self.fails is not None:
            raise self.fails
        assert sorted(rows.gaps) == list(rows.gaps)
        gaps = {number for first, last in rows.gaps for number in range(first, last + 1)}
        self.told.append(rows)
        self.noted |= {key for row, key in self.numbers.items() if row <= rows.position and row not in gaps}


def after_stops(world: World, source: RowsLeft, stopped: list[int], **options: Any) -> DeliveryReport | None:
    """Tries that are stopped, and one that is not."""
    for stop_after in stopped:
        if (report := attempt(world, source, stop_after=stop_after, **options)) is not None:
            return report
    return attempt(world, source, **options)


@PROPERTY
@given(sources, stops, st.booleans(), st.integers(0, 2**32))
def test_a_source_that_keeps_its_place_is_told_what_is_settled(
    listed: list[str], stopped: list[int], kept: bool, seed: int
) -> None:
    kinds = dict(enumerate(listed, start=1))
    world = World({str(key): kind for key, kind in kinds.items()}, seed, trouble=0.1)
    source = RowsLeft(kinds)

    report = after_stops(world, source, stopped, dead_letters=kept)

    if kept:
        close(report, world, kinds)
        assert source.noted == set(kinds)
    else:  # nothing holds the rejected rows but their source
        assert source.noted == {key for key, kind in kinds.items() if kind in ("good", "late")}
        assert report is not None
        assert report.rejected == len(kinds) - len(source.noted)
    assert source.told[-1].completed
    assert set(world.accepted.values()) <= {1}


def test_what_was_delivered_and_not_noted_is_a_failure_that_a_retry_may_heal() -> None:
    kinds = dict.fromkeys(range(1, 20), "good")
    world = World({str(key): kind for key, kind in kinds.items()})
    source = RowsLeft(kinds, fails=CursorNotMoved("delivered, cursor not moved"))
    with pytest.raises(CursorNotMoved) as raised:
        attempt(world, source)
    assert raised.value.report is not None
    assert raised.value.report.delivered == 19
    assert not (world.saved or {}).get("completed")

    source.fails = None
    report = attempt(world, source)
    assert report is not None
    assert (report.unsent, len(source.noted)) == (0, 19)


def test_a_delivery_that_fails_already_says_why_and_not_what_the_cursor_could_not_do() -> None:
    kinds = dict.fromkeys(range(1, 20), "good")
    world = World({str(key): kind for key, kind in kinds.items()})
    assert attempt(world, RowsLeft(kinds, fails=CursorNotMoved("not moved")), stop_after=1) is None


def test_rows_that_the_source_leaves_out_are_counted_as_skipped() -> None:
    kinds = dict.fromkeys(range(1, 20), "good")
    world = World({str(key): kind for key, kind in kinds.items()})
    source = RowsLeft(kinds, excluded=7)
    assert attempt(world, source, stop_after=2) is None
    report = attempt(world, source)
    assert report is not None
    assert (report.read, report.skipped) == (26, 7)


def test_a_dry_run_tells_the_source_nothing() -> None:
    kinds = dict.fromkeys(range(1, 20), "good")
    source = RowsLeft(kinds)
    attempt(World({str(key): kind for key, kind in kinds.items()}), source, dry_run=True)
    assert source.told == []
