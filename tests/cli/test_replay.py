"""Rejected events are sent again: by the operator and on the command line, and only they."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_events.cli.main import main
from airflow_provider_events.exceptions import TooManyRejected
from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.operators.events import SendEventsOperator
from tests.conftest import CUSTOMERS, IDENTITY_KEYS
from tests.delivery.harness import sent_numbers
from tests.operators.test_checkpoints import StateStore, context

VENDORS = ["embeddables", "vibetrace"]
LATE = [f"late{n}@example.com" for n in range(7)]


def report_in(output: str) -> str:
    """The report at the end of an output; Airflow 3.0 logs to the standard output as well."""
    return output[output.rindex("\n{\n") if "\n{\n" in output else 0 :]


def events(vendor: str) -> list[dict[str, Any]]:
    """Forty events, of which seven are of customers that are not there yet, and one that can never be sent."""
    key = IDENTITY_KEYS[vendor]
    customers = [*CUSTOMERS[:33], *LATE]
    made: list[dict[str, Any]] = [
        {"name": "order_paid", "identity": {key: customer}, "properties": {"n": n}, "timestamp": "2026-03-01T09:30:00Z"}
        for n, customer in enumerate(customers)
    ]
    return [*made, {"name": "order_paid", "identity": {}}]


def reject(sandbox: Any, vendor: str, folder: Path) -> Path:
    """Deliver them; the file of the rejected ones."""
    with pytest.raises(TooManyRejected) as caught:
        EventsHook.for_connection(f"{vendor}_default").deliver(events(vendor), rejected_path=str(folder))
    assert caught.value.report is not None
    assert caught.value.report.rejected == 8
    assert sent_numbers(sandbox, vendor) == list(range(33))
    return Path(caught.value.report.rejected_path or "")


def check(sandbox: Any, vendor: str, again: Path, report: dict[str, Any]) -> None:
    """The seven have arrived, the others did not arrive twice, and what can never be sent is rejected once more."""
    assert sent_numbers(sandbox, vendor) == list(range(40))
    assert (report["read"], report["delivered"], report["rejected"]) == (8, 7, 1)
    (line,) = again.read_text().splitlines()
    assert json.loads(line)["field"] == "identity"


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_operator_replays_a_file(vendor: str, connections: Any, tmp_path: Path) -> None:
    file = reject(connections, vendor, tmp_path / "rejected")
    connections.add_entries(vendor, [{"email": email} for email in LATE])
    operator = SendEventsOperator(
        task_id="t",
        conn_id=f"{vendor}_default",
        events=str(file),
        max_rejected=1,
        rejected_path=str(tmp_path / "again"),
    )
    report = operator.execute(context(StateStore()))
    check(connections, vendor, Path(report["rejected_path"]), report)


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_command_replays_a_file(
    vendor: str, connections: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = reject(connections, vendor, tmp_path / "rejected")
    connections.add_entries(vendor, [{"email": email} for email in LATE])
    again = tmp_path / "again.jsonl"
    command = ["replay", str(file), "--conn-id", f"{vendor}_default", "--max-rejected", "1"]
    assert main([*command, "--rejected-path", str(again)]) == 0
    check(connections, vendor, again, json.loads(report_in(capsys.readouterr().out)))


def test_the_command_fails_with_the_accounts_while_customers_are_missing(
    connections: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = reject(connections, "embeddables", tmp_path / "rejected")
    assert main(["replay", str(file), "--conn-id", "embeddables_default"]) == 1
    captured = capsys.readouterr()
    assert "8 of 8 events were rejected" in captured.err
    assert json.loads(report_in(captured.out))["rejected"] == 8


def test_a_dry_run_of_the_command_sends_nothing(
    connections: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = reject(connections, "embeddables", tmp_path / "rejected")
    requests = len(connections.requests("embeddables"))
    command = ["replay", str(file), "--conn-id", "embeddables_default", "--dry-run", "--max-rejected", "1"]
    assert main(command) == 0
    assert json.loads(report_in(capsys.readouterr().out))["unsent"] == 7
    assert len(connections.requests("embeddables")) == requests


@pytest.mark.parametrize(
    ("file", "conn_id", "words"),
    [
        ("missing.jsonl", "embeddables_default", "cannot read"),
        ("rejected.jsonl", "vibetrace_default", "was rejected by 'embeddables'; this connection leads to 'vibetrace'"),
    ],
)
def test_bad_input_is_one_line_of_words(
    file: str, conn_id: str, words: str, connections: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reject(connections, "embeddables", tmp_path / "rejected").rename(tmp_path / "rejected.jsonl")
    assert main(["replay", str(tmp_path / file), "--conn-id", conn_id]) == 1
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err


def test_the_file_that_is_read_is_never_the_one_that_is_written(
    connections: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--rejected-path` with the file's own name: what was rejected must not be lost by replaying it."""
    file = reject(connections, "embeddables", tmp_path / "rejected")
    before = file.read_bytes()
    for name in (str(file), file.as_uri()):
        assert main(["replay", str(file), "--conn-id", "embeddables_default", "--rejected-path", name]) == 1
        assert "name another one" in capsys.readouterr().err
        assert file.read_bytes() == before


def test_a_value_that_json_has_not_is_not_sent_as_null(connections: Any, tmp_path: Path) -> None:
    """An event that was rejected for a NaN must not come back without it: null would wipe a value."""
    event = {"name": "e", "identity": {"registered": "c"}, "properties": {"n": 1, "price": float("nan")}}
    hook = EventsHook.for_connection("bloomreach_default")
    with pytest.raises(TooManyRejected) as caught:
        hook.deliver([event], rejected_path=str(tmp_path))
    assert caught.value.report is not None
    main(["replay", str(caught.value.report.rejected_path), "--conn-id", "bloomreach_default"])
    assert connections.events("bloomreach") == []


def test_rows_that_never_became_an_event_come_back_with_their_mapping(
    connections: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a person does: correct the `data` of the lines, or the mapping, and send the file again."""
    rows = [{"user": f"c-{n}" if n % 2 else None, "customer": f"c-{n}", "n": n} for n in range(6)]
    mapping = {"name": "order_paid", "identity": {"registered": "user"}, "properties": ["n"]}
    report = EventsHook.for_connection("bloomreach_default").deliver(
        rows, mapping=mapping, rejected_path=str(tmp_path), max_rejected=3
    )
    assert report.rejected_path is not None
    file = Path(report.rejected_path)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["data"]["user"] = "c-0"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ["replay", str(file), "--conn-id", "bloomreach_default", "--max-rejected", "2"]
    assert main([*command, "--rejected-path", str(tmp_path / "again.jsonl")]) == 0
    assert json.loads(report_in(capsys.readouterr().out))["delivered"] == 1
    mended = tmp_path / "mapping.json"
    mended.write_text(json.dumps({**mapping, "identity": {"registered": "customer"}}))
    command = ["replay", str(tmp_path / "again.jsonl"), "--conn-id", "bloomreach_default", "--mapping", str(mended)]
    assert main(command) == 0
    assert sent_numbers(connections, "bloomreach") == list(range(6))


@pytest.mark.parametrize("mapping", ["nowhere.json", "{", "[]", '{"name": "x"}', '{"colour": 1}', "/"])
def test_a_wrong_mapping_is_one_line_of_words(
    mapping: str, connections: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", "x.jsonl", "--conn-id", "bloomreach_default", "--mapping", mapping]) == 1
    captured = capsys.readouterr()
    assert "mapping: " in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err


@pytest.mark.slow  # starts Python and imports Airflow
def test_the_command_as_a_process(connections: Any, tmp_path: Path) -> None:
    file = reject(connections, "vibetrace", tmp_path / "rejected")
    connections.add_entries("vibetrace", [{"email": email} for email in LATE])
    command = [sys.executable, "-m", "airflow_provider_events", "replay", str(file), "--conn-id", "vibetrace_default"]
    done = subprocess.run([*command, "--max-rejected", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = f"\n{done.stdout}"  # below the log, on some versions of Airflow
    assert json.loads(printed[printed.index("\n{") :])["delivered"] == 7


@pytest.fixture
def stored(airflow_database: None, connections: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The id of a connection that lives in Airflow's database alone."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    given = connections.connection("vibetrace")
    extra = json.dumps(given.pop("extra", {}))
    with create_session() as session:
        session.add(Connection(conn_id="stored_alone", **given, extra=extra))
    yield "stored_alone"
    with create_session() as session:
        session.query(Connection).filter_by(conn_id="stored_alone").delete()


@pytest.mark.airflow
def test_a_connection_in_airflows_database_is_found(stored: str, connections: Any, tmp_path: Path) -> None:
    path = reject(connections, "vibetrace", tmp_path)
    connections.add_entries("vibetrace", [{"email": email} for email in LATE])
    command = [sys.executable, "-m", "airflow_provider_events", "replay", str(path), "--conn-id", stored]
    done = subprocess.run([*command, "--max-rejected", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(report_in(done.stdout))["delivered"] == 7


@pytest.mark.airflow
@pytest.mark.parametrize(
    ("file", "conn_id", "words"),
    [
        ("here.jsonl", "nowhere", "connection 'nowhere' is not there"),
        ("here.jsonl", "of_another_type", "has the type 'http'"),
        ("nowhere.jsonl", "vibetrace_default", "cannot read"),
        ("s9://bucket/nowhere.jsonl", "vibetrace_default", "s9"),
    ],
)
def test_the_command_ends_in_words(
    file: str,
    conn_id: str,
    words: str,
    airflow_database: None,
    connections: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OF_ANOTHER_TYPE", json.dumps({"conn_type": "http", "host": "example.com"}))
    (tmp_path / "here.jsonl").write_text("")
    path = file if "://" in file else str(tmp_path / file)
    assert main(["replay", path, "--conn-id", conn_id]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
