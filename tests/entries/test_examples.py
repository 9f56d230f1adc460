"""The example DAGs about entries, run against the sandbox as they stand."""

from __future__ import annotations

import pytest

from airflow_provider_events.sandbox import Sandbox
from tests.entries.vendors import VENDORS, connection
from tests.example_dags.conftest import FOLDER, RunExample, run_example

__all__ = ["run_example"]

pytestmark = pytest.mark.airflow


@pytest.fixture(autouse=True)
def vendors(events_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The connections that the examples name."""
    for vendor in VENDORS:
        monkeypatch.setenv(f"AIRFLOW_CONN_{vendor.upper()}_DEFAULT", connection(events_sandbox, vendor))
    return events_sandbox


def source(name: str) -> str:
    """The text of an example."""
    return (FOLDER / f"{name}.py").read_text()


def test_wait_then_track(vendors: Sandbox, run_example: RunExample) -> None:
    vendors.add_entries("vibetrace", [{"email": "ada@example.com"}], appears_after=3)
    text = source("entries_wait_then_track").replace("poke_interval=30", "poke_interval=2")
    ended = run_example("entries_wait_then_track", text)
    assert ended.returned["wait_for_customer"] == {"found": [{"email": "ada@example.com"}], "missing": []}
    assert len(vendors.events("vibetrace")) == 1


def test_wait_while_tracking(vendors: Sandbox, run_example: RunExample) -> None:
    vendors.add_entries("embeddables", [{"email": "ada@example.com"}])
    vendors.add_entries("embeddables", [{"email": "grace@example.com"}], appears_after=3)
    ended = run_example("entries_wait_while_tracking", source("entries_wait_while_tracking"))
    assert ended.returned["track_bookings"]["delivered"] == 2
    assert len(vendors.events("embeddables")) == 2


def test_split_and_upsert(vendors: Sandbox, run_example: RunExample) -> None:
    vendors.add_entries("bloomreach", [{"registered": "c-1"}])
    ended = run_example("entries_split_and_upsert", source("entries_split_and_upsert"))
    assert ended.returned["split"] == {"existing": 1, "missing": 1}
    assert ended.returned["create_the_missing"]["delivered"] == 1
    assert ended.returned["track_all"]["delivered"] == 2
    assert vendors.summary()["bloomreach"]["strays"] == 0
    assert vendors.summary()["bloomreach"]["entries"] == 2
