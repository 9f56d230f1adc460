"""The ASGI application: finds the vendor by path, lets it answer, and lets a fault spoil the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from starlette.types import Receive, Scope, Send

from airflow_provider_events.sandbox.api import Call, VendorApi
from airflow_provider_events.sandbox.bloomreach import Bloomreach
from airflow_provider_events.sandbox.control import control_app
from airflow_provider_events.sandbox.embeddables import Embeddables
from airflow_provider_events.sandbox.faults import Fault, FaultBook
from airflow_provider_events.sandbox.hosts import Hosts
from airflow_provider_events.sandbox.state import Settings
from airflow_provider_events.sandbox.vibetrace import Vibetrace
from airflow_provider_events.sandbox.webengage import WebEngage
from airflow_provider_events.sandbox.wire import Wire

VENDORS: Sequence[type[VendorApi]] = (Embeddables, Vibetrace, WebEngage, Bloomreach)  # a new vendor goes here

_CUT = frozenset({"cut", "lost"})


class SandboxApp:
    """All vendors, in one process, at one address."""

    def __init__(self, hosts: Hosts, settings: Settings | None = None) -> None:
        """Start empty. `hosts`: what it answers to. `settings`: quotas on, bodies kept, by default."""
        self.hosts = hosts
        self.settings = settings or Settings()
        self._control = control_app(self)
        self.reset()

    def reset(self) -> None:
        """Forget events, requests, entries, faults, quota windows and counters."""
        self.apis: dict[str, VendorApi] = {vendor.name: vendor(self.settings) for vendor in VENDORS}
        self.faults = FaultBook()
        self._numbers = count(1)
        by_prefix = [(prefix, api) for api in self.apis.values() for prefix in api.prefixes]
        self._by_prefix = sorted(by_prefix, key=lambda pair: len(pair[0]), reverse=True)

    def api(self, vendor: str) -> VendorApi:
        """The vendor of that name; a `ValueError` names the known ones."""
        if vendor not in self.apis:
            raise ValueError(f"unknown vendor {vendor!r}: one of {', '.join(self.apis)}")
        return self.apis[vendor]

    def connection(self, vendor: str, url: str) -> dict[str, Any]:
        """The Airflow connection to a vendor at `url`; plain HTTP to another machine has to be allowed by it."""
        connection = self.api(vendor).connection(url)
        if not self.hosts.is_local:
            connection["extra"]["allow_http"] = True
        return connection

    def add_entries(
        self,
        vendor: str,
        entries: Sequence[Mapping[str, Any]],
        appears_after: float = 0.0,
    ) -> None:
        """Make customers known, in `appears_after` seconds from now."""
        api = self.api(vendor)
        visible_at = self.settings.clock() + appears_after
        for entry in entries:
            api.add_entry(entry, visible_at)

    def add_fault(self, fault: Fault) -> Fault:
        """Put a rule in force."""
        if fault.vendor is not None:
            self.api(fault.vendor)
        self.faults.rules.append(fault)
        return fault

    def summary(self) -> dict[str, dict[str, int]]:
        """Counts by vendor."""
        apis = self.apis.items()
        return {name: {**api.memory.summary(), "entries": api.count_entries()} for name, api in apis}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        refusal = self.hosts.refusal(scope)
        if refusal is not None:
            await Wire(scope, receive, send).send(refusal)
            return
        api = self._find(scope["path"])
        if api is None:
            await self._control(scope, receive, send)
            return
        faults = self.faults  # those of before, if the body is still on its way when all is reset
        wire = Wire(scope, receive, send)
        call = Call.read(next(self._numbers), self.settings.clock(), scope, await wire.read())
        call.auth = api.authenticate(call)
        fault = faults.pick(api.name, call)
        if fault is None:
            answer = api.respond(call, scope)
            api.log(call, answer.status, None)
            await wire.send(answer)
            return
        answer = api.respond(call, scope) if fault.accepts else api.refusal(503, "Injected by the sandbox")
        answer = fault.distort(api, answer, call.at)
        api.log(call, 0 if fault.kind in _CUT else answer.status, fault.kind)
        await fault.deliver(answer, wire)

    def _find(self, path: str) -> VendorApi | None:
        for prefix, api in self._by_prefix:
            if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
                return api
        return None
