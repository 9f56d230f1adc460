"""The operators in real Airflow, against the sandbox."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.operators.events import SendEventsOperator
from tests.conftest import IDENTITY_KEYS

pytestmark = pytest.mark.airflow

VENDORS = list(IDENTITY_KEYS)
HEAD = """
from datetime import datetime, timezone
from airflow.providers.common.compat.sdk import DAG, task
from airflow_provider_events.operators.events import SendEventOperator, SendEventsOperator
"""


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_single_event_arrives(vendor: str, connections: Any, run_dag: Any) -> None:
    key = IDENTITY_KEYS[vendor]
    result = run_dag(
        HEAD
        + f"""
with DAG("single_{vendor}", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None):
    SendEventOperator(
        task_id="send",
        conn_id="{vendor}_default",
        name="signed_up",
        identity={{"{key}": "customer1@example.com"}},
        timestamp="2026-03-01T09:30:00+02:00",
        properties={{"run": "{{{{ run_id }}}}", "amount": 39.8}},
    )
""",
        f"single_{vendor}",
    )
    assert result.states == {"send": "success"}
    assert result.returned["send"]["vendor"] == vendor
    assert len(connections.events(vendor)) == 1


def batch_dag(dag_id: str, vendor: str, events: str, **options: Any) -> str:
    """A DAG whose first task returns `events` (an expression), which the second one sends."""
    arguments = "".join(f", {name}={value!r}" for name, value in options.items())
    return (
        HEAD
        + f"""
with DAG("{dag_id}", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None):
    @task
    def collect():
        return {events}

    SendEventsOperator(task_id="send", conn_id="{vendor}_default", events=collect(){arguments})
"""
    )


def listed(vendor: str, count: int, nameless: int = 0) -> str:
    """An expression for `count` good events and some without an identity."""
    key = IDENTITY_KEYS[vendor]
    return (
        f'[{{"name": "order_paid", "identity": {{"{key}": f"customer{{n % 100}}@example.com"}}, "id": n,'
        f' "timestamp": f"2026-03-01T09:{{n % 60:02d}}:00Z", "properties": {{"n": n}}}} for n in range({count})]'
        f' + [{{"name": "order_paid", "identity": {{}}}}] * {nameless}'
    )


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_batch_from_an_xcom_arrives(vendor: str, connections: Any, run_dag: Any) -> None:
    result = run_dag(batch_dag(f"batch_{vendor}", vendor, listed(vendor, 120)), f"batch_{vendor}")
    report = result.returned["send"]
    assert result.states["send"] == "success"
    assert (report["read"], report["delivered"], report["rejected"]) == (120, 120, 0)
    assert len(connections.events(vendor)) == 120


def test_rejected_events_fail_the_task_without_a_retry_after_all_others_arrived(
    connections: Any, run_dag: Any, tmp_path: Path
) -> None:
    """Mistake 2 of the peers: a green task while rows failed."""
    source = batch_dag(
        "rejecting", "bloomreach", listed("bloomreach", 60, nameless=2), rejected_path=str(tmp_path), retries=3
    )
    result = run_dag(source, "rejecting")
    assert result.states["send"] == "failed"
    assert len(connections.events("bloomreach")) == 60
    report = result.returned["send"]
    assert (report["read"], report["delivered"], report["rejected"]) == (62, 60, 2)
    assert report["reasons"] == {"invalid: identity: an event needs at least one id of its customer": 2}
    lines = [json.loads(line) for line in Path(report["rejected_path"]).read_text().splitlines()]
    assert [(line["row"], line["field"]) for line in lines] == [(61, "identity"), (62, "identity")]


def test_as_many_rejected_events_as_allowed_are_a_success(connections: Any, run_dag: Any) -> None:
    result = run_dag(
        batch_dag("tolerant", "webengage", listed("webengage", 30, nameless=2), max_rejected=0.1), "tolerant"
    )
    assert result.states["send"] == "success"
    assert result.returned["send"]["rejected"] == 2


def test_nothing_but_rejected_events_is_a_failure_whatever_is_allowed(connections: Any, run_dag: Any) -> None:
    """Mistake 4 of the peers, turned round: no batch is good because nothing of it was sent."""
    result = run_dag(batch_dag("hopeless", "webengage", listed("webengage", 0, nameless=2), max_rejected=5), "hopeless")
    assert result.states["send"] == "failed"


@pytest.mark.parametrize(("policy", "state"), [("reject", "failed"), ("skip", "success"), ("fail", "failed")])
def test_missing_entries(policy: str, state: str, connections: Any, run_dag: Any) -> None:
    events = listed("vibetrace", 20) + ' + [{"name": "order_paid", "identity": {"email": "nobody@example.com"}}]'
    dag_id = f"missing_{policy}"
    result = run_dag(batch_dag(dag_id, "vibetrace", events, on_missing_entry=policy), dag_id)
    report = result.returned["send"]
    assert result.states["send"] == state
    assert (report["delivered"], report["skipped"]) == (20, int(policy == "skip"))
    assert "nobody@example.com" not in json.dumps(report)


def test_a_dry_run_sends_nothing_and_leaves_nothing(connections: Any, run_dag: Any, tmp_path: Path) -> None:
    source = batch_dag(
        "rehearsal", "bloomreach", listed("bloomreach", 60), dry_run=True, rejected_path=str(tmp_path / "rejected")
    )
    result = run_dag(source, "rehearsal")
    assert result.states["send"] == "success"
    assert (result.returned["send"]["read"], result.returned["send"]["unsent"]) == (60, 60)
    assert connections.requests("bloomreach") == []
    assert not (tmp_path / "rejected").exists()


def test_refused_credentials_fail_without_a_retry(connections: Any, run_dag: Any, monkeypatch: Any) -> None:
    connection = {**connections.connection("bloomreach"), "password": "wrong-secret"}
    monkeypatch.setenv("AIRFLOW_CONN_BLOOMREACH_DEFAULT", json.dumps(connection))
    result = run_dag(batch_dag("locked_out", "bloomreach", listed("bloomreach", 5000), max_in_flight=4), "locked_out")
    assert result.states["send"] == "failed"
    assert 1 <= len(connections.requests("bloomreach")) <= 4


def test_no_events_are_a_success(connections: Any, run_dag: Any) -> None:
    result = run_dag(batch_dag("nothing", "bloomreach", "None"), "nothing")
    assert result.states["send"] == "success"
    assert result.returned["send"]["read"] == 0


@pytest.mark.parametrize(
    ("dag_id", "events"),
    [
        ("literal", "[{'name': '{{ dag.dag_id }}', 'identity': {'registered': 'c-1'}}]"),
        ("as_json", "\"{{ ti.xcom_pull(task_ids='collect') | tojson }}\""),
        ("as_python", "\"{{ ti.xcom_pull(task_ids='collect') }}\""),
    ],
)
def test_events_may_be_a_template(dag_id: str, events: str, connections: Any, run_dag: Any) -> None:
    result = run_dag(
        HEAD
        + f"""
with DAG("{dag_id}", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None):
    @task
    def collect():
        return [{{"name": "{dag_id}", "identity": {{"registered": "c-1"}}, "properties": {{"quote": "it's"}}}}]

    collect() >> SendEventsOperator(task_id="send", conn_id="bloomreach_default", events={events})
""",
        dag_id,
    )
    assert result.states["send"] == "success"
    (event,) = connections.events("bloomreach")
    assert event.wire["event_type"] == dag_id


def test_plain_rows_with_a_mapping(connections: Any, run_dag: Any) -> None:
    rows = '[{"who": f"c-{n}", "at": "2026-03-01T09:00:00Z", "total": n} for n in range(3)]'
    mapping = {"name": "purchase", "identity": {"registered": "who"}, "timestamp": "at"}
    result = run_dag(batch_dag("mapped_rows", "bloomreach", rows, mapping=mapping), "mapped_rows")
    assert result.states["send"] == "success"
    assert [event.wire["properties"] for event in connections.events("bloomreach")] == [{"total": n} for n in range(3)]


def test_dynamic_task_mapping_and_default_args(connections: Any, run_dag: Any) -> None:
    result = run_dag(
        HEAD
        + """
with DAG(
    "fan_out", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None, default_args={"max_rejected": 1}
):
    @task
    def chunks():
        return [
            [{"name": "seen", "identity": {"registered": f"c-{chunk}-{n}"}} for n in range(3)] + [{"name": "nobody"}]
            for chunk in range(2)
        ]

    SendEventsOperator.partial(task_id="send", conn_id="bloomreach_default").expand(events=chunks())
""",
        "fan_out",
    )
    assert result.state == "success"
    assert len(connections.events("bloomreach")) == 6


def test_rendered_events_show_as_a_count() -> None:
    operator = SendEventsOperator(task_id="send", conn_id="x", events=[{"name": "a"}])
    operator.events = [{"name": "a"}, {"name": "b"}]
    assert str(operator.events) == repr(operator.events) == "<2 events>"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"on_missing_entry": "ignore"}, "on_missing_entry"),
        ({"max_rejected": 1.5}, "max_rejected"),
        ({"max_rejected": -1}, "max_rejected"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_in_flight": "many"}, "max_in_flight"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"mapping": {"name": "a", "identity": {"email": "e"}, "nul": "drop"}}, "nulls"),
    ],
)
def test_wrong_options_are_errors_at_dag_parse(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        SendEventsOperator(task_id="send", conn_id="x", events=[], **options)
