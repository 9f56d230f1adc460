"""The file of rejected events: what a line holds, a crash in mid-line, and the way from try to try."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]  # it has no types
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_events._compat import ObjectStoragePath
from airflow_provider_events.delivery.checkpoint import Checkpoint, OpenRows, Tally
from airflow_provider_events.delivery.dead_letter import DeadLetterFile, rejected_line
from airflow_provider_events.events import Event, Record, Rejection
from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.hooks.files import safe_name, stored_file
from airflow_provider_events.hooks.rejected import rejected_file

AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)


@pytest.fixture(scope="module", autouse=True)
def memory_store() -> None:
    """Airflow's object storage in memory, under `memory://`."""
    try:
        store: Any = import_module("airflow.sdk.io.store")
    except ImportError:  # before Airflow 3
        store = import_module("airflow.io.store")
    store.attach(protocol="memory", fs=MemoryFileSystem())


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


class Hostile:
    """Fails whatever is done with it."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Moody(Mapping[str, Any]):
    """A mapping that fails in the middle."""

    def __getitem__(self, key: str) -> Any:
        raise OSError("gone")

    def __iter__(self) -> Iterator[str]:
        yield "a"
        raise OSError("gone")

    def __len__(self) -> int:
        return 3


class NoZone(tzinfo):
    """A zone that nobody knows."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        raise ValueError("unknown")

    def dst(self, moment: datetime | None) -> timedelta:
        raise ValueError("unknown")

    def tzname(self, moment: datetime | None) -> str:
        raise ValueError("unknown")


def within_itself() -> list[Any]:
    """A list that holds itself, twice."""
    value: list[Any] = []
    value += [value, {"again": value}]
    return value


def deep(levels: int) -> Any:
    """Lists in lists."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def laughs() -> Any:
    """Lists that share their members: as JSON a million million values."""
    value: Any = "ha"
    for _ in range(40):
        value = [value, value]
    return value


UNWRITABLE = [
    2**70, -(2**70), 10**5000, "\ud800", float("nan"), float("inf"), b"\xff", memoryview(b"x"),
    memoryview(b"abcd")[::2],
    UUID(int=1), date(2026, 3, 1), Decimal("NaN"), Decimal("1E+999999"), {1: {2: {3}}}, {("amount", "sum"): 1},
    {None: 1, "None": 2, 1: 3, "1": 4, 1.5: 5}, {"\ud800": 1}, {b"x": 1}, object(), Hostile(), [Hostile()],
    {Hostile(): 1}, Moody(), {"m": Moody()}, AT, AT.replace(tzinfo=NoZone()), datetime.max.replace(tzinfo=UTC),
    timedelta.max, within_itself(), deep(90), deep(100_000), {"x": deep(100_000)}, "line\nbreak\r\u2028", None, set(),
    len, float, Ellipsis, 1j, range(3), (n for n in range(3)), "x" * 1_000_000,
]  # fmt: skip


@pytest.mark.parametrize("value", UNWRITABLE, ids=lambda value: type(value).__name__)
def test_whatever_a_row_holds_makes_exactly_one_line_of_json(value: Any) -> None:
    for text in (
        line(1, {"column": value}),
        line(1, value),
        line(1, {"a": 1, "b": [value]}),
        line(1, None, Event("e", {"registered": "c"}, AT, {"p": value})),
        line(1, None, Event("e", {"registered": "c"}, AT, {"p": {"q": [value]}})),
    ):
        assert text.count(b"\n") == 1
        written = orjson.loads(text)
        assert (written["row"], written["code"], written["reason"]) == (1, "invalid", "missing")


def test_what_cannot_be_written_at_all_is_a_line_without_the_data() -> None:
    written = json.loads(line(1, {"column": laughs()}))
    assert (written["event"], written["data"], written["reason"]) == (None, None, "missing")


@pytest.mark.parametrize("name", ["code", "reason", "field"])
@pytest.mark.parametrize("value", ["\ud800", 2**70, Hostile(), b"x"], ids=lambda value: type(value).__name__)
def test_an_odd_reason_ends_no_delivery(name: str, value: Any) -> None:
    given: dict[str, Any] = {"row": 1, "code": "c", "reason": "r", "field": None, name: value}
    written = orjson.loads(rejected_line("bloomreach", Record(1, None, {"a": 1}), Rejection(**given)))
    assert written["data"] == {"a": 1}


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary() | st.decimals()
    | st.datetimes(timezones=st.none() | st.just(UTC)) | st.dates() | st.timedeltas() | st.complex_numbers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()) | st.integers() | st.tuples(), inner)
    | st.tuples(inner),
    max_leaves=20,
))  # fmt: skip
def test_any_value_makes_one_line(value: Any) -> None:
    text = line(1, {"column": value})
    assert text.count(b"\n") == 1
    assert orjson.loads(text)["data"].keys() == {"column"}


# -- from try to try -------------------------------------------------------------------------------------------------


def test_a_later_try_takes_over_the_rows_that_its_checkpoint_counts() -> None:
    """Open rows are decided again, and rows behind the checkpoint were decided after its last save."""
    files: dict[str, bytes] = {"one": b"".join(line(row) for row in (2, 4, 6, 11, 12))}
    dead_letters = DeadLetterFile(Files("two", files))
    dead_letters.adopt(checkpoint(10, 4, 9, uri="one"))
    dead_letters.write(line(4))
    dead_letters.write(line(12))
    dead_letters.close()
    assert rows_in(files["two"]) == [2, 6, 4, 12]


def test_half_a_line_of_a_crash_is_left_out() -> None:
    files = {"one": line(1) + line(2)[:20]}
    dead_letters = DeadLetterFile(Files("two", files))
    dead_letters.adopt(checkpoint(10, uri="one"))
    dead_letters.close()
    assert rows_in(files["two"]) == [1]


@pytest.mark.parametrize(
    "junk", [b"\xff\xfe\n", b"[]\n", b'"x"\n', b"{}\n", b'{"row": null}\n', b'{"row": "1"}\n', b"\n"]
)
def test_lines_that_are_none_are_left_out(junk: bytes) -> None:
    files = {"one": junk + line(1)}
    dead_letters = DeadLetterFile(Files("two", files))
    dead_letters.adopt(checkpoint(10, uri="one"))
    dead_letters.close()
    assert rows_in(files["two"]) == [1]


def test_a_file_that_is_gone_is_no_error() -> None:
    files: dict[str, bytes] = {}
    dead_letters = DeadLetterFile(Files("two", files))
    dead_letters.adopt(checkpoint(10, uri="one"))
    dead_letters.close()
    assert files == {}


def test_a_file_without_a_line_is_removed() -> None:
    files: dict[str, bytes] = {}
    DeadLetterFile(Files("one", files)).close()
    assert files == {}


def test_once_a_write_has_failed_no_later_one_pretends_that_all_is_well() -> None:
    """Otherwise the next checkpoint would count rows as rejected that are in no file."""
    files: dict[str, bytes] = {}
    storage = Files("one", files, room=len(line(1)))
    dead_letters = DeadLetterFile(storage)
    dead_letters.write(line(1))
    dead_letters.flush()
    dead_letters.write(line(2))
    with pytest.raises(OSError, match="No space left"):
        dead_letters.flush()
    with pytest.raises(OSError, match="No space left"):
        dead_letters.flush()
    with pytest.raises(OSError, match="No space left"):
        dead_letters.close()


# -- real files ------------------------------------------------------------------------------------------------------


def written(path: str, name: str, *rows: int) -> str:
    """A file of rejected rows, as a delivery leaves it; its URI."""
    dead_letters = DeadLetterFile(rejected_file(path, name), "bloomreach")
    for row in rows:
        dead_letters.write(line(row))
        dead_letters.flush()
    dead_letters.close()
    return dead_letters.uri


def test_lines_are_appended_and_each_try_has_a_file_of_its_own(tmp_path: Path) -> None:
    first = written(str(tmp_path), "dag/run/task/try_1.jsonl", 1, 2)
    later = DeadLetterFile(rejected_file(str(tmp_path), "dag/run/task/try_2.jsonl"), "bloomreach")
    later.adopt(checkpoint(1, uri=first))
    later.write(line(3))
    later.close()
    assert rows_in((tmp_path / "dag/run/task/try_1.jsonl").read_bytes()) == [1, 2]
    assert rows_in((tmp_path / "dag/run/task/try_2.jsonl").read_bytes()) == [1, 3]


@pytest.mark.parametrize("scheme", ["", "file://", "memory:/"])
@pytest.mark.parametrize("path", ["", "rejected.jsonl"])
def test_no_delivery_writes_over_what_another_one_has_written(scheme: str, path: str, tmp_path: Path) -> None:
    """Runs, tasks, mapped instances, tries, and the same try once more (`airflow tasks test`)."""
    folder = f"{scheme}{tmp_path}/{path}"
    names = [f"{dag}/{run}/t/{n}/try_{n}.jsonl" for dag in "ab" for run in ("x", "y" * 250) for n in range(2)] * 2
    uris = [written(folder, name, number) for number, name in enumerate(names, start=1)]
    assert len(set(uris)) == len(names)
    for number, uri in enumerate(uris, start=1):
        assert rows_in(ObjectStoragePath(uri).read_bytes()) == [number], uri
    if path:
        assert uris[0].endswith("/rejected.jsonl")
        assert uris[1].endswith("/rejected.a.x.t.1.try_1.jsonl")
    else:
        assert uris[0].endswith("/a/x/t/0/try_0.jsonl")
        assert uris[len(names) // 2].endswith("/a/x/t/0/try_0.2.jsonl")


def test_many_that_begin_at_once_have_a_file_each(tmp_path: Path) -> None:
    path = str(tmp_path / "rejected.jsonl")
    with ThreadPoolExecutor(16) as pool:
        uris = list(pool.map(lambda row: written(path, "d/r/t/try_1.jsonl", row), range(1, 65)))
    assert sorted(row for uri in uris for row in rows_in(Path(uri).read_bytes())) == list(range(1, 65))


def test_a_folder_that_cannot_be_written_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"rejected_path: cannot write .*file"):
        rejected_file(str(tmp_path / "file"), "name.jsonl")


@pytest.mark.parametrize("planted", ["d", "d/r", "d/r/t", "d/r/t/try_1.jsonl"])
def test_no_link_below_the_folder_is_followed(planted: str, tmp_path: Path) -> None:
    """Somebody who may write to the folder must not lead a task to a file of the worker's."""
    victim = tmp_path / "victim"
    (tmp_path / "rejected" / planted).parent.mkdir(parents=True)
    if planted.endswith(".jsonl"):
        victim.write_text("precious")
    else:
        victim.mkdir()
    (tmp_path / "rejected" / planted).symlink_to(victim)
    try:
        assert written(str(tmp_path / "rejected"), "d/r/t/try_1.jsonl", 1).endswith("try_1.2.jsonl")
    except ConfigurationError:
        assert not planted.endswith(".jsonl")
    assert victim.read_text() == "precious" if victim.is_file() else not list(victim.iterdir())


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "rejected").symlink_to(tmp_path / "disk")
    written(str(tmp_path / "rejected"), "d/r/t/try_1.jsonl", 1)
    assert (tmp_path / "disk/d/r/t/try_1.jsonl").exists()


@pytest.mark.parametrize(
    "uri",
    [
        "{}/other/try_1.jsonl", "{}/d/r/t/../../../secret.jsonl", "{}/d/r/t/secret.txt", "/etc/passwd", "",
        "file://{}/secret.jsonl", "s3://bucket/secret.jsonl", "secret.jsonl", "{}/d/r/t/", "\x00.jsonl", ".jsonl",
    ],
)  # fmt: skip
def test_a_checkpoint_cannot_bring_a_file_from_elsewhere_into_ours(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("other/try_1.jsonl", "secret.jsonl", "d/r/t/secret.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(line(1))
    dead_letters = DeadLetterFile(rejected_file(str(tmp_path), "d/r/t/try_2.jsonl"), "bloomreach")
    dead_letters.adopt(checkpoint(10, uri=uri.format(tmp_path)))
    dead_letters.write(line(11))
    dead_letters.close()
    assert rows_in((tmp_path / "d/r/t/try_2.jsonl").read_bytes()) == [11]
    assert "is not in this try's folder" in caplog.text


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"version": 0}, {"version": True}, {"version": None}, {"vendor": "webengage"}, {"vendor": None},
     {"row": -1}, {"row": 0}, {"row": True}],
)  # fmt: skip
def test_only_lines_of_our_version_and_vendor_are_taken_over(change: dict[str, Any]) -> None:
    foreign = json.dumps({**json.loads(line(1)), **change}).encode() + b"\n"
    files = {"one": foreign + line(2)}
    dead_letters = DeadLetterFile(Files("two", files), "bloomreach")
    dead_letters.adopt(checkpoint(10, uri="one"))
    dead_letters.close()
    assert rows_in(files["two"]) == [2]


# -- who may read it -------------------------------------------------------------------------------------------------


def modes(folder: Path) -> dict[str, str]:
    """Permissions of what is in a folder."""
    return {str(path.relative_to(folder)): f"{path.stat().st_mode & 0o7777:o}" for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("permissions", "file", "folder"), [(None, "600", "700"), ("0640", "640", "750"), ("0660", "660", "770")]
)
def test_local_files_are_for_their_owner_alone_unless_the_group_is_let_in(
    permissions: str | None, file: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if permissions:
        monkeypatch.setenv("AIRFLOW__EVENTS__FILE_PERMISSIONS", permissions)
    for umask in (0o000, 0o022, 0o077):
        before = os.umask(umask)
        try:
            written(str(tmp_path / f"{umask}" / "new"), "d/try_1.jsonl", 1)
        finally:
            os.umask(before)
        assert modes(tmp_path / f"{umask}") == {"new": folder, "new/d": folder, "new/d/try_1.jsonl": file}


def test_a_group_is_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the set-group-id bit is how workers and triggerers share files."""
    monkeypatch.setenv("AIRFLOW__EVENTS__FILE_PERMISSIONS", "0660")
    tmp_path.chmod(0o2770)
    written(str(tmp_path), "d/try_1.jsonl", 1)
    assert modes(tmp_path) == {"d": "2770", "d/try_1.jsonl": "660"}


@pytest.mark.parametrize("permissions", ["0644", "0666", "600", "rw", "0400"])
def test_permissions_that_let_everybody_in_are_refused(
    permissions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__EVENTS__FILE_PERMISSIONS", permissions)
    with pytest.raises(ConfigurationError, match=r"file_permissions has to be one of 0600, 0640, 0660"):
        written(str(tmp_path), "d/try_1.jsonl", 1)


# -- names -----------------------------------------------------------------------------------------------------------

NAMES = ["a:b", "a+b", "a_b", "a b", "a%3Ab", "a/b", "..", ".", "", "...", "%2E%2E", "a\x00b", "\ud800", "é", "e\u0301",
         "x" * 250, "x" * 251, "€" * 250, "€" * 249 + "$", "CON", "a\\b", "a*b", "~", "%"]  # fmt: skip


def test_no_two_texts_share_a_name_and_none_leaves_its_folder() -> None:
    names = [safe_name(text) for text in NAMES]
    assert len(set(names)) == len(NAMES)
    for name in names:
        assert name
        assert name.isascii()
        assert "/" not in name
        assert name.strip(".")
        assert len(name) <= 200


@given(st.lists(st.text(), unique=True, max_size=20))
def test_names_are_one_to_one(texts: list[str]) -> None:
    assert len({safe_name(text) for text in texts}) == len(texts)


@pytest.mark.parametrize("scheme", ["", "memory:/"])
def test_every_name_is_one_that_stores_take(scheme: str, tmp_path: Path) -> None:
    for text in NAMES:
        file = stored_file(f"{scheme}{tmp_path}", f"{safe_name(text)}/{safe_name(text)}.json")
        file.create()
        file.replace(text.encode(errors="surrogatepass"))
    for text in NAMES:
        file = stored_file(f"{scheme}{tmp_path}", f"{safe_name(text)}/{safe_name(text)}.json")
        assert file.read() == text.encode(errors="surrogatepass")


def test_a_store_that_cannot_append_gets_the_whole_object_anew() -> None:
    """As object stores do it; Airflow's own `memory://` stands for them."""
    file = rejected_file("memory://bucket/appended.jsonl", "d/r/t/try_1.jsonl")
    for row in (1, 2, 3):
        file.append(line(row))
    assert rows_in(ObjectStoragePath(file.uri).read_bytes()) == [1, 2, 3]
    file.remove()
    assert not ObjectStoragePath(file.uri).exists()
