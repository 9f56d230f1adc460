"""All vendors of a sandbox: what they are, what they remember, and the faults that are in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import orjson

from airflow_provider_events.sandbox.api import VendorApi
from airflow_provider_events.sandbox.bloomreach import Bloomreach
from airflow_provider_events.sandbox.embeddables import Embeddables
from airflow_provider_events.sandbox.faults import Fault, FaultBook
from airflow_provider_events.sandbox.hosts import Hosts
from airflow_provider_events.sandbox.state import Settings
from airflow_provider_events.sandbox.vibetrace import Vibetrace
from airflow_provider_events.sandbox.webengage import WebEngage

VENDORS: Sequence[type[VendorApi]] = (Embeddables, Vibetrace, WebEngage, Bloomreach)  # a new vendor goes here


class Vendors:
    """All vendors, at one address."""

    def __init__(self, hosts: Hosts, settings: Settings | None = None, others: Sequence[type[VendorApi]] = ()) -> None:
        """Start empty. `hosts`: what they answer to. `settings`: quotas on, bodies kept, by default. `others`: beside
        the known ones."""
        self._kinds = (*VENDORS, *others)
        self.hosts = hosts
        self.settings = settings or Settings()
        self.reset()

    def reset(self) -> None:
        """Forget events, requests, entries, faults, quota windows and counters."""
        self.apis: dict[str, VendorApi] = {vendor.name: vendor(self.settings) for vendor in self._kinds}
        self.faults = FaultBook()
        self.numbers = count(1)
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

    def connections(self, url: str) -> dict[str, str]:
        """Environment variables that give Airflow a default connection to each vendor at `url`."""
        documents = {name: orjson.dumps(self.connection(name, url)).decode() for name in self.apis}
        return {f"AIRFLOW_CONN_{name.upper()}_DEFAULT": document for name, document in documents.items()}

    def at(self, path: str) -> VendorApi | None:
        """Whose path it is."""
        for prefix, api in self._by_prefix:
            if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("", "/"):
                return api
        return None
