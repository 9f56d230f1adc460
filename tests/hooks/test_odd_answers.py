"""Answers that no vendor documents, through hooks and triggers: what is repeated, how often, and what is said."""

from __future__ import annotations

import asyncio
import json
import time
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from airflow_provider_events.delivery.pacing import RetryPolicy
from airflow_provider_events.exceptions import CredentialsRefused, UnknownAnswer, VendorUnavailable
from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.triggers.entry import EntryTrigger
from airflow_provider_events.triggers.waiting_list import pack
from tests.delivery.harness import OddServer, events, odd_server
from tests.vendors.wires import HTML

pytestmark = pytest.mark.airflow

STORED = b'{"results": {"message": "ok"}}'
STRANGER = b'{"errors": [{"message": "User not found"}]}'
ASK = {"email": "ada@example.com"}

Said = tuple[int, bytes, dict[str, str]]
Hook = Callable[..., EventsHook]


class Script:
    """What a server says: these in turn, and then the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[Said] = []

    async def __call__(self, request: web.Request) -> web.Response:
        status, body, headers = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await request.read()
        return web.Response(status=status, body=body, headers=headers)


@pytest.fixture
def script() -> Script:
    """What the server says."""
    return Script()


@pytest.fixture
def server(script: Script, monkeypatch: pytest.MonkeyPatch) -> Iterator[OddServer]:
    """A vendor, behind the connection `odd`."""
    with odd_server(script) as served:
        connection = {"conn_type": "vibetrace", "host": served.url, "password": "k3y"}
        monkeypatch.setenv("AIRFLOW_CONN_ODD", json.dumps(connection))
        yield served


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries that end soon."""
    original = RetryPolicy.__init__

    def short(policy: RetryPolicy) -> None:
        original(policy, budget_seconds=0.5, max_wait_seconds=3.0, base_seconds=0.05, cap_seconds=0.1)

    monkeypatch.setattr(RetryPolicy, "__init__", short)


def said(status: int, body: bytes = b"", **headers: str) -> Said:
    return status, body, {name.replace("_", "-"): value for name, value in headers.items()}


def html(status: int, **headers: str) -> Said:
    return said(status, HTML, content_type="text/html", **headers)


def calls(hook: EventsHook) -> list[Callable[[], Any]]:
    return [lambda: hook.send(events("vibetrace", 1)[0]), lambda: hook.deliver(events("vibetrace", 1))]


@pytest.mark.parametrize("call", [0, 1], ids=["single", "delivery"])
def test_json_behind_a_byte_order_mark_is_json(call: int, script: Script, server: OddServer) -> None:
    script.answers = [said(200, BOM_UTF8 + STORED)]
    calls(EventsHook.for_connection("odd"))[call]()
    assert server.requests == 1


@pytest.mark.parametrize("call", [0, 1], ids=["single", "delivery"])
@pytest.mark.parametrize(
    "answer",
    [said(204), said(200), html(200), said(200, b'{"ok": true}'), said(201, b"OK"), said(200, BOM_UTF8 * 2 + STORED)],
    ids=lambda answer: repr(answer[:2]),
)
def test_what_may_be_stored_is_sent_three_times_at_most_and_told(
    answer: Said, call: int, script: Script, server: OddServer, quick: None
) -> None:
    script.answers = [answer]
    with pytest.raises(UnknownAnswer, match=r"connection 'odd': .*may be stored at the vendor up to 3 times") as caught:
        calls(EventsHook.for_connection("odd"))[call]()
    assert server.requests == 3
    assert not caught.value.retryable
    assert ("row 1" in str(caught.value)) is (call == 1)


@pytest.mark.parametrize("status", [302, 400, 403, 404, 451])
def test_one_page_of_a_firewall_ends_no_delivery(status: int, script: Script, server: OddServer, quick: None) -> None:
    script.answers = [said(200, STORED)] * 40 + [html(status)] * 2 + [said(200, STORED)]
    assert EventsHook.for_connection("odd").deliver(events("vibetrace", 100)).delivered == 100
    script.answers = [said(200, STORED)] * 40 + [html(status)]
    with pytest.raises(VendorUnavailable, match="a web page: a firewall or proxy in between") as caught:
        EventsHook.for_connection("odd").deliver(events("vibetrace", 100))
    assert caught.value.retryable
    assert caught.value.report is not None
    assert caught.value.report.rejected == 0


def test_a_page_says_when_to_come_back_also_to_a_single_event(script: Script, server: OddServer) -> None:
    script.answers = [html(403, retry_after="1"), said(200, STORED)]
    started = time.monotonic()
    EventsHook.for_connection("odd").send(events("vibetrace", 1)[0])
    assert time.monotonic() - started >= 1


def test_a_look_up_after_the_first_answer_takes_a_page_for_an_outage(
    script: Script, server: OddServer, quick: None
) -> None:
    hook = EventsHook.for_connection("odd")
    script.answers = [said(404, STRANGER), html(403), said(404, STRANGER)]
    assert hook.lookup([{"email": f"c{n}@example.com"} for n in range(40)]) == [False] * 40
    script.answers = [html(403)]
    with pytest.raises(CredentialsRefused, match="a web page: a firewall or proxy in between"):
        hook.entry_exists(ASK)


def test_a_look_up_says_that_it_does_not_understand_and_may_be_repeated(script: Script, server: OddServer) -> None:
    script.answers = [said(204)]
    with pytest.raises(UnknownAnswer, match="success in an unknown form") as caught:
        EventsHook.for_connection("odd").entry_exists(ASK)
    assert caught.value.retryable
    assert "stored" not in str(caught.value)
    assert server.requests == 3


@pytest.mark.parametrize("known", [False, True], ids=["on the triggerer", "on the worker before"])
def test_a_trigger_takes_a_page_for_an_outage(known: bool, script: Script, server: OddServer, quick: None) -> None:
    from airflow_provider_events.lookups.search import Search

    user = said(200, json.dumps({"email": ASK["email"], "_id": "1"}).encode())
    progress = None
    if known:
        search = Search([ASK])
        search.progress.let_in = True
        progress = search.progress.pack()
    script.answers = [*[said(404, STRANGER)] * (not known), html(403), html(403), user]
    trigger = EntryTrigger(
        conn_id="odd",
        needed=1,
        deadline=time.time() + 8,
        interval_seconds=1,
        identities=pack([ASK]),
        progress=progress,
    )

    async def payload() -> Any:
        return await anext(aiter(trigger.run()))

    outcome = asyncio.run(payload()).payload
    assert outcome["status"] == "found", outcome
