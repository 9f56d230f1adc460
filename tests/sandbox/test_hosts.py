"""To whom the sandbox answers: names of loopback, the address it listens on, the names it was given; no web page."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from airflow_provider_events.sandbox import Sandbox

PATHS = (
    "/",
    "/_sandbox/credentials",
    "/_sandbox/events?vendor=webengage",
    "/v1/user/a",
    "/projects/p/entries",
    "/none",
)
LOOPBACK = ("localhost", "LOCALHOST", "localhost.", "sandbox.localhost", "127.0.0.1", "127.9.9.9", "[::1]")
FOREIGN = (
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "notlocalhost",
    "10.0.0.1",
    "[fe80::1]",
    "[::ffff:10.0.0.1]",
    "2130706433",
    "",
    "a b",
    "localhost, evil.example",
    "evil.example@localhost",
    "localhost:80:80",
    "localhost:evil",
    "loc\xe4lhost",
)


def raw(port: int, request: str, address: str = "127.0.0.1") -> bytes:
    """The whole answer to a request written by hand."""
    with socket.create_connection((address, port), timeout=10) as client:
        client.sendall(request.encode("latin-1"))
        return b"".join(iter(lambda: client.recv(65536), b""))


def ask(port: int, *headers: str, path: str = "/_sandbox/summary", address: str = "127.0.0.1") -> bytes:
    lines = [f"GET {path} HTTP/1.1", *headers, "Connection: close"]
    return raw(port, "".join(f"{line}\r\n" for line in (*lines, "")), address)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def own_address() -> str:
    """An address of this machine that is not of loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no other address than those of loopback")
        return str(probe.getsockname()[0])


@pytest.mark.parametrize("host", LOOPBACK)
@pytest.mark.parametrize("port", ["", ":{}", ":1"])
def test_names_of_loopback_are_answered(host: str, port: str, events_sandbox: Sandbox) -> None:
    header = f"Host: {host}{port.format(events_sandbox.port)}"
    assert status(ask(events_sandbox.port, header)) == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", FOREIGN)
def test_a_name_that_somebody_led_here_is_refused_in_words(host: str, path: str, events_sandbox: Sandbox) -> None:
    answer = ask(events_sandbox.port, f"Host: {host}", path=path)
    assert status(answer) in (400, 421)
    assert b"sandbox_key" not in answer
    if host in ("evil.example", "10.0.0.1"):
        assert f"does not answer to the host '{host}'".encode() in answer
        assert b"--allowed-host NAME" in answer
    assert not events_sandbox.requests("vibetrace")


@pytest.mark.parametrize("headers", [(), ("Host: localhost", "Host: evil.example")], ids=["none", "two"])
def test_without_one_host_there_is_no_answer(headers: tuple[str, ...], events_sandbox: Sandbox) -> None:
    assert status(ask(events_sandbox.port, *headers)) in (400, 421)


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://localhost:3000", 200),
        ("https://127.0.0.1", 200),
        ("http://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("http://evil.example/http://localhost", 403),
        ("null", 403),
        ("", 403),
    ],
)
def test_web_pages_of_other_hosts_give_no_orders(origin: str, expected: int, events_sandbox: Sandbox) -> None:
    events_sandbox.add_entries("webengage", [{"userId": "a"}])
    answer = httpx.post(f"{events_sandbox.url}/_sandbox/reset", headers={"Origin": origin})
    assert answer.status_code == expected
    assert events_sandbox.summary()["webengage"]["entries"] == (0 if expected == 200 else 1)


def test_a_refused_request_with_a_body_leaves_the_connection_usable(events_sandbox: Sandbox) -> None:
    with httpx.Client(base_url=events_sandbox.url) as client:
        for _ in range(2):
            refused = client.post("/v1/accounts/a/events", headers={"Host": "evil.example"}, content=b"x" * 300_000)
            assert refused.status_code == 421
            assert client.get("/_sandbox/summary").status_code == 200


def test_allowed_names_are_answered_whatever_their_spelling() -> None:
    with Sandbox(allowed_hosts=["Sandbox.", "10.0.0.1"]) as sandbox:
        for host, expected in (("sandbox:8099", 200), ("SANDBOX", 200), ("10.0.0.1", 200), ("sandbox.example", 421)):
            assert status(ask(sandbox.port, f"Host: {host}")) == expected


@pytest.mark.parametrize("bound", ["0.0.0.0", "", "::"])
def test_beyond_loopback_it_warns_and_answers_to_the_addresses_of_this_machine(
    bound: str, caplog: pytest.LogCaptureFixture
) -> None:
    address = "::1" if bound == "::" else own_address()
    with caplog.at_level(logging.WARNING), Sandbox(host=bound) as sandbox:
        assert "listens beyond this machine" in caplog.text
        assert httpx.get(f"{sandbox.url}/_sandbox/summary").status_code == 200
        host = f"[{address}]" if bound == "::" else address
        assert status(ask(sandbox.port, f"Host: {host}:{sandbox.port}", address=address)) == 200
        assert status(ask(sandbox.port, "Host: evil.example", address=address)) == 421
        assert sandbox.url in (f"http://127.0.0.1:{sandbox.port}", f"http://[::1]:{sandbox.port}")
        sandbox.reset()


@pytest.mark.parametrize("bound", ["127.0.0.1", "localhost", "::1"])
def test_on_loopback_it_does_not_warn(bound: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), Sandbox(host=bound) as sandbox:
        assert httpx.get(f"{sandbox.url}/_sandbox/summary").status_code == 200
        sandbox.reset()
    assert not caplog.records


@pytest.mark.parametrize("vendor", ["embeddables", "vibetrace", "webengage", "bloomreach"])
def test_its_connections_beyond_loopback_say_that_plain_http_is_meant(vendor: str) -> None:
    from airflow_provider_events.vendors.connection import is_loopback

    address = own_address()
    with Sandbox(host=address) as sandbox:
        connection = sandbox.connection(vendor)
        assert not is_loopback(address)
        assert connection["host"] == f"http://{address}:{sandbox.port}"
        assert connection["extra"]["allow_http"] is True
        page = httpx.get(f"{sandbox.url}/_sandbox/credentials").json()
        assert page[vendor]["connection"] == connection


def test_the_command_line_warns_and_takes_names() -> None:
    with Sandbox() as free:
        port = free.port
    command = [sys.executable, "-m", "airflow_provider_events", "sandbox", "--port", str(port)]
    command += ["--host", "0.0.0.0", "--allowed-host", "sandbox", "--allowed-host", "vendors.test"]
    folder = Path(__file__).parents[2]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    assert process.stdout is not None
    assert process.stderr is not None
    with process, process.stdout as output, process.stderr as errors:
        try:
            lines = [output.readline() for _ in range(6)]
            warning = errors.readline()
            answers = [status(ask(port, f"Host: {host}")) for host in ("sandbox", "vendors.test:1", "other.test")]
        finally:
            process.terminate()
    assert "listens beyond this machine, on 0.0.0.0" in warning
    assert answers == [200, 200, 421]
    text = lines[2].split("=", 1)[1].strip().strip("'")
    assert json.loads(text)["host"] == f"http://127.0.0.1:{port}"
