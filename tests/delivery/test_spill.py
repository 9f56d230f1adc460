"""Events that are kept for a while: bounded memory, a file bounded by what is in it, and nothing of them changed."""

from __future__ import annotations

import enum
import gc
import os
import random
import resource
import stat
import tempfile
import tracemalloc
from collections import deque
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from airflow_provider_events.delivery import spill
from airflow_provider_events.delivery.dead_letter import rejected_line
from airflow_provider_events.delivery.encoding import EncodedRow
from airflow_provider_events.delivery.spill import Kept, Spill
from airflow_provider_events.events import Event, Record, Rejection
from airflow_provider_events.exceptions import DeliveryError


def item(row: int, properties: dict[str, Any] | None = None, data: Any = None, size: int = 1) -> EncodedRow:
    return EncodedRow(
        row, f"key {row}", b"x" * size, Record(row, Event("e", {"id": row}, None, properties or {}), data)
    )


@pytest.fixture
def all_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "MEMORY_BYTES", 0)


@pytest.fixture
def kept() -> Iterator[Spill]:
    kept = Spill()
    yield kept
    kept.close()


def on_disk(kept: Spill) -> int:
    return 0 if kept._file is None else os.fstat(kept._file.fileno()).st_size


class Colour(enum.Enum):
    """Cannot be pickled by name: it is not where it says it is."""

    RED = "red"


class Stubborn(str):
    """Refuses to be pickled."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot be pickled")


class Awkward:
    """A column's value that can do nothing at all."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot be pickled")

    def __str__(self) -> str:
        raise ValueError("cannot be printed")


Colour.__qualname__ = "Nowhere.Colour"
ZONE = timezone(timedelta(hours=5, minutes=30))
MOMENT = datetime(2026, 3, 1, 9, 30, 0, 123456, tzinfo=ZONE)
EVENTS = [
    Event("paid", {"id": "ada", "phone": 44}, MOMENT, {"n": 1, "nested": {"a": [1, None, True, "ü"]}}, "the-id"),
    Event("paid", {"id": 2**200}, None, {"price": Decimal("10.50"), "count": Decimal(3), "at": MOMENT}),
    Event("paid", {"id": "a\nb"}, None, {"raw": b"\x00\n\xff", "view": memoryview(b"\n"), "day": date(2026, 3, 1)}),
    Event("paid", {"id": "x"}, None, {"text": Stubborn("yes"), "uuid": UUID(int=7), "long": "x" * 100_000}),
    Event("paid", {"id": "x"}, None, {"colour": Colour.RED}),
]
ROWS = [
    None,
    {
        "n": 1,
        "huge": 2**100,
        "odd": Colour.RED,
        "price": Decimal("1.5"),
        "view": memoryview(b"\x01"),
        "f": float("nan"),
    },
    {"nothing": Awkward(), "text": Stubborn("a\nb"), "lone": "\ud800"},
]


@pytest.mark.usefixtures("all_on_disk")
@pytest.mark.parametrize("data", ROWS, ids=["none", "odd", "awkward"])
@pytest.mark.parametrize("event", EVENTS, ids=["plain", "long id", "binary", "texts", "unknown"])
def test_an_event_comes_back_as_it_would_be_sent_and_accounted_for(event: Event, data: Any, kept: Spill) -> None:
    given = EncodedRow(3, 17, b"{\n\x00}", Record(3, event, data, None, '{"name": "paid"}'))
    back = kept.read(kept.keep(given))
    assert (back.row, back.fragment, back.record.row) == (3, given.fragment, 3)
    assert back.record.event
    assert (back.record.event.identity, back.record.event.timestamp) == (event.identity, event.timestamp)
    rejection = Rejection(3, "code", "reason")
    was, now = (rejected_line("plain", one.record, rejection) for one in (given, back))
    assert was == now


@pytest.mark.usefixtures("all_on_disk")
def test_the_file_is_as_long_as_what_is_in_it(kept: Spill, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes and goes in whatever order, and without growing from try to try."""
    monkeypatch.setattr(spill, "LEAST_GARBAGE_BYTES", 10_000)
    chance = random.Random(5)
    live: dict[int, Kept] = {}
    for row in range(1, 5000):
        live[row] = kept.keep(item(row, {"note": "x" * chance.randrange(500)}))
        while live and chance.random() < (0.45 if row < 2500 else 0.55):
            kept.drop(live.pop(chance.choice(list(live))))
        held = sum(one.size for one in live.values())
        assert on_disk(kept) <= 2 * held + 10_000
    for row, one in live.items():
        assert kept.read(one).record.row == row
    for one in live.values():
        kept.drop(one)
    assert on_disk(kept) == 0


def test_what_is_read_again_and_again_makes_the_file_no_longer(all_on_disk: None, kept: Spill) -> None:
    one = kept.keep(item(1))
    size = on_disk(kept)
    for _ in range(100):
        kept.read(one)
    assert on_disk(kept) == size > 0


def test_memory_is_used_first_and_again_when_there_is_room(kept: Spill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "MEMORY_BYTES", 10_100)
    held = [kept.keep(item(row)) for row in range(1, 21)]
    assert [one.row is not None for one in held] == [True] * 10 + [False] * 10
    kept.drop(held[0])
    assert kept.keep(item(21)).row is not None
    assert kept.keep(item(22)).row is None


def test_memory_is_bounded_whatever_is_kept(kept: Spill, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand events of 4 KiB: 40 MB, of which a part is in memory."""
    monkeypatch.setattr(spill, "MEMORY_BYTES", 3_000_000)
    gc.collect()
    tracemalloc.start()
    held = [kept.keep(item(row, {"note": f"{row:02048}"}, size=2048)) for row in range(10_000)]
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 9_000_000, used
    assert kept.read(held[-1]).record.row == 9_999


@pytest.mark.usefixtures("all_on_disk")
def test_nobody_else_can_read_the_file_and_it_is_gone_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = os.umask(0)
    try:
        kept = Spill()
        kept.keep(item(1))
    finally:
        os.umask(before)
    assert kept._file
    status = os.fstat(kept._file.fileno())
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_nlink == 0
    assert list(tmp_path.iterdir()) == []
    kept.close()
    kept.close()


@pytest.fixture
def small_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("all_on_disk", "small_files")
def test_a_full_disk_is_an_error_in_words_that_a_retry_can_heal(kept: Spill) -> None:
    with pytest.raises(DeliveryError, match=r"cannot be kept .* \(File too large\).*TMPDIR") as caught:
        deque(map(kept.keep, (item(row, {"secret": "ada@example.com"}) for row in range(1000))), maxlen=0)
    assert caught.value.retryable
    assert "ada" not in str(caught.value)


@pytest.mark.usefixtures("all_on_disk")
def test_no_folder_for_temporary_files_is_one_as_well(kept: Spill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    with pytest.raises(DeliveryError, match="No such file or directory"):
        kept.keep(item(1))
