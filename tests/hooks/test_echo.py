"""Vendors, gateways and proxies that repeat all they are sent: nothing of it is written down anywhere."""

from __future__ import annotations

import json
import logging
import threading
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_events.exceptions import EventsError
from airflow_provider_events.hooks.base import EventsHook
from tests.conftest import IDENTITY_KEYS
from tests.delivery.harness import VENDORS

KEY = "kEy-Mark/7=f3a&b"
MARKED = ["ada.mark@example.com", "Lovelace-Mark", "12 Mark Street, London", "+40 722 555 123"]
SPELLINGS: dict[str, Callable[[str], str]] = {
    "json": str,
    "json in json": json.dumps,
    "upper": str.upper,
    "url": quote,
    "base64": lambda text: b64encode(text.encode()).decode(),
}
STATUSES = (200, 400, 401, 404, 503)
EXTRAS = {
    "embeddables": {"project_id": "pr_1", "embeddable_id": "flow_1"},
    "vibetrace": {},
    "webengage": {"license_code": "lic", "existence_check": "portability"},
    "bloomreach": {"project_token": "token"},
}


class Echo(BaseHTTPRequestHandler):
    """Answers with whatever it got, in the words of all four vendors."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Any method."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        headers = [self.headers.get(name, "") for name in ("Authorization", "X-Api-Key")]
        server: Any = self.server
        fragments = [*headers, self.path, body, *(" ".join(headers), body)]
        texts = [server.spelled(fragment) for fragment in fragments if fragment]
        said = " | ".join(texts)
        errors = [{"message": text, "description": text} for text in texts]
        answer = {
            "error": {"code": texts[server.count % len(texts)], "message": said},
            "response": {"status": "error", "message": said},
            "errors": errors if "Basic" not in headers[0] else [*texts],
            "message": said,
            "success": False,
        }
        server.count += 1
        data = json.dumps(answer).encode()
        self.send_response(server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Request-Id", server.request_id or quote(headers[server.count % 2] or self.path)[:200])
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def echo() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.status, server.spelled, server.count, server.request_id = 400, str, 0, ""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def lead_to(echo: Any, vendor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection `echo`, without budget."""
    monkeypatch.setattr("airflow_provider_events.delivery.pacing.RetryPolicy.backoff", lambda *_: 400.0)
    connection = {
        "conn_type": vendor,
        "host": f"http://127.0.0.1:{echo.server_address[1]}",
        "login": "key-id" if vendor == "bloomreach" else None,
        "password": KEY,
        "extra": EXTRAS[vendor],
    }
    monkeypatch.setenv("AIRFLOW_CONN_ECHO", json.dumps(connection))


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("vendor", VENDORS)
def test_what_a_vendor_repeats_is_written_down_nowhere(
    vendor: str,
    spelling: str,
    echo: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    """Errors with all their attributes, logs, reports, rejected reasons and codes, tests of the connection."""
    lead_to(echo, vendor, monkeypatch)
    echo.spelled = SPELLINGS[spelling]
    email, name, street, phone = MARKED
    identity = {IDENTITY_KEYS[vendor]: email}
    event = {"name": "signed_up", "identity": identity, "properties": {"who": {name: street}, "phone": phone}}
    path = tmp_path / "rejected.jsonl"

    def deliver(hook: EventsHook) -> Any:
        return hook.deliver([event] * 5, rejected_path=str(path), max_rejected=5)

    calls: list[Callable[[EventsHook], Any]] = [
        deliver,
        lambda hook: hook.send(event),
        lambda hook: hook.upsert(identity, {"who": street, "phone": phone}),
        lambda hook: hook.lookup([identity]),
        lambda hook: hook.test_connection(),
    ]
    written = []
    with caplog.at_level(logging.DEBUG):
        for echo.status in STATUSES:
            for call in calls:
                with suppress(EventsError):
                    try:
                        written.append(repr(call(EventsHook.for_connection("echo"))))
                    except EventsError as error:
                        report = getattr(error, "report", None)
                        written += [repr(error), repr(error.__dict__), repr(report and report.to_dict())]
                        written += traceback.format_exception(error)
            if path.exists():
                lines = map(json.loads, path.read_text().splitlines())
                written += [repr([line["code"], line["field"], line["reason"]]) for line in lines]
    written.append(caplog.text)
    everything = "\n".join(written).lower()
    assert "***" in everything
    for private in (KEY, *MARKED):
        for spelled in {
            private,
            quote(private),
            quote(private, safe=""),
            escape(private),
            SPELLINGS[spelling](private),
        }:
            assert spelled.lower() not in everything
    for part in ("kEy-Mark", "Lovelace", "ada.mark", "Mark Street"):
        assert part.lower() not in everything


@pytest.mark.parametrize("status", [200, 302, 401, 404, 503])
@pytest.mark.parametrize("vendor", VENDORS)
def test_an_id_of_the_request_that_repeats_the_customer_is_left_out(
    vendor: str, status: int, echo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_events.delivery.pacing.RetryPolicy.backoff", lambda *_: 400.0)
    customer = "Cust-Zxq81"
    connection = {
        "conn_type": vendor,
        "host": f"http://127.0.0.1:{echo.server_address[1]}",
        "login": "key-id" if vendor == "bloomreach" else None,
        "password": KEY,
        "extra": EXTRAS[vendor],
    }
    monkeypatch.setenv("AIRFLOW_CONN_ECHO", json.dumps(connection))
    echo.status, echo.request_id = status, customer
    identity = {IDENTITY_KEYS[vendor]: customer}
    event = {"name": "signed_up", "identity": identity, "properties": {}}
    calls: list[Callable[[EventsHook], Any]] = [
        lambda hook: hook.send(event),
        lambda hook: hook.deliver([event] * 3),
        lambda hook: hook.upsert(identity, {"a": 1}),
    ]
    if vendor != "embeddables":  # its look-ups list entries, and say of no customer
        calls.append(lambda hook: hook.lookup([identity]))
    failed = []
    for call in calls:
        try:
            call(EventsHook.for_connection("echo"))
        except EventsError as error:
            failed.append(repr(error.__dict__))
    assert failed
    assert customer not in "".join(failed)
