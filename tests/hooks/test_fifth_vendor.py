"""A vendor of somebody else's package: Airflow finds its hook, and everything that takes a connection works with it."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from events_postbox.hook import PostboxHook
from events_postbox.provider import get_provider_info
from events_postbox.sandbox import PostboxApi
from events_postbox.vendor import Postbox

from airflow_provider_events._compat import BaseHook
from airflow_provider_events.cli.main import main
from airflow_provider_events.exceptions import ConfigurationError, CredentialsRefused
from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.hooks.form import connection_type
from airflow_provider_events.sandbox import Sandbox
from airflow_provider_events.vendors.base import registry

ROWS = [{"who": f"person{n}", "total": n / 4, "coupon": None} for n in range(30)]
MAPPING = {"name": "order_placed", "identity": {"person": "who"}}


@pytest.fixture(scope="module")
def server() -> Iterator[Sandbox]:
    with Sandbox(vendors=[PostboxApi]) as running:
        yield running


@pytest.fixture
def postbox(server: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The sandbox, which knows 29 of 30 people, and the connection to it."""
    server.reset()
    server.add_entries("postbox", [{"person": f"person{n}"} for n in range(29)])
    monkeypatch.setenv("AIRFLOW_CONN_POSTBOX_DEFAULT", json.dumps(server.connection("postbox")))
    return server


def test_airflow_finds_its_hook(postbox: Sandbox) -> None:
    hook = EventsHook.for_connection("postbox_default")
    assert type(hook) is PostboxHook
    assert type(hook.vendor) is Postbox
    assert type(asyncio.run(EventsHook.afor_connection("postbox_default"))) is PostboxHook


def test_it_is_none_of_ours() -> None:
    assert Postbox not in registry().values()


@pytest.mark.parametrize(
    ("conn_type", "why"),
    [
        ("nowhere", "for which Airflow finds no hook: is its package installed.*"),
        ("sqlite", "whose SqliteHook is no EventsHook"),
    ],
)
def test_another_hook_is_told_what_is_wanted(conn_type: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": conn_type}))
    with pytest.raises(ConfigurationError, match=rf"'other' has the type '{conn_type}', {why}; .* of another package$"):
        EventsHook.for_connection("other")


def test_its_connection_is_tested_as_airflow_does_it(postbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    good, said = BaseHook.get_connection("postbox_default").test_connection()
    assert (good, said) == (True, f"Postbox accepts this connection ({postbox.url})")
    wrong = {**postbox.connection("postbox"), "password": "pb_another_key"}
    monkeypatch.setenv("AIRFLOW_CONN_POSTBOX_DEFAULT", json.dumps(wrong))
    good, said = BaseHook.get_connection("postbox_default").test_connection()
    assert not good
    assert "in the connection's form look at 'API key' (password), 'Box' (extra key 'box')" in said
    with pytest.raises(CredentialsRefused, match=r"Postbox at .*who are you\?"):
        PostboxHook().deliver([{"name": "x", "identity": {"person": "person1"}}])


def test_its_form_is_declared_and_drawn() -> None:
    assert get_provider_info()["connection-types"] == [connection_type(PostboxHook)]
    manager = importlib.import_module("airflow.providers_manager").ProvidersManager
    if not hasattr(manager, "iter_connection_type_hook_ui_metadata"):  # before Airflow 3.2 the hook itself draws it
        hidden = PostboxHook.get_ui_field_behaviour()["hidden_fields"]
        assert {"schema", "login", "extra"} <= set(hidden)
        return
    forms: Any = importlib.import_module("airflow.api_fastapi.core_api.services.ui.connections").HookMetaService
    [form] = [entry for entry in forms.hook_meta_data() if entry.connection_type == "postbox"]
    assert form.hook_name == "Postbox"
    assert form.extra_fields["box"]["description"] == "Name of the box that the notes go into"


def test_its_rows_take_the_bulk_way_and_are_accounted_for(postbox: Sandbox) -> None:
    report = PostboxHook().deliver(ROWS, mapping=MAPPING, max_rejected=1)
    assert (report.read, report.delivered, report.rejected, report.requests) == (30, 29, 1, 3)
    [event, *_] = sorted((event.wire for event in postbox.events("postbox")), key=lambda wire: wire["details"]["total"])
    assert event == {"person": "person0", "note": "order_placed", "at": event["at"], "details": {"total": 0.0}}


def test_it_works_in_operators_and_sensors(postbox: Sandbox, run_dag: Callable[..., Any], tmp_path: Path) -> None:
    result = run_dag(
        f"""
        from airflow.providers.common.compat.sdk import DAG
        from airflow_provider_events.operators.entries import FilterByEntryOperator
        from airflow_provider_events.operators.events import SendEventOperator, SendEventsOperator
        from airflow_provider_events.sensors.entry import EntryExistsSensor

        with DAG("fifth_vendor", schedule=None) as dag:
            there = EntryExistsSensor(
                task_id="there", conn_id="postbox_default", identity={{"person": "person1"}}, poke_interval=1
            )
            single = SendEventOperator(
                task_id="single", conn_id="postbox_default", name="seen", identity={{"person": "person1"}}
            )
            several = SendEventsOperator(
                task_id="several", conn_id="postbox_default", events={ROWS!r}, mapping={MAPPING!r},
                max_rejected=1, rejected_path={str(tmp_path)!r},
            )
            split = FilterByEntryOperator(
                task_id="split", conn_id="postbox_default", events={ROWS!r}, mapping={MAPPING!r}
            )
            there >> single >> several >> split
        """,
        "fifth_vendor",
    )
    assert result.state == "success"
    assert result.returned["single"]["vendor"] == "postbox"
    assert (result.returned["several"]["delivered"], result.returned["several"]["rejected"]) == (29, 1)
    assert result.returned["split"] == {"existing": 29, "missing": 1}
    assert len(postbox.events("postbox")) == 1 + 29


def test_its_rejected_events_are_sent_again(
    postbox: Sandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rejected.jsonl"
    PostboxHook().deliver(ROWS, mapping=MAPPING, max_rejected=1, rejected_path=str(path))
    postbox.add_entries("postbox", [{"person": "person29"}])
    capsys.readouterr()
    assert main(["replay", str(path), "--conn-id", "postbox_default"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["vendor"], report["delivered"]) == ("postbox", 1)
