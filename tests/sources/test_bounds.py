"""Moments as bounds: windows one after the other leave no row out and read none twice, whatever the column holds."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_events.sources.bounds import ColumnKind, EpochUnit, TextTimes, local_bound

BUCHAREST = ZoneInfo("Europe/Bucharest")
ZONES = [
    "UTC",
    "Europe/Bucharest",
    "America/New_York",
    "America/Havana",  # goes back at one in the night, to midnight
    "America/Sao_Paulo",  # did so at midnight, to the day before
    "Asia/Beirut",  # goes forward at midnight
    "Australia/Lord_Howe",  # by half an hour
    "Antarctica/Troll",  # by two hours
    "Asia/Kathmandu",
]
MOMENTS = st.datetimes(datetime(2010, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))
YEAR = datetime(2017, 1, 1, tzinfo=UTC)


def autumn(hour: int, minute: int = 0) -> datetime:
    """On the day on which the clocks of Bucharest go back from four to three, at one in the night of UTC."""
    return datetime(2026, 10, 25, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "clock"),
    [
        (autumn(0) - timedelta(minutes=1), "2026-10-25 02:59:00"),
        (autumn(0), "2026-10-25 03:00:00"),
        (autumn(0, 15), "2026-10-25 03:00:00"),  # comes again
        (autumn(0, 59), "2026-10-25 03:00:00"),
        (autumn(1), "2026-10-25 03:00:00"),
        (autumn(1, 15), "2026-10-25 03:15:00"),
        (autumn(2), "2026-10-25 04:00:00"),
        (datetime(2026, 3, 29, 0, 59, tzinfo=UTC), "2026-03-29 02:59:00"),
        (datetime(2026, 3, 29, 1, 0, tzinfo=UTC), "2026-03-29 04:00:00"),
    ],
)
def test_the_clock_of_a_zone_never_goes_back(moment: datetime, clock: str) -> None:
    assert str(local_bound(moment, BUCHAREST)) == clock


@settings(deadline=None)
@given(
    st.sampled_from(ZONES),
    st.lists(MOMENTS, min_size=2, max_size=12, unique=True),
    st.integers(1, 120),
    MOMENTS,
)
def test_a_row_is_read_by_one_window_that_ends_after_it_was_written(
    zone_name: str, cuts: list[datetime], minutes: int, around: datetime
) -> None:
    zone = ZoneInfo(zone_name)
    step = timedelta(minutes=minutes)
    cuts = sorted({*cuts, *(around + n * step for n in range(-20, 20))})
    bounds = [local_bound(cut, zone) for cut in cuts]
    assert bounds == sorted(bounds)
    for written in (cuts[0] + timedelta(seconds=1), around, around + step / 3):
        clock = written.astimezone(zone).replace(tzinfo=None, fold=0)
        ends = [end for (end, (low, high)) in zip(cuts[1:], pairwise(bounds), strict=True) if low <= clock < high]
        assert len(ends) <= 1
        if cuts[0] <= written < cuts[-1] - timedelta(hours=3):  # an hour that comes twice is read the second time
            assert ends
        assert all(end > written for end in ends)


@pytest.mark.parametrize("zone_name", ZONES)
def test_every_hour_of_a_year_is_in_one_hourly_window(zone_name: str) -> None:
    zone = ZoneInfo(zone_name)
    hours = [YEAR + timedelta(hours=n) for n in range(366 * 24)]
    bounds = [local_bound(hour, zone) for hour in hours]
    assert bounds == sorted(bounds)
    for written, (low, high), (next_low, next_high) in zip(hours, pairwise(bounds), pairwise(bounds[1:]), strict=False):
        clock = (written + timedelta(minutes=7)).astimezone(zone).replace(tzinfo=None)
        windows = [low <= clock < high, next_low <= clock < next_high]
        assert sum(windows) == 1 or zone_name == "Antarctica/Troll"


SHAPES = {
    "2026-10-25 09:30:00": (TextTimes(" ", ""), ColumnKind.LOCAL, "2026-10-25 11:15:00"),
    "2026-10-25T09:30:00.5": (TextTimes("T", ""), ColumnKind.LOCAL, "2026-10-25T11:15:00"),
    "2026-10-25T09:30:00Z": (TextTimes("T", "Z"), ColumnKind.MOMENT, "2026-10-25T09:15:00"),
    "2026-10-25 09:30:00.123456+02:00": (TextTimes(" ", "+02:00"), ColumnKind.MOMENT, "2026-10-25 11:15:00"),
    "2026-10-25": (TextTimes("", ""), ColumnKind.DAY, "2026-10-25"),
}


@pytest.mark.parametrize("text", SHAPES)
def test_a_text_column_is_compared_to_text_of_its_shape(text: str) -> None:
    shape, kind, bound = SHAPES[text]
    assert (TextTimes.of(text), shape.kind) == (shape, kind)
    assert shape.bound(autumn(9, 15), BUCHAREST) == bound


@pytest.mark.parametrize(
    "text", ["", "yesterday", "25.10.2026", "2026-10-25 09:30", "2026-10-25T09:30:00 UTC", "1793055600"]
)
def test_other_texts_have_no_shape(text: str) -> None:
    assert TextTimes.of(text) is None


@given(st.sampled_from([" ", "T"]), st.sampled_from(["", "Z", "+00:00", "-05:30"]), MOMENTS, MOMENTS, st.integers(0, 6))
def test_texts_sort_as_their_times(
    separator: str, suffix: str, moment: datetime, written: datetime, digits: int
) -> None:
    shape = TextTimes(separator, suffix)
    offset = datetime.fromisoformat(f"2000-01-01T00:00:00{suffix or '+00:00'}").tzinfo
    written = written.replace(microsecond=written.microsecond // 10 ** (6 - digits) * 10 ** (6 - digits))
    fraction = f".{written.microsecond:06}"[: digits + 1] if digits else ""
    text = written.astimezone(offset).strftime(f"%Y-%m-%d{separator}%H:%M:%S") + fraction + suffix
    assert TextTimes.of(text) == shape
    assert (text >= shape.bound(moment, UTC)) == (written >= moment.replace(microsecond=0))


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("2026-10-25 09:30:00", False),
        ("2026-10-25 09:30:00.25", False),
        ("2026-10-25T09:30:00", True),
        ("2026-10-25 09:30:00Z", True),
        ("2026-10-25 09:30:00+02:00", True),
        ("2026-10-25 09:30:00.", True),
        ("2026-10-25 09:30:00.2.5", True),
        ("2026-10-25 09:30:0012", True),
        ("2026-10-25", True),
        ("yesterday", True),
        (1793055600, True),
        (b"2026-10-25 09:30:00", True),
    ],
)
def test_values_of_another_shape_are_found_by_the_database(text: Any, other: bool) -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE q (at)")
    database.execute("INSERT INTO q VALUES (?)", [text])
    condition = TextTimes(" ", "").others('q."at"')
    assert database.execute(f"SELECT COUNT(*) FROM q WHERE {condition}").fetchone() == (int(other),)


@pytest.mark.parametrize("unit", EpochUnit)
def test_numbers_are_read_in_the_unit_in_which_all_of_them_are_times(unit: EpochUnit) -> None:
    first, last = 1_700_000_000 * unit.value, 1_800_000_000 * unit.value
    assert EpochUnit.of(first, last) is unit
    assert EpochUnit.of(float(first)) is unit
    assert EpochUnit.of(0, last) is None
    assert EpochUnit.of(first, last * 1000) is None
    assert unit.bound(datetime(2026, 10, 25, 0, 0, 0, 500_000, tzinfo=UTC)) == 1_792_886_400.5 * unit.value
