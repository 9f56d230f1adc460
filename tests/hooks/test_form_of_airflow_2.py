"""The connection form on Airflow 2.11: what its provider manager takes, and its own page, used as a person would."""

from __future__ import annotations

import html
import importlib
import json
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_events.hooks.form import field_behaviour
from airflow_provider_events.vendors.base import registry
from tests.delivery.harness import VENDORS

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(
        find_spec("airflow.www") is None,
        reason="the page of Airflow 2; Airflow 3 draws the form from the provider info",
    ),
    pytest.mark.filterwarnings("ignore"),  # Airflow 2's web server warns of its own libraries
]

PASSWORD = "a-key-that-is-nowhere-shown"
EXTRAS: dict[str, dict[str, Any]] = {
    "embeddables": {"project_id": "pr_sandbox"},
    "vibetrace": {},
    "webengage": {"license_code": "license-sandbox", "region": "in", "allow_system_events": "y"},
    "bloomreach": {"project_token": "project-token-sandbox"},
}


@pytest.fixture(scope="module")
def manager() -> Any:
    """Airflow's own provider manager."""
    from airflow.providers_manager import ProvidersManager

    return ProvidersManager()


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_provider_manager_takes_all_fields(vendor: str, manager: Any) -> None:
    vendor_class, prefix = registry()[vendor], f"extra__{vendor}__"
    shown = {name.removeprefix(prefix) for name in manager.connection_form_widgets if name.startswith(prefix)}
    assert shown == {extra.name for extra in vendor_class.all_extra_fields()}
    behaviour, declared = manager.field_behaviours[vendor], field_behaviour(vendor_class)
    assert behaviour["hidden_fields"] == [*declared["hidden-fields"], "extra"]
    assert (behaviour["relabeling"], behaviour["placeholders"]) == (declared["relabeling"], declared["placeholders"])
    assert manager.hooks[vendor].connection_testable


@pytest.fixture(scope="module")
def browser(airflow_database: None) -> Iterator[Any]:
    """A client of Airflow's web server, let in as administrator."""
    home = Path(os.environ["AIRFLOW_HOME"])
    config = home / "webserver_config.py"
    config.write_text("AUTH_ROLE_PUBLIC = 'Admin'\nWTF_CSRF_ENABLED = False\nTESTING = True\n")
    app: Any = importlib.import_module("airflow.www.app")
    with app.create_app(testing=True).test_client() as client:
        yield client
    config.unlink()


def fields(page: str) -> dict[str, str]:
    """The form's inputs by name, with what is in them."""
    found = {}
    for tag in re.findall(r"<(?:input|textarea)\b[^>]*>", page):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
        found[attributes.get("name", "")] = html.unescape(attributes.get("value", ""))
    return found


def stored(conn_id: str) -> Any:
    """The connection in Airflow's database."""
    from airflow.models import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(Connection).filter_by(conn_id=conn_id).one()
        session.expunge(found)
    return found


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_connection_is_shown_saved_read_and_edited(
    vendor: str, browser: Any, events_sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, conn_id = f"extra__{vendor}__", f"by_form_{vendor}"
    page = browser.get("/connection/add").get_data(as_text=True)
    empty = fields(page)
    own = {name: value for name, value in empty.items() if name.startswith(prefix)}
    extras = registry()[vendor].all_extra_fields()
    assert set(own) == {f"{prefix}{extra.name}" for extra in extras}
    for extra in extras:
        assert html.escape(extra.label, quote=False) in page
        assert own[f"{prefix}{extra.name}"] == ("y" if extra.type == "boolean" else str(extra.default or ""))

    connection = events_sandbox.connection(vendor)
    filled = {
        **{name: value for name, value in own.items() if value != "y"},
        **{f"{prefix}{name}": value for name, value in EXTRAS[vendor].items()},
        f"{prefix}requests_per_minute": "90.5",
        f"{prefix}batch_size": "1",
        "conn_id": conn_id,
        "conn_type": vendor,
        "host": connection["host"],
        "login": connection.get("login") or "",
        "password": PASSWORD,
        "port": "",
    }
    saved = browser.post("/connection/add", data=filled, follow_redirects=False)
    assert saved.status_code == 302, saved.get_data(as_text=True)
    extra = stored(conn_id).extra_dejson
    assert (float(extra["requests_per_minute"]), int(extra["batch_size"])) == (90.5, 1)

    from airflow_provider_events.hooks.base import EventsHook

    vendor_read = EventsHook.for_connection(conn_id).vendor
    assert vendor_read.password == PASSWORD
    assert vendor_read.extra["requests_per_minute"] == 90.5
    for name, value in EXTRAS[vendor].items():
        assert vendor_read.extra[name] == (True if value == "y" else value)

    address = f"/connection/edit/{stored(conn_id).id}"
    again = fields(browser.get(address).get_data(as_text=True))
    assert again[f"{prefix}requests_per_minute"] == "90.5"
    assert PASSWORD not in json.dumps(again)
    filled |= {f"{prefix}requests_per_minute": "45", "password": ""}
    assert browser.post(address, data=filled).status_code == 302
    assert EventsHook.for_connection(conn_id).vendor.extra["requests_per_minute"] == 45


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_test_button_asks_the_vendor(
    vendor: str, browser: Any, events_sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
    connection = events_sandbox.connection(vendor)
    extra = json.dumps(connection.pop("extra", {}))
    asked = {"connection_id": "whatever", **connection, "extra": extra}
    answer = browser.post("/api/v1/connections/test", json=asked)
    assert answer.get_json()["status"] is True, answer.get_json()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("requests_per_minute", "0", "has to be at least 0.1"),
        ("requests_per_minute", "many", "has to be a number"),
        ("batch_size", "0", "has to be at least 1"),
        ("max_in_flight", "2.5", "Not a valid integer value"),
        ("timeout", "-1", "has to be at least 0.1"),
        ("region", "mars", "Invalid value, must be one of: global"),
    ],
)
def test_the_page_refuses_what_a_hook_would_refuse(field: str, value: str, words: str, browser: Any) -> None:
    data = {"conn_id": "refused", "conn_type": "webengage", "password": PASSWORD, f"extra__webengage__{field}": value}
    answer = browser.post("/connection/add", data=data)
    assert answer.status_code == 200
    assert words in html.unescape(answer.get_data(as_text=True))
