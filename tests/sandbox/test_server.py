"""The `Sandbox` object, the command line, and what the room may import."""

from __future__ import annotations

import ast
import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import airflow_provider_events.sandbox as room
from airflow_provider_events.sandbox import Sandbox

ROOM = Path(room.__file__).parent
VENDORS = ("embeddables", "vibetrace", "webengage", "bloomreach")


def test_exported_names() -> None:
    assert room.__all__ == ["Sandbox"]


def test_import_is_light() -> None:
    code = "import sys, airflow_provider_events.sandbox; print({'starlette', 'uvicorn', 'airflow'} & set(sys.modules))"
    shown = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOM.parents[1]
    )
    assert shown.stdout.strip() == "set()"


def test_nothing_is_shared_with_what_is_tested() -> None:
    for module in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not name.startswith("airflow") or name.startswith("airflow_provider_events.sandbox")


def test_starts_on_a_free_port_and_stops() -> None:
    with Sandbox() as one, Sandbox() as other:
        assert one.port != other.port
        assert httpx.get(f"{one.url}/_sandbox/summary").status_code == 200
        url = one.url
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_can_be_read_after_it_stopped_and_not_reached_before_it_started() -> None:
    sandbox = Sandbox()
    with pytest.raises(RuntimeError, match="isn't started"):
        sandbox.url  # noqa: B018  # the access is what is tested
    with sandbox:
        httpx.get(f"{sandbox.url}/v1/user/a@example.com")
    assert [request.status for request in sandbox.requests("vibetrace")] == [401]


def test_bodies_may_be_dropped() -> None:
    with Sandbox(keep_bodies=False) as sandbox:
        body = {"userId": "a", "eventName": "b"}
        headers = {"Authorization": "Bearer we-sandbox-key"}
        httpx.post(f"{sandbox.url}/v1/accounts/~sandbox/events", json=body, headers=headers)
        (request,) = sandbox.requests("webengage")
        assert (request.body, request.size > 0) == (None, True)
        assert sandbox.events("webengage")[0].wire == body


def test_reset_forgets_everything(events_sandbox: Sandbox) -> None:
    events_sandbox.add_entries("webengage", [{"userId": "a"}])
    events_sandbox.fault("cut")
    events_sandbox.reset()
    assert not any(any(counts.values()) for counts in events_sandbox.summary().values())
    assert httpx.get(f"{events_sandbox.url}/v1/user/a").status_code == 401


def test_reset_forgets_what_clients_sent_and_did_not_wait_for(events_sandbox: Sandbox) -> None:
    for _ in range(20):
        for n in range(50):
            with socket.create_connection(("127.0.0.1", events_sandbox.port)) as client:
                client.sendall(f"GET /v1/user/c{n} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        events_sandbox.reset()
        assert httpx.get(f"{events_sandbox.url}/v1/user/a").status_code == 401
        assert len(events_sandbox.requests("vibetrace")) == 1


def test_unknown_vendor(events_sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="unknown vendor 'nobody': one of embeddables, vibetrace"):
        events_sandbox.events("nobody")


@pytest.mark.parametrize("vendor", VENDORS)
def test_connection_is_one_that_airflow_reads(events_sandbox: Sandbox, vendor: str) -> None:
    from airflow.models import Connection

    fields = events_sandbox.connection(vendor)
    connection = Connection.from_json(json.dumps(fields))
    assert (connection.conn_type, connection.host) == (vendor, events_sandbox.url)
    assert (connection.login, connection.password) == (fields["login"], fields["password"])
    assert connection.extra_dejson == fields["extra"]


def test_chunked_request_body(events_sandbox: Sandbox) -> None:
    chunks = [b'{"userId": "a", ', b'"eventName"', b': "b"}']
    headers = {"Authorization": "Bearer we-sandbox-key", "content-type": "application/json"}
    url = f"{events_sandbox.url}/v1/accounts/~sandbox/events"
    assert httpx.post(url, content=iter(chunks), headers=headers).is_success


def test_command_line() -> None:
    with Sandbox() as free:
        port = free.port
    command = [sys.executable, "-m", "airflow_provider_events.sandbox", "--port", str(port), "--no-quota"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOM.parents[1])
    assert process.stdout is not None
    with process, process.stdout as output:
        try:
            shown = [output.readline() for _ in range(6)]
            state = httpx.get(f"http://127.0.0.1:{port}/_sandbox/state").json()
        finally:
            process.terminate()
    assert state["settings"] == {"quotas": False, "keep_bodies": True}
    assert [line.split("=")[0] for line in shown[2:]] == [f"export AIRFLOW_CONN_{v.upper()}_DEFAULT" for v in VENDORS]
