"""The trigger by itself, against the sandbox: as a triggerer runs it, many on one event loop."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import subprocess
import sys
import time
import zlib
from base64 import b64encode
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_events.exceptions import SourceError
from airflow_provider_events.lookups.search import Search
from airflow_provider_events.sandbox import Sandbox
from airflow_provider_events.triggers.entry import EntryTrigger
from airflow_provider_events.triggers.waiting_list import WaitingList, pack, unpack
from tests.entries.vendors import PROFILE, VENDORS, add, connection, identity, lookups
from tests.until import until

pytestmark = pytest.mark.airflow

Event = dict[str, Any]


@pytest.fixture(autouse=True)
def vendors(events_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """Connections that allow look-ups."""
    for vendor in VENDORS:
        monkeypatch.setenv(f"AIRFLOW_CONN_{vendor.upper()}_DEFAULT", connection(events_sandbox, vendor))
    return events_sandbox


def trigger(vendor: str, names: list[str], *, seconds: float = 10, **arguments: Any) -> EntryTrigger:
    """A trigger for these customers, that gives up after `seconds`."""
    wanted = [identity(vendor, name) for name in names]
    given = {
        "conn_id": f"{vendor}_default",
        "needed": len(names),
        "deadline": time.time() + seconds,
        "interval_seconds": 1,
        "identities": pack(wanted),
        **arguments,
    }
    return EntryTrigger(**given)


async def fired(made: EntryTrigger) -> Event:
    """Its one event."""
    events = [event.payload async for event in made.run()]
    assert len(events) == 1
    assert len(json.dumps(events)) < 1000
    payload: Event = events[0]
    return payload


def found(event: Mapping[str, Any], vendor: str, names: list[str]) -> list[bool]:
    """What the event says of each customer."""
    return Search([identity(vendor, name) for name in names], progress=event["progress"]).exist()


def test_a_trigger_survives_its_row_in_the_database() -> None:
    made = trigger("vibetrace", ["a", "b"], backoff=True, progress=None, path="file:///nowhere", tolerant=True)
    path, arguments = made.serialize()
    module, _, name = path.rpartition(".")
    again = getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments)))
    assert again.serialize() == made.serialize()
    assert "example.com" not in repr(made)
    assert "example.com" not in json.dumps(arguments)


def test_a_row_of_an_earlier_release_is_still_understood() -> None:
    made = EntryTrigger(conn_id="vibetrace_default", needed=1, deadline=0.0)
    assert made.serialize()[1]["interval_seconds"] == 60.0


@pytest.mark.parametrize("vendor", VENDORS)
async def test_present_late_and_missing(vendor: str, vendors: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    names = ["present", "late", "never"]
    add(vendors, vendor, ["present"])
    add(vendors, vendor, ["late"], appears_after=2)
    event = await fired(trigger(vendor, names, needed=2))
    assert event["status"] == "found"
    assert found(event, vendor, names) == [True, True, False]
    event = await fired(trigger(vendor, names, seconds=1))
    assert event["status"] == "timeout"
    assert found(event, vendor, names) == [True, True, False]
    assert PROFILE not in caplog.text


async def test_what_the_worker_found_is_not_asked_for_again(vendors: Sandbox) -> None:
    add(vendors, "vibetrace", ["a", "b"])
    search = Search([identity("vibetrace", name) for name in ("a", "b")])
    search.progress.found.add(0)
    event = await fired(trigger("vibetrace", ["a", "b"], progress=search.progress.pack()))
    assert event["status"] == "found"
    assert lookups(vendors, "vibetrace") == 1


async def test_the_first_look_waits_for_its_time(vendors: Sandbox) -> None:
    add(vendors, "vibetrace", ["a"])
    began = time.time()
    await fired(trigger("vibetrace", ["a"], first_look=began + 1))
    assert time.time() - began >= 1


@pytest.mark.parametrize(
    ("status", "kind", "retryable"), [(401, "CredentialsRefused", False), (404, "EndpointRefused", False)]
)
async def test_errors_come_as_payload(status: int, kind: str, retryable: bool, vendors: Sandbox) -> None:
    vendors.fault("html", vendor="vibetrace", status=status)
    event = await fired(trigger("vibetrace", ["a"]))
    assert (event["status"], event["type"], event["retryable"]) == ("error", kind, retryable)
    assert "vibetrace_default" in event["message"]
    assert lookups(vendors, "vibetrace") == 1


async def test_a_connection_that_is_gone_comes_as_payload() -> None:
    event = await fired(trigger("vibetrace", ["a"], conn_id="nowhere"))
    assert event["status"] == "error"
    assert event["retryable"]


async def test_a_list_that_is_gone_comes_as_payload(tmp_path: Path) -> None:
    event = await fired(trigger("vibetrace", ["a"], path=str(tmp_path / "nowhere")))
    assert (event["status"], event["type"]) == ("error", "FileNotFoundError")
    assert event["progress"] is None


async def test_a_quota_is_waited_for_until_the_deadline(vendors: Sandbox) -> None:
    vendors.fault("status", vendor="vibetrace", status=429, retry_after=3600)
    began = time.time()
    event = await fired(trigger("vibetrace", ["a"], seconds=2))
    assert event["status"] == "timeout"
    assert time.time() - began < 4
    assert lookups(vendors, "vibetrace") <= 2


async def test_pauses_double(vendors: Sandbox) -> None:
    await fired(trigger("vibetrace", ["a"], seconds=9, backoff=True, first_look=time.time() + 1))
    times = [request.at for request in vendors.requests("vibetrace")]
    pauses = [round(later - earlier) for earlier, later in pairwise(times)]
    assert pauses[:2] == [1, 2]
    assert len(times) <= 5


async def test_a_cancelled_trigger_says_nothing(vendors: Sandbox) -> None:
    events: list[Any] = []

    async def run() -> None:
        async for event in trigger("vibetrace", ["a"]).run():
            events.append(event)

    running = asyncio.create_task(run())
    await until(lambda: lookups(vendors, "vibetrace") > 0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert events == []
    asked = lookups(vendors, "vibetrace")
    await asyncio.sleep(1.2)  # longer than the pause between two looks
    assert lookups(vendors, "vibetrace") == asked


async def test_a_restart_forgets_nothing_that_was_kept_in_a_folder(vendors: Sandbox, tmp_path: Path) -> None:
    names = ["a", "b"]
    kept = WaitingList(str(tmp_path / "list"))
    kept.write(pack([identity("vibetrace", name) for name in names]))
    add(vendors, "vibetrace", ["a"])
    made = trigger("vibetrace", names, identities=None, path=str(tmp_path / "list"))

    first = asyncio.create_task(fired(made))
    await until(lambda: kept.progress() is not None)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert kept.progress() is not None

    asked = lookups(vendors, "vibetrace")
    add(vendors, "vibetrace", ["b"])
    _, arguments = made.serialize()
    event = await fired(EntryTrigger(**arguments))
    assert event["status"] == "found"
    assert lookups(vendors, "vibetrace") == asked + 1
    kept.remove()
    assert not list((tmp_path / "list").iterdir())


def test_packing() -> None:
    wanted = [identity("vibetrace", f"c{n}") for n in range(5000)]
    assert unpack(pack(wanted)) == wanted
    assert len(pack(wanted)) < 50_000


async def test_only_reading_requests_are_made(vendors: Sandbox) -> None:
    for vendor in VENDORS:
        add(vendors, vendor, ["a"])
        await fired(trigger(vendor, ["a"]))
        requests = vendors.requests(vendor)
        reading = ("/entries", "/user/a@example.com", "/opengdpr_requests", "/customers/export-one")
        assert all(request.path.partition("?")[0].endswith(reading) for request in requests)
        assert not vendors.events(vendor, None)
        assert vendors.summary()[vendor]["entries"] == 1


async def test_triggers_of_one_connection_share_its_quota_and_its_bound(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"requests_per_minute": 1200, "max_in_flight": 3}
    monkeypatch.setenv("AIRFLOW_CONN_VIBETRACE_DEFAULT", connection(vendors, "vibetrace", extra=extra))
    add(vendors, "vibetrace", [f"c{n}" for n in range(40)])
    await asyncio.gather(*(fired(trigger("vibetrace", [f"c{n}"])) for n in range(40)))
    times = [request.at for request in vendors.requests("vibetrace")]
    assert len(times) == 40
    assert times[-1] - times[0] > 39 * 60 / 1200 * 0.9


@pytest.mark.slow
async def test_a_loop_with_200_triggers_stays_responsive(vendors: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    """200 triggers of 25 customers each, 5,000 look-ups a round: how late a loop is that wakes every 10 ms."""
    names = [[f"t{n}c{m}" for m in range(25)] for n in range(200)]
    for group in names:
        add(vendors, "vibetrace", group[:-1])
    lags: list[float] = []
    loop = asyncio.get_running_loop()

    async def watch() -> None:
        while True:
            due = loop.time() + 0.01
            await asyncio.sleep(0.01)
            lags.append(loop.time() - due)

    watching = asyncio.create_task(watch())
    began = time.perf_counter()
    events = await asyncio.gather(*(fired(trigger("vibetrace", group, seconds=30, needed=25)) for group in names))
    took = time.perf_counter() - began
    watching.cancel()
    asked = lookups(vendors, "vibetrace")
    lags.sort()
    with capsys.disabled():
        print(
            f"\n200 triggers, {asked} look-ups in {took:.1f} s; loop lag median {lags[len(lags) // 2] * 1e3:.1f} ms, "
            f"99 % {lags[int(len(lags) * 0.99)] * 1e3:.1f} ms, worst {lags[-1] * 1e3:.1f} ms"
        )
    assert {event["status"] for event in events} == {"timeout"}
    assert lags[int(len(lags) * 0.99)] < 0.2  # where Airflow's own watchdog speaks up


IMPORTS_ON_THE_LOOP = """
import asyncio, importlib.abc, sys, threading
from airflow_provider_events.triggers.entry import EntryTrigger

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if threading.current_thread() is threading.main_thread():
            print(name)

async def main():
    sys.meta_path.insert(0, Watch())
    async for event in EntryTrigger(**%r).run():
        sys.meta_path.pop(0)
        print("fired", event.payload["status"])

asyncio.run(main())
"""


def test_what_is_slow_to_import_is_imported_off_the_loop(vendors: Sandbox) -> None:
    add(vendors, "vibetrace", ["ada"])
    _, arguments = trigger("vibetrace", ["ada"], seconds=60).serialize()
    program = [sys.executable, "-c", IMPORTS_ON_THE_LOOP % arguments]
    run = subprocess.run(program, capture_output=True, text=True, check=True)
    *imported, last = run.stdout.splitlines()
    assert last == "fired found"
    slow = ("aiohttp", "httptools", "airflow_provider_events.delivery")
    assert not [name for name in imported if name.startswith(slow)]


NO_LISTS = ["{}", '"x"', "[1]", "[{}]", '[{"a": 1.5}]', "[" * 100_000]
BOMB = b64encode(zlib.compress(bytes(2**29), 9)).decode()


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        BOMB[:1000],
        "",
        "{}",
        "é",
        b64encode(b"x").decode(),
        *(
            b64encode(zlib.compress(json.dumps(value).encode())).decode()
            for value in list[Any](({}, "x", [1], [{}], [{"a": 1.5}]))
        ),
        b64encode(zlib.compress(b"[" * 100_000)).decode(),
    ],
    ids=range(12),
)
def test_a_hostile_list_is_refused_in_words_and_within_bounds(text: str) -> None:
    """Half a gigabyte of zeros is half a megabyte when it is compressed."""
    with pytest.raises(SourceError, match="the list of identities to wait for is damaged"):
        unpack(text)


def test_the_files_of_a_list_are_for_their_owner_alone_and_no_link_is_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "list").mkdir(0o700)
    for name in ("identities", "progress.json"):
        (tmp_path / "list" / name).symlink_to(victim)
    kept = WaitingList(str(tmp_path / "list"))
    kept.write(pack([{"email": "a@example.com"}]))
    kept.save({"total": 1})
    assert victim.read_text() == "precious"
    for name in ("identities", "progress.json"):
        assert (tmp_path / "list" / name).lstat().st_mode & 0o7777 == 0o600
        assert not (tmp_path / "list" / name).is_symlink()
