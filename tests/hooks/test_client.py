"""The client of a vendor: every call, from a connection's values alone, in a process without Airflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import CUSTOMERS, IDENTITY_KEYS
from tests.delivery.harness import VENDORS, vendor_at

PROGRAM = """
import asyncio, json, os, sys
sys.modules["airflow"] = None  # whoever imports it fails

from airflow_provider_events.contract import BulkRecords
from airflow_provider_events.events import Event, Record
from airflow_provider_events.hooks.client import VendorClient
from airflow_provider_events.vendors.base import ConnectionValues, registry

given = json.loads(os.environ["GIVEN"])
vendor = registry()[given["vendor"]](ConnectionValues("by_hand", extra=given["extra"], **given["fields"]))
client = VendorClient(vendor)


class Source:
    cursor = None
    keyed = False

    def keys(self, records):
        return None

    def records(self, after=None, first_row=1):
        yield [Record(row, Event("paid", given["identity"], properties={"n": row})) for row in range(1, 31)]


def tried(call):
    try:
        return call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


calls = {
    "probe": lambda: asyncio.run(client.probe()),
    "send": lambda: asyncio.run(client.send(Event("paid", given["identity"]))).status,
    "refused": lambda: asyncio.run(client.send({"name": "paid"})),
    "upsert": lambda: asyncio.run(client.upsert(given["identity"], {"city": "Cluj"})).status,
    "lookup": lambda: asyncio.run(client.lookup([given["identity"]])),
    "deliver": lambda: client.deliver(Source()).to_dict(),
}
print(json.dumps({name: tried(call) for name, call in calls.items()}))
"""


@pytest.mark.parametrize("conn_type", VENDORS)
def test_every_call_is_there_without_airflow(conn_type: str, connections: Any) -> None:
    connection = connections.connection(conn_type)
    given = {
        "vendor": conn_type,
        "fields": {name: connection.get(name) for name in ("host", "login", "password")},
        "extra": connection["extra"],
        "identity": {IDENTITY_KEYS[conn_type]: CUSTOMERS[0]},
    }
    environment = {**os.environ, "GIVEN": json.dumps(given)}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    label = vendor_at(connections, conn_type).label
    works, words = said["probe"]
    assert works, words
    assert said["send"] in (200, 201, 202)
    assert said["refused"].startswith(f"InvalidEvent: connection 'by_hand': {label} at http://127.0.0.1:")
    assert said["upsert"] in (200, 201, 202) or "documents no way to create" in said["upsert"]
    assert said["lookup"] == [True] or said["lookup"].startswith("ConfigurationError: ")
    report = said["deliver"]
    shown = [report[name] for name in ("vendor", "conn_id", "read", "delivered")]
    assert shown == [conn_type, "by_hand", 30, 30]
