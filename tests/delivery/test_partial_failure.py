"""One bad event hurts only itself: bulks that are refused as a whole, batches that are answered command by command."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from airflow_provider_events.contract import Answer, Request
from airflow_provider_events.delivery.pacing import RetryPolicy
from airflow_provider_events.events import Event
from airflow_provider_events.exceptions import CredentialsRefused, TooManyRejected, VendorUnavailable
from airflow_provider_events.vendors.base import ConnectionValues
from airflow_provider_events.vendors.bloomreach import Bloomreach
from airflow_provider_events.vendors.webengage import WebEngage
from tests.delivery.harness import (
    FakeTransport,
    KeptSink,
    delivery,
    events,
    odd_server,
    planned,
    records,
    sent_numbers,
    vendor_at,
)

# -- WebEngage: an opaque refusal ----------------------------------------------------------------------------------


class Careless(WebEngage):
    """Validates nothing, as if the vendor had a rule that we do not know."""

    def encode(self, event: Event) -> bytes:
        """The event, spoiled where its properties say so."""
        line, _, body = super().encode(event).partition(b"\n")
        if not event.properties["n"] % 7:
            body = json.dumps(json.loads(body) | {"eventTime": "2026-03-01T09:30:00.000Z"}).encode()
        return line + b"\n" + body


@pytest.mark.parametrize("batch_size", [1, 2, 10, 25])
def test_a_refused_bulk_is_split_until_the_bad_events_are_found(batch_size: int, connections: Any) -> None:
    known = vendor_at(connections, "webengage")
    careless = Careless(
        ConnectionValues("webengage_default", host=known.base_url, password=known.password, extra=dict(known.extra))
    )
    dead_letters = KeptSink()
    job = delivery(careless, batch_size=batch_size, max_rejected=20, dead_letters=dead_letters)
    report = job.run(records(events("webengage", 100)))
    bad = [n for n in range(100) if not n % 7]
    assert dead_letters.rows == [n + 1 for n in bad]
    assert all("eventTime" in line["reason"] for line in dead_letters.lines)
    assert (report.read, report.delivered, report.rejected) == (100, 85, 15)
    assert sent_numbers(connections, "webengage") == [n for n in range(100) if n % 7]
    assert connections.violations("webengage") == []


def test_one_bad_event_costs_a_logarithm_of_requests(connections: Any) -> None:
    connections.fault("status", status=400, path="*/bulk-events", times=5)
    report = delivery(vendor_at(connections, "webengage"), max_in_flight=1).run(records(events("webengage", 25)))
    assert report.delivered == 25
    assert report.requests == 1 + 5 + 5  # each of the five refusals splits one part in two
    assert sent_numbers(connections, "webengage") == list(range(25))


# -- Bloomreach: one result for each command -----------------------------------------------------------------------

Commands = list[dict[str, Any]]


class OddBloomreach:
    """Answers batches as `answer` likes; keeps which events it accepted."""

    def __init__(self, answer: Callable[[Commands, int], Any]) -> None:
        self._answer = answer
        self.batches: list[list[int]] = []
        self.singles = 0

    async def __call__(self, request: web.Request) -> web.Response:
        """One request."""
        body = await request.json()
        if "commands" not in body:
            self.singles += 1
            return web.json_response({"success": True, "errors": []})
        commands = body["commands"]
        self.batches.append([command["data"]["properties"]["n"] for command in commands])
        answer = self._answer(commands, len(self.batches))
        return web.json_response({"success": True, "results": answer})

    def vendor(self, url: str) -> Bloomreach:
        """The client's side."""
        return Bloomreach(ConnectionValues("odd", host=url, password="token", extra={"project_token": "project"}))


def good(commands: Commands) -> Commands:
    """A result for each, in order."""
    return [{"command_id": command["command_id"], "success": True} for command in commands]


def in_reverse(commands: Commands, _: int) -> Commands:
    """Results in another order; the second command failed."""
    results = good(commands)
    results[1] = {"command_id": commands[1]["command_id"], "success": False, "errors": ["Bad thing"]}
    return results[::-1]


def without_ids(commands: Commands, _: int) -> Commands:
    """Results by position alone."""
    results: Commands = [{"success": True} for _ in commands]
    results[1] = {"success": False, "error": "Bad thing"}
    return results


@pytest.mark.parametrize("answer", [in_reverse, without_ids])
def test_results_are_matched_by_their_id_else_by_position(answer: Callable[[Commands, int], Commands]) -> None:
    odd = OddBloomreach(answer)
    dead_letters = KeptSink()
    with odd_server(odd) as server:
        job = delivery(odd.vendor(server.url), batch_size=10, max_rejected=3, dead_letters=dead_letters)
        report = job.run(records(events("bloomreach", 30)))
    assert dead_letters.rows == [2, 12, 22]
    assert {line["reason"] for line in dead_letters.lines} == {"Bad thing"}
    assert (report.delivered, report.requests) == (27, 3)


HALVES: dict[str, Callable[[Commands, int], Any]] = {
    "the first half only": lambda commands, turn: good(commands)[: 5 if turn == 1 else None],
    "the second half only": lambda commands, turn: good(commands)[5 if turn == 1 else 0 :],
    "every second one": lambda commands, turn: good(commands)[:: 2 if turn == 1 else 1],
    "ids that nobody sent": lambda commands, turn: (
        [{"command_id": "77", "success": True}, *good(commands)[1:]] if turn == 1 else good(commands)
    ),
    "things that are no results": lambda commands, turn: (
        [None, 7, "ok", *good(commands)[3:]] if turn == 1 else good(commands)
    ),
    "too few without ids": lambda commands, turn: [{"success": True}] * 4 if turn == 1 else good(commands),
    "no list": lambda commands, turn: "done" if turn == 1 else good(commands),
    "nothing": lambda commands, turn: None if turn == 1 else good(commands),
}
OPEN = {
    "the first half only": [5, 6, 7, 8, 9],
    "the second half only": [0, 1, 2, 3, 4],
    "every second one": [1, 3, 5, 7, 9],
    "ids that nobody sent": [0],
    "things that are no results": [0, 1, 2],
}


@pytest.mark.parametrize("name", HALVES)
def test_only_commands_without_a_result_are_sent_again(name: str) -> None:
    odd = OddBloomreach(HALVES[name])
    with odd_server(odd) as server:
        report = delivery(odd.vendor(server.url), batch_size=10).run(records(events("bloomreach", 10)))
    again = OPEN.get(name, list(range(10)))
    assert odd.batches == ([list(range(10)), again] if len(again) > 1 else [list(range(10))])
    assert odd.singles == (len(again) == 1)
    assert (report.delivered, report.requests, report.retries) == (10, 2, 1)


def test_commands_that_never_get_a_result_use_up_the_budget() -> None:
    """The last two of each batch: what was sent with them is delivered all the same."""
    odd = OddBloomreach(lambda commands, _: good(commands)[:-2])
    policy = RetryPolicy(budget_seconds=0.5, base_seconds=0.05, cap_seconds=0.05)
    with odd_server(odd) as server:
        job = delivery(odd.vendor(server.url), batch_size=10, retry_policy=policy)
        with pytest.raises(VendorUnavailable, match="without a result") as caught:
            job.run(records(events("bloomreach", 9)))
    report = caught.value.report
    assert report is not None
    assert (report.read, report.delivered, report.unsent) == (9, 7, 2)
    assert odd.batches[1:] == [[7, 8]] * (len(odd.batches) - 1)


def test_a_batch_of_failures_is_no_success_though_its_top_says_so() -> None:
    """Mistake 4 of the peers: `success: true` above hides what failed below."""
    odd = OddBloomreach(lambda commands, _: [{**result, "success": False} for result in good(commands)])
    with odd_server(odd) as server:
        job = delivery(odd.vendor(server.url), batch_size=5)
        with pytest.raises(TooManyRejected, match="5 of 5 events were rejected"):
            job.run(records(events("bloomreach", 5)))


def test_credentials_refused_command_by_command_end_the_delivery() -> None:
    refusal = {"success": False, "errors": ["Could not authenticate"]}
    odd = OddBloomreach(lambda commands, _: [{**result, **refusal} for result in good(commands)])
    with odd_server(odd) as server:
        job = delivery(odd.vendor(server.url), batch_size=10, max_in_flight=2)
        with pytest.raises(CredentialsRefused):
            job.run(records(events("bloomreach", 1000)))
    assert len(odd.batches) <= 2


# -- bounds of a body ----------------------------------------------------------------------------------------------


class ToTheByte(Bloomreach):
    """Events of a size of their own choice."""

    def encode(self, event: Event) -> bytes:
        """As many bytes as its properties say."""
        return b"x" * int(event.properties["size"])


@pytest.mark.parametrize("count", [3, 10, 50])
def test_a_body_stays_within_its_bound_to_the_byte(count: int) -> None:
    """Sizes that would just fill a request, were there nothing but the fragments and what each of them costs."""
    vendor = ToTheByte(ConnectionValues("c", password="token", extra={"project_token": "project"}))
    bodies: list[bytes] = []

    async def answer(request: Request) -> Answer:
        bodies.append(request.body or b"")
        results = [{"command_id": str(n), "success": True} for n in range(bodies[-1].count(b'"command_id"'))]
        return Answer(200, {}, json.dumps({"success": True, "results": results}).encode())

    each, rest = divmod(vendor.max_request_bytes - count * vendor.fragment_overhead, count)
    source = [Event("e", {"registered": "c"}, None, {"size": each + (n < rest)}) for n in range(count)]
    job = planned(vendor, lambda: FakeTransport(answer), batch_size=50)
    assert job.run(records(source)).delivered == count
    assert max(map(len, bodies)) <= vendor.max_request_bytes
