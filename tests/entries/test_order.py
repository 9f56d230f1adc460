"""Upserts of one customer are stored in the order of their rows, however slow or often an answer is."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from airflow_provider_events.events import DeliveryReport, Event
from airflow_provider_events.http import open_transport
from airflow_provider_events.http.contract import Endpoint
from airflow_provider_events.vendors.base import registry
from tests.conftest import IDENTITY_KEYS
from tests.delivery.harness import odd_server, planned, records
from tests.vendors.wires import values_for

UPSERTING = ("vibetrace", "webengage", "bloomreach")
every_vendor = pytest.mark.parametrize("vendor", UPSERTING)


class Profiles:
    """A vendor that stores profiles, each upsert when it gets to it, and now and then stores one without an answer."""

    def __init__(self, vendor: str, seed: int = 1, trouble: float = 0.0) -> None:
        self.vendor = vendor
        self.name: Callable[[dict[str, str]], str] = lambda ids: next(iter(ids.values())).casefold()
        self.stored: dict[str, list[int]] = defaultdict(list)
        self.sizes: list[int] = []
        self._chance = random.Random(seed)
        self._trouble = trouble

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """503, 429 or a cut connection before or after it is stored; else success. First versions take longest."""
        upserts = list(self._upserts(request, json.loads(await request.read())))
        self.sizes.append(len(upserts))
        assert max(Counter(customer for customer, _ in upserts).values()) == 1, "a bulk is stored in any order"
        luck = self._chance.random()
        await asyncio.sleep(self._chance.random() * 0.01 if any(n for _, n in upserts) else 0.05)
        if luck < self._trouble:
            return web.json_response({}, status=503)
        for customer, n in upserts:
            if self.stored[customer][-1:] != [n]:  # the same once more changes nothing
                self.stored[customer].append(n)
        if luck < 2 * self._trouble:
            assert request.transport is not None
            request.transport.close()
        elif luck < 3 * self._trouble:
            return web.json_response({}, status=429, headers={"Retry-After": "0"})
        return web.json_response(self._success(len(upserts)))

    def _upserts(self, request: web.Request, body: Any) -> Iterator[tuple[str, int]]:
        match self.vendor:
            case "vibetrace":
                yield self.name({"email": request.path.rpartition("/")[2]}), body["n"]
            case "webengage":
                for user in body.get("users", [body]):
                    yield self.name({"userId": user["userId"]}), user["attributes"]["n"]
            case _:
                for data in [command["data"] for command in body["commands"]] if "commands" in body else [body]:
                    yield self.name(data["customer_ids"]), data["properties"]["n"]

    def _success(self, count: int) -> Any:
        match self.vendor:
            case "vibetrace":
                return {"results": ["User updated"]}
            case "webengage":
                return {"response": {"status": "queued"}}
            case _:
                results = [{"success": True, "command_id": str(n)} for n in range(count)]
                return {"success": True, "results": results} if count > 1 else {"success": True, "errors": []}


def upsert(profiles: Profiles, customers: list[str], **changes: Any) -> DeliveryReport:
    """One for each, with its number among those of its customer."""
    seen: Counter[str] = Counter()
    entries = []
    for customer in customers:
        n = seen[customer.casefold()]
        entries.append(Event("upsert", {IDENTITY_KEYS[profiles.vendor]: customer}, None, {"n": n}))
        seen[customer.casefold()] += 1
    return deliver(profiles, entries, **changes)


def deliver(profiles: Profiles, entries: list[Event], **changes: Any) -> DeliveryReport:
    """All of them, as upserts."""
    kind = registry()[profiles.vendor]
    with odd_server(profiles.answer) as server:
        vendor = kind(values_for(kind, host=server.url))
        endpoint = Endpoint(vendor.base_url, vendor.headers(), timeout_seconds=5.0, max_connections=8)
        run = planned(
            vendor.upserts(),
            lambda: open_transport(endpoint),
            **{"batch_size": vendor.max_batch_size, "max_in_flight": 8, **changes},
        )
        report = run.run(records(entries))
    assert report.delivered == len(entries)
    return report


@every_vendor
def test_the_last_row_of_a_customer_is_what_stays(vendor: str) -> None:
    """The first is slow, the second quick; nobody has asked for any order."""
    profiles = Profiles(vendor)
    upsert(profiles, ["ada@example.com", "ada@example.com", "bob@example.com"], batch_size=1)
    assert profiles.stored == {"ada@example.com": [0, 1], "bob@example.com": [0]}


@every_vendor
@pytest.mark.parametrize("seed", range(3))
def test_each_customers_upserts_keep_their_order_whatever_is_repeated(vendor: str, seed: int) -> None:
    chance, profiles = random.Random(seed), Profiles(vendor, seed, trouble=0.08)
    customers = [f"c{chance.randrange(30)}@example.com" for _ in range(400)]
    report = upsert(profiles, customers)
    assert report.retries > 1
    assert profiles.stored == {customer: list(range(count)) for customer, count in Counter(customers).items()}


@every_vendor
def test_customers_who_come_once_make_full_bulks(vendor: str) -> None:
    profiles = Profiles(vendor)
    upsert(profiles, [f"c{n}@example.com" for n in range(120)])
    assert (
        sorted(profiles.sizes)
        == {"vibetrace": [1] * 120, "webengage": [20, 25, 25, 25, 25], "bloomreach": [20, 50, 50]}[vendor]
    )


@every_vendor
def test_few_who_come_twice_cost_few_requests(vendor: str) -> None:
    """2 % of the rows are of somebody who was there just before."""
    profiles = Profiles(vendor)
    upsert(profiles, [f"c{n - (n % 50 == 7)}@example.com" for n in range(2000)])
    full = {"vibetrace": 2000, "webengage": 80, "bloomreach": 40}[vendor]
    assert len(profiles.sizes) <= full + 8, "one more for each place in flight, at the end"


@every_vendor
def test_spellings_of_one_address_are_one_customer(vendor: str) -> None:
    profiles = Profiles(vendor)
    upsert(profiles, ["Ada@example.com", "ada@example.com", "ada@EXAMPLE.com"], batch_size=1)
    assert profiles.stored == {"ada@example.com": [0, 1, 2]}


def test_customers_with_an_id_in_common_are_one() -> None:
    """A cookie before and after the registration."""
    profiles = Profiles("bloomreach")
    identities = [{"cookie": "k"}, {"registered": "c", "cookie": "k"}, {"registered": "c"}]
    profiles.name = lambda identity: "c"
    deliver(
        profiles, [Event("upsert", identity, None, {"n": n}) for n, identity in enumerate(identities)], batch_size=1
    )
    assert profiles.stored == {"c": [0, 1, 2]}
