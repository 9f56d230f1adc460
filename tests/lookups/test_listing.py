"""What was in a listing throughout is never called missing, however the vendor pages."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_events.exceptions import RateLimited, VendorUnavailable
from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.lookups import listing
from airflow_provider_events.lookups.search import Identity, Search
from tests.lookups.listing_server import Odd, listening

NOW = datetime.now(UTC).replace(microsecond=0)
MS, US = timedelta(milliseconds=1), timedelta(microseconds=1)


def hook_at(url: str) -> EventsHook:
    import os

    extra = {"project_id": "pr_odd", "embeddable_id": "flow_1"}
    os.environ["AIRFLOW_CONN_ODD"] = json.dumps(
        {"conn_type": "embeddables", "host": url, "password": "rk_odd", "extra": extra}
    )
    return EventsHook.for_connection("odd")


def who(names: Sequence[str]) -> list[Identity]:
    return [{"email": f"{name}@example.com"} for name in names]


def spread(count: int, gap: timedelta, ago: timedelta = timedelta(hours=2)) -> dict[str, datetime]:
    return {f"e{n}": NOW - ago + n * gap for n in range(count)}


def spread_of(name: str, count: int, gap: timedelta, ago: timedelta = timedelta(hours=1)) -> dict[str, datetime]:
    return {f"{name}{n}": NOW - ago + n * gap for n in range(count)}


def of_length(name: str, count: int) -> dict[str, str]:
    return {"entry_data": json.dumps({"email": f"{name}@example.com", "x": "x" * count})}


SHORT_ANSWERS = 20_000
LONG = of_length("long", 25_000)


@pytest.fixture
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MAX_ANSWER_BYTES", SHORT_ANSWERS)


def missing(odd: Odd, names: Sequence[str]) -> list[str]:
    with listening(odd) as url:
        exist = hook_at(url).lookup(who(names))
    return [name for name, there in zip(names, exist, strict=True) if not there]


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize(
    ("times", "changes"),
    [
        (spread(1000, 0 * MS), {}),
        (spread(150, MS * 1000), {"cap": 100}),
        (spread(40, MS * 1000), {"cap": 5}),
        (spread(400, MS), {}),
        (spread(60, MS), {"cap": 5}),
        (spread(1000, 137 * US), {"digits": 6}),
        (spread(60, 137 * US), {"digits": 6, "cap": 5}),
        (spread(300, MS * 1000), {"hidden": frozenset(f"h{n}" for n in range(50))}),
        (spread(300, MS * 1000), {"max_limit": 100}),
        (spread(30, MS), {"ignored": ("direction",)}),
    ],
)
def test_every_entry_is_found_and_another_one_is_missing(
    times: dict[str, datetime], changes: dict[str, Any], inclusive: bool
) -> None:
    hidden = {name: NOW - timedelta(hours=1, seconds=n) for n, name in enumerate(changes.get("hidden", ()))}
    odd = Odd({**times, **hidden, "lone": NOW - timedelta(days=1)}, inclusive=inclusive, **changes)
    assert missing(odd, [*times, "lone"]) == []
    if len(set(times.values())) > 1:
        assert missing(odd, ["x"]) == ["x"]
    assert len(odd.requests) < 120


@pytest.mark.usefixtures("short_answers")
@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (Odd(spread(150, 0 * MS) | spread(1, MS, timedelta(days=2)), cap=100), "one moment"),
        (Odd(spread(300, MS * 60_000, timedelta(days=2)), cap=50, ignored=("updated_before",)), "updated_before"),
        (
            Odd(spread(30, MS * 1000) | {"twin": NOW - timedelta(hours=2) + 12_000 * MS}, extra={"e12": LONG}),
            "of one moment are longer than",
        ),
        (
            Odd(spread(30, MS * 1000) | {"twin": NOW - timedelta(hours=2) + 12_000 * MS}, extra={"twin": LONG}),
            "of one moment are longer than",
        ),
        (
            Odd(spread(300, MS * 60_000, timedelta(days=2)), cap=50, ignored=("updated_before", "direction")),
            "updated_before",
        ),
    ],
)
def test_what_cannot_be_told_is_an_error_and_no_absence(odd: Odd, words: str) -> None:
    with pytest.raises(VendorUnavailable, match=words):
        missing(odd, ["x"])
    assert len(odd.requests) < 80


@pytest.mark.usefixtures("short_answers")
@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize(
    ("times", "long"),
    [
        (spread(250, MS * 1000), ["e120"]),
        (spread(250, MS * 1000), ["e0"]),
        (spread(250, MS * 1000), ["e249"]),
        (spread(250, MS), ["e120", "e121", "e123"]),
        (spread(60, 0 * MS) | spread_of("late", 20, MS * 1000), ["late12"]),
        (spread(1, MS), ["e0"]),
        (spread(2, MS), ["e0"]),
        (spread(2, MS), ["e1"]),
        (spread(3, MS * 1000), ["e0", "e1", "e2"]),
        (spread(30, 137 * US), ["e20", "e21"]),
    ],
)
def test_an_entry_that_is_too_long_is_passed_over_and_said(
    times: dict[str, datetime], long: list[str], inclusive: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    digits = 6 if any(time.microsecond % 1000 for time in times.values()) else 3
    odd = Odd(times, inclusive=inclusive, digits=digits, extra=dict.fromkeys(long, LONG))
    assert missing(odd, ["x", *(name for name in times if name not in long)]) == ["x"]
    assert f"{len(long)} entries of the listing have no readable time" in caplog.text
    assert f"or are longer than {SHORT_ANSWERS} bytes" in caplog.text


@pytest.mark.usefixtures("short_answers")
@pytest.mark.parametrize("inclusive", [False, True])
def test_the_next_look_finds_an_entry_that_is_too_long_at_once(inclusive: bool) -> None:
    odd = Odd(spread(30, MS * 1000), inclusive=inclusive, extra={"e29": LONG})
    progress, requests = None, [0]
    with listening(odd) as url:
        for _ in range(3):
            hook, search = hook_at(url), Search(who(["e3", "x"]), progress=progress)
            search.prepare(hook.vendor)
            asyncio.run(hook.client.look_once(search))
            assert search.missing() == who(["x"])
            progress = json.loads(json.dumps(search.progress.pack()))
            requests.append(len(odd.requests))
    first, second, third = (after - before for before, after in pairwise(requests))
    assert first > 40
    assert max(second, third) < 25


def test_an_entry_of_more_than_a_megabyte_is_passed_over() -> None:
    times = spread(30, MS * 1000)
    odd = Odd(times, extra={"e12": of_length("long", 1_200_000)})
    assert missing(odd, ["x", *(name for name in times if name != "e12")]) == ["x"]
    assert len(odd.requests) < 100


@pytest.mark.usefixtures("short_answers")
@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("size", [500, 7_000, 12_000])
def test_pages_of_long_entries_are_read_in_parts(size: int, inclusive: bool) -> None:
    times = spread(12, MS * 1000) | spread_of("old", 3, MS, timedelta(days=3))
    odd = Odd(times, inclusive=inclusive, extra={name: of_length(name, size) for name in times})
    assert missing(odd, [*times, "x"]) == ["x"]


def test_what_moves_while_pages_are_read_is_found() -> None:
    odd = Odd(spread(600, MS * 1000))

    def update(listing: Odd) -> None:
        if len(listing.requests) == 2:
            for name in ("e3", "e4", "e5"):
                listing.times[name] = datetime.now(UTC)

    odd.before_page = update
    assert missing(odd, ["e3", "e4", "e5"]) == []


@pytest.mark.parametrize("ahead", [timedelta(minutes=5), timedelta(days=365)])
def test_an_entry_of_the_future_hides_nobody(ahead: timedelta) -> None:
    odd = Odd({"future": datetime.now(UTC) + ahead, "a": NOW - timedelta(hours=1)})
    with listening(odd) as url:
        hook, search = hook_at(url), Search(who(["late"]))
        search.prepare(hook.vendor)
        asyncio.run(hook.client.look_once(search))
        odd.times["late"] = datetime.now(UTC)
        again = Search(who(["late"]), progress=json.loads(json.dumps(search.progress.pack())))
        again.prepare(hook.vendor)
        asyncio.run(hook.client.look_once(again))
        assert again.enough


def test_a_quota_that_ends_a_look_loses_no_page() -> None:
    odd = Odd(spread(1000, MS * 1000))
    with listening(odd) as url:
        hook = hook_at(url)
        search = Search(who(["e0"]))
        for _ in range(12):
            search = Search(who(["e0"]), progress=json.loads(json.dumps(search.progress.pack())))
            search.prepare(hook.vendor)
            odd.refuse_after = len(odd.requests) + 1
            if not search.enough:
                with pytest.raises(RateLimited) if "e0" not in _page_names(odd, search) else _nothing():
                    asyncio.run(hook.client.look_once(search))
        assert search.enough


def _page_names(odd: Odd, search: Search) -> list[str]:
    edge = search.progress.place.edge
    return [name for name, at in odd.times.items() if edge and edge - 99 * timedelta(seconds=1) <= at <= edge]


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


@pytest.mark.parametrize(
    "extra",
    [
        {"updated_at": None},
        {"updated_at": ...},
        {"embeddable_id": ...},
        {"embeddable_id": None},
        {"entry_data": None},
        {"entry_data": ...},
        {"entry_data": "{"},
        {"embeddable_id": ["flow_1"]},
        {"updated_at": "yesterday"},
    ],
    ids=[
        "null time",
        "no time",
        "no embeddable",
        "null embeddable",
        "null data",
        "no data",
        "broken data",
        "list",
        "no date",
    ],
)
def test_an_entry_without_its_fields_is_passed_over_and_said_once(
    extra: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    times = spread(250, MS * 1000)
    odd = Odd(times, extra={"e120": extra})
    assert missing(odd, [name for name in times if name != "e120"]) == []
    assert missing(odd, ["x"]) == ["x"]
    assert caplog.text.count("passed over") in (1, 2)
    assert "example.com" not in caplog.text


@pytest.mark.parametrize("inclusive", [False, True])
@pytest.mark.parametrize("others", [-1, 1])
def test_a_page_filled_by_one_moment_is_not_taken_for_all(others: int, inclusive: bool) -> None:
    """Three at one moment fill a page of three, and others are beyond it: the page was full, so there may be more."""
    moment = NOW - timedelta(hours=1)
    times = dict.fromkeys(("e0", "e1", "e2"), moment)
    odd = Odd({**times, "e3": moment + others * timedelta(minutes=5)}, cap=3, inclusive=inclusive)
    with suppress(VendorUnavailable):  # in words; never a wrong "missing"
        assert missing(odd, ["e0", "e1", "e2", "e3"]) == []


# -- histories ---------------------------------------------------------------------------------------------------------

GAPS = st.sampled_from([0 * MS, US * 137, MS, MS * 3, timedelta(seconds=1), timedelta(minutes=7)])


@st.composite
def histories(draw: st.DrawFn) -> Odd:
    """A listing of some entries, and what happens to it before each page."""
    at = NOW - timedelta(hours=draw(st.integers(1, 50)))
    times: dict[str, datetime] = {}
    for n, gap in enumerate(draw(st.lists(GAPS, min_size=1, max_size=60))):
        at += gap
        times[f"e{n}"] = at
    if draw(st.booleans()):
        times["future"] = datetime.now(UTC) + timedelta(minutes=draw(st.integers(1, 10_000)))
    names = sorted(times)
    steps = draw(st.lists(st.lists(st.tuples(st.sampled_from(names), st.sampled_from("uuud")), max_size=4), max_size=8))
    whole = iter(steps)
    fixed = set(draw(st.lists(st.sampled_from(names), min_size=1, max_size=5)))

    def happen(odd: Odd) -> None:
        for name, what in next(whole, ()):
            if what == "u" and name in odd.times:
                odd.times[name] = datetime.now(UTC)
            elif name not in fixed:
                odd.times.pop(name, None)

    # A cap below the API's own default length cannot be told where nothing but one moment is listed.
    times["anchor"] = NOW - timedelta(days=5)
    odd = Odd(
        times,
        cap=draw(st.sampled_from([3, 5, 10, 25, 10**9])),
        inclusive=draw(st.booleans()),
        digits=6,
        skew=timedelta(seconds=draw(st.sampled_from([-86400, -30, 0, 30, 86400]))),
        before_page=happen,
    )
    odd.extra = {}
    odd.fixed = fixed
    return odd


@pytest.fixture(scope="module")
def vendor_url() -> Iterator[tuple[list[Odd], str]]:
    """One socket for all histories; the list holds the one that is served."""
    served: list[Odd] = []

    class Current(Odd):
        def page(self, query: dict[str, str]) -> tuple[int, Any]:
            self.skew = served[0].skew
            return served[0].page(query)

    with listening(Current()) as url:
        yield served, url


@settings(max_examples=100, deadline=None)
@given(history=histories())
def test_no_history_makes_what_was_there_throughout_missing(history: Odd, vendor_url: tuple[list[Odd], str]) -> None:
    served, url = vendor_url
    served[:] = [history]
    fixed = sorted(history.fixed)
    search, hook = Search([*who(fixed), {"email": "x@example.com"}]), hook_at(url)
    search.prepare(hook.vendor)
    for _ in range(2):
        try:
            asyncio.run(hook.client.look_once(search))
        except VendorUnavailable as error:
            crowded = max(Counter(history.times.values()).values()) >= min(history.cap, len(history.times))
            assert crowded, error  # noqa: PT017  only one kind of history may end so
            return
        assert search.missing() == who(["x"])
    assert len(history.requests) < 250


@st.composite
def histories_of_long_entries(draw: st.DrawFn) -> Odd:
    """Entries of every length, each at a moment of its own, of which some are updated while they are read."""
    at = NOW - timedelta(hours=draw(st.integers(1, 50)))
    times: dict[str, datetime] = {}
    extra: dict[str, dict[str, str]] = {}
    gaps = st.sampled_from([MS, MS * 3, timedelta(seconds=1), timedelta(minutes=7)])
    lengths = st.sampled_from([0, 0, 3_000, 9_000, 12_000, 19_000, 25_000])
    for n, (gap, length) in enumerate(draw(st.lists(st.tuples(gaps, lengths), min_size=1, max_size=25))):
        at += gap
        times[f"e{n}"] = at
        extra[f"e{n}"] = of_length(f"e{n}", length)
    updates = iter(draw(st.lists(st.none() | st.sampled_from(sorted(times)), max_size=40)))

    def happen(odd: Odd) -> None:
        if (name := next(updates, None)) is not None:
            odd.times[name] = datetime.now(UTC)

    return Odd(times, inclusive=draw(st.booleans()), digits=6, before_page=happen, extra=extra)


@settings(max_examples=40, deadline=None)
@given(history=histories_of_long_entries())
def test_no_length_of_an_entry_makes_another_one_missing(history: Odd, vendor_url: tuple[list[Odd], str]) -> None:
    served, url = vendor_url
    served[:] = [history]
    short = [name for name, extra in history.extra.items() if len(extra["entry_data"]) < 18_000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "MAX_ANSWER_BYTES", SHORT_ANSWERS)
        search, hook = Search([*who(short), {"email": "x@example.com"}]), hook_at(url)
        search.prepare(hook.vendor)
        try:
            asyncio.run(hook.client.look_once(search))
        except VendorUnavailable as error:
            assert "one moment" in str(error)  # noqa: PT017  two were updated in one microsecond
            return
    assert search.missing() == who(["x"])
