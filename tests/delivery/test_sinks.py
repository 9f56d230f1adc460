"""The file of rejected events: what a line holds, a crash in mid-line, and the way from try to try."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from airflow_provider_events.delivery.checkpoint import Checkpoint, OpenRows, Tally
from airflow_provider_events.delivery.sinks import RejectedSink, rejected_line
from airflow_provider_events.events import Event, Record, Rejection
from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.hooks.rejected import ObjectFile, rejected_file, writable

AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)


def line(row: int, data: Any = None, event: Event | None = None) -> bytes:
    """A line of the file."""
    return rejected_line("bloomreach", Record(row, event, data), Rejection(row, "invalid", "missing", "name"))


def checkpoint(position: int, *still_open: int, uri: str | None) -> Checkpoint:
    """A checkpoint that counts all rows but the open ones."""
    groups = tuple((OpenRows(row, row),) for row in still_open)
    return Checkpoint("f", position, "0" * 32, Tally(position - len(still_open)), AT, None, groups, (0, None), uri)


class Files:
    """Files in memory, one of which is this one."""

    def __init__(self, uri: str, files: dict[str, bytes], room: int | None = None) -> None:
        self.uri = uri
        self.files = files
        self.room = room
        files.setdefault(uri, b"")

    def append(self, data: bytes) -> None:
        """See `Storage.append`; a full disk takes what fits."""
        if self.room is not None and len(self.files[self.uri]) + len(data) > self.room:
            self.files[self.uri] += data[: max(0, self.room - len(self.files[self.uri]))]
            raise OSError(28, "No space left on device")
        self.files[self.uri] += data

    def lines_of(self, uri: str) -> Iterable[bytes]:
        """See `Storage.lines_of`."""
        return self.files.get(uri, b"").splitlines(keepends=True)

    def remove(self) -> None:
        """See `Storage.remove`."""
        del self.files[self.uri]


def rows_in(data: bytes) -> list[int]:
    """The rows of the whole lines."""
    return [json.loads(text)["row"] for text in data.splitlines()]


# -- a line ----------------------------------------------------------------------------------------------------------


def test_a_line_holds_all_that_is_needed_to_correct_and_send_it_again() -> None:
    event = Event("order_paid", {"registered": "c-1"}, AT, {"total": 39.8, "at": AT}, "order-1")
    record = Record(7, event, {"order_id": 1, "total": Decimal("39.80"), "note": b"\x00"})
    written = json.loads(rejected_line("bloomreach", record, Rejection(7, "E1", "too old", None)))
    assert written == {
        "version": 1,
        "vendor": "bloomreach",
        "row": 7,
        "code": "E1",
        "field": None,
        "reason": "too old",
        "event": {
            "name": "order_paid",
            "identity": {"registered": "c-1"},
            "timestamp": "2026-03-01T09:30:00+00:00",
            "properties": {"total": 39.8, "at": "2026-03-01T09:30:00.000Z"},
            "id": "order-1",
        },
        "data": {"order_id": 1, "total": "39.80", "note": "AA=="},
    }
    assert Event.from_dict(written["event"]) == Event.from_dict({**written["event"], "timestamp": AT}), (
        "the event of a line is an event again"
    )


@pytest.mark.parametrize(
    "value",
    [
        2**70, -(2**70), "\ud800", float("nan"), float("inf"), b"\xff", memoryview(b"x"), UUID(int=1), date(2026, 3, 1),
        Decimal("NaN"), {1: {2: {3}}}, object(), AT, "line\nbreak\r\u2028", None,
    ],
)  # fmt: skip
def test_whatever_a_column_holds_makes_exactly_one_line_of_json(value: Any) -> None:
    text = line(1, {"column": value})
    assert text.count(b"\n") == 1
    assert json.loads(text)["row"] == 1


# -- from try to try -------------------------------------------------------------------------------------------------


def test_a_later_try_takes_over_the_rows_that_its_checkpoint_counts() -> None:
    """Open rows are decided again, and rows behind the checkpoint were decided after its last save."""
    files: dict[str, bytes] = {"one": b"".join(line(row) for row in (2, 4, 6, 11, 12))}
    sink = RejectedSink(Files("two", files))
    sink.adopt(checkpoint(10, 4, 9, uri="one"))
    sink.write(line(4))
    sink.write(line(12))
    sink.close()
    assert rows_in(files["two"]) == [2, 6, 4, 12]


def test_half_a_line_of_a_crash_is_left_out() -> None:
    files = {"one": line(1) + line(2)[:20]}
    sink = RejectedSink(Files("two", files))
    sink.adopt(checkpoint(10, uri="one"))
    sink.close()
    assert rows_in(files["two"]) == [1]


@pytest.mark.parametrize(
    "junk", [b"\xff\xfe\n", b"[]\n", b'"x"\n', b"{}\n", b'{"row": null}\n', b'{"row": "1"}\n', b"\n"]
)
def test_lines_that_are_none_are_left_out(junk: bytes) -> None:
    files = {"one": junk + line(1)}
    sink = RejectedSink(Files("two", files))
    sink.adopt(checkpoint(10, uri="one"))
    sink.close()
    assert rows_in(files["two"]) == [1]


def test_a_file_that_is_gone_is_no_error() -> None:
    files: dict[str, bytes] = {}
    sink = RejectedSink(Files("two", files))
    sink.adopt(checkpoint(10, uri="one"))
    sink.close()
    assert files == {}


def test_a_file_without_a_line_is_removed() -> None:
    files: dict[str, bytes] = {}
    RejectedSink(Files("one", files)).close()
    assert files == {}


def test_once_a_write_has_failed_no_later_one_pretends_that_all_is_well() -> None:
    """Otherwise the next checkpoint would count rows as rejected that are in no file."""
    files: dict[str, bytes] = {}
    storage = Files("one", files, room=len(line(1)))
    sink = RejectedSink(storage)
    sink.write(line(1))
    sink.flush()
    sink.write(line(2))
    with pytest.raises(OSError, match="No space left"):
        sink.flush()
    with pytest.raises(OSError, match="No space left"):
        sink.flush()
    with pytest.raises(OSError, match="No space left"):
        sink.close()


# -- real files ------------------------------------------------------------------------------------------------------


def test_lines_are_appended_and_each_try_has_a_file_of_its_own(tmp_path: Path) -> None:
    first = writable(rejected_file(str(tmp_path), "dag/run/task/try_1.jsonl"), "rejected_path")
    sink = RejectedSink(first)
    for row in (1, 2):
        sink.write(line(row))
        sink.flush()
    second = writable(rejected_file(str(tmp_path), "dag/run/task/try_2.jsonl", 2), "rejected_path")
    later = RejectedSink(second)
    later.adopt(checkpoint(1, uri=first.uri))
    later.write(line(3))
    later.close()
    assert rows_in((tmp_path / "dag/run/task/try_1.jsonl").read_bytes()) == [1, 2]
    assert rows_in((tmp_path / "dag/run/task/try_2.jsonl").read_bytes()) == [1, 3]


def test_a_path_that_names_a_file_keeps_the_earlier_tries() -> None:
    names = [str(rejected_file("/x/rejected.jsonl", "ignored", attempt)) for attempt in (1, 2)]
    assert names[0].endswith("/x/rejected.jsonl")
    assert names[1].endswith("/x/rejected.try_2.jsonl")


def test_a_folder_that_cannot_be_written_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"rejected_path: cannot write .*file"):
        writable(rejected_file(str(tmp_path / "file"), "name.jsonl"), "rejected_path")


def test_a_store_that_cannot_append_gets_the_whole_object_anew() -> None:
    """As object stores do it; Airflow's own `memory://` stands for them."""
    from airflow_provider_events._compat import ObjectStoragePath

    path = ObjectStoragePath("memory://bucket/rejected.jsonl")
    file = writable(path, "rejected_path")
    assert isinstance(file, ObjectFile)
    for row in (1, 2, 3):
        file.append(line(row))
    assert rows_in(path.read_bytes()) == [1, 2, 3]
    file.remove()
    assert not path.exists()
