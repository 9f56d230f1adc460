"""The vendors' pages: what is generated is up to date, and every connection that they show works."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import pytest

from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.vendors.base import Vendor, registry
from docs import generate_vendor_reference as generator

VENDORS = sorted(registry())


def text_of(conn_type: str) -> str:
    return (generator.PAGES / f"{conn_type}.md").read_text()


def test_every_vendor_has_a_page_and_every_page_a_vendor() -> None:
    assert sorted(path.stem for path in generator.PAGES.glob("*.md")) == VENDORS


@pytest.mark.parametrize("conn_type", VENDORS)
def test_the_generated_tables_are_up_to_date(conn_type: str) -> None:
    page = generator.PAGES / f"{conn_type}.md"
    assert page.read_text() == generator.updated(page), "run: python docs/generate_vendor_reference.py"
    assert len(generator.BLOCK.findall(page.read_text())) == 2


def test_an_outdated_page_is_found_and_written_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for conn_type in VENDORS:
        (tmp_path / f"{conn_type}.md").write_text(text_of(conn_type).replace("API base URL", "something old"))
    monkeypatch.setattr(generator, "PAGES", tmp_path)
    assert generator.main(["--check"]) == 1
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0


def shown_connections(conn_type: str) -> list[str]:
    """Every connection on a page, as Airflow takes it from an environment variable: a URI or JSON."""
    page = text_of(conn_type)
    uris = re.findall(r"^```text\n(.+)\n```$", page, re.MULTILINE)
    documents = re.findall(r"^```json\n(.+?)\n```$", page, re.MULTILINE | re.DOTALL)
    exports = re.findall(r"^export (AIRFLOW_CONN_.+)$", page, re.MULTILINE)
    assert (len(uris), len(documents), len(exports)) == (1, 1, 2)
    values = []
    for line in exports:
        name, _, value = shlex.split(line)[0].partition("=")
        assert name == f"AIRFLOW_CONN_{conn_type.upper()}_DEFAULT"
        values.append(value)
    return [*uris, *documents, *values]


def vendor_of(value: str, monkeypatch: pytest.MonkeyPatch) -> Vendor:
    monkeypatch.setenv("AIRFLOW_CONN_SHOWN", value)
    return EventsHook.for_connection("shown").vendor


@pytest.mark.parametrize("conn_type", VENDORS)
def test_every_form_of_the_connection_gives_the_same_vendor(conn_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vendors = [vendor_of(value, monkeypatch) for value in shown_connections(conn_type)]
    facts = [(v.conn_type, v.base_url, v.login, v.password, v.extra) for v in vendors]
    assert all(fact == facts[0] for fact in facts)
    assert facts[0][0] == conn_type
    assert all(vendors[0].extra[field.name] for field in vendors[0].extra_fields if field.required)


@pytest.mark.parametrize("conn_type", VENDORS)
def test_the_uri_with_a_base_url_of_ones_own_works(conn_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (uri,) = re.findall(rf"`({conn_type}://[^`]*@https%3A[^`]*)`", text_of(conn_type))
    host = unquote(uri.partition("@")[2].partition("?")[0]).rstrip("/")
    assert vendor_of(uri, monkeypatch).base_url == host


@pytest.mark.parametrize("conn_type", VENDORS)
def test_json_on_the_page_uses_no_unknown_field(conn_type: str) -> None:
    for value in shown_connections(conn_type):
        if value.startswith("{"):
            assert json.loads(value).keys() <= {"conn_type", "host", "login", "password", "extra"}
