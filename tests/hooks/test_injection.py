"""What a user gives the hook: a retry policy for one connection, a shared rate limiter, observers of all kinds."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_events.delivery import job, observers
from airflow_provider_events.delivery.observers import DeliveryObserver
from airflow_provider_events.delivery.pacing import RateLimiter, RetryPolicy
from airflow_provider_events.delivery.progress import Progress
from airflow_provider_events.exceptions import ConfigurationError, VendorUnavailable
from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.hooks.bloomreach import BloomreachHook
from airflow_provider_events.operators.events import SendEventsOperator
from airflow_provider_events.reports import DeliveryReport
from tests.delivery.harness import events

ENDLESS = 30.0


class Noting(DeliveryObserver):
    """Keeps what it is told, and on which threads."""

    def __init__(self) -> None:
        self.figures: list[Progress] = []
        self.reports: list[DeliveryReport] = []
        self.examples: dict[str, Sequence[str]] = {}
        self.threads: set[str] = set()

    def progress(self, progress: Progress) -> None:
        """See `DeliveryObserver.progress`."""
        self.threads.add(threading.current_thread().name)
        self.figures.append(progress)

    def finished(self, report: DeliveryReport, examples: Mapping[str, Sequence[str]]) -> None:
        """See `DeliveryObserver.finished`."""
        self.reports.append(report)
        self.examples = dict(examples)


# -- observers -------------------------------------------------------------------------------------------------------


def test_an_observer_is_told_of_the_delivery_on_a_thread_of_its_own(
    connections: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "PROGRESS_SECONDS", 0.1)
    noting = Noting()
    hook = EventsHook.for_connection("webengage_default", observers=[noting])
    report = hook.deliver(events("webengage", 200))
    assert noting.reports == [report]
    assert len(noting.figures) >= 4, "8 requests at 500 a minute take a second"
    assert [each.ended for each in noting.figures] == [None] * (len(noting.figures) - 1) + [True]
    last = noting.figures[-1].to_dict()
    shown = {name: last[name] for name in ("version", "vendor", "conn_id", "delivered")}
    assert shown == {"version": 1, "vendor": "webengage", "conn_id": "webengage_default", "delivered": 200}
    kept = {name: value for name, value in report.to_dict().items() if name in shown}
    assert kept == shown
    assert noting.threads == {"events-observer"}
    assert "events-observer" not in {thread.name for thread in threading.enumerate()}


def test_an_observer_hears_of_neither_keys_nor_customers(connections: Any, tmp_path: Path) -> None:
    noting = Noting()
    hook = EventsHook.for_connection("bloomreach_default", observers=[noting])
    given = [
        {"name": "paid", "identity": {"registered": f"secret-customer-{n}"}, "properties": {"note": "secret-note"}}
        for n in range(5)
    ]
    wrong = [{**event, "timestamp": "secret-time"} for event in given]
    hook.deliver([*given, *wrong], max_rejected=10, rejected_path=str(tmp_path))
    told = json.dumps([each.to_dict() for each in noting.figures] + [each.to_dict() for each in noting.reports]) + str(
        noting.examples
    )
    assert "row 6" in told
    assert "secret" not in told
    assert not any(secret in told for secret in hook.vendor.secrets())


@pytest.mark.parametrize("fault", [RuntimeError("secret-customer"), SystemExit(1), KeyboardInterrupt()])
def test_an_observer_that_fails_is_one_warning_and_the_others_are_told(
    fault: BaseException, connections: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(DeliveryObserver):
        """Fails whatever it is told."""

        def progress(self, progress: Progress) -> None:
            raise fault

        def finished(self, report: DeliveryReport, examples: Mapping[str, Sequence[str]]) -> None:
            raise fault

    monkeypatch.setattr(job, "PROGRESS_SECONDS", 0.1)
    noting = Noting()
    hook = EventsHook.for_connection("webengage_default", observers=[Failing(), noting])
    assert hook.deliver(events("webengage", 100)).delivered == 100
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == [f"Failing failed ({type(fault).__name__}); the delivery goes on"]
    assert len(noting.figures) > 1
    assert len(noting.reports) == 1


def test_an_observer_that_hangs_delays_nothing_and_the_others_are_told(
    connections: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    class Hanging(DeliveryObserver):
        """Writes to a disk that does not answer."""

        def progress(self, progress: Progress) -> None:
            release.wait(ENDLESS)

    monkeypatch.setattr(job, "PROGRESS_SECONDS", 0.05)
    monkeypatch.setattr(observers, "END_SECONDS", 0.2)
    noting = Noting()
    hook = EventsHook.for_connection("bloomreach_default", observers=[Hanging(), noting])
    before = time.monotonic()
    try:
        assert hook.deliver(events("bloomreach", 100)).delivered == 100
        assert time.monotonic() - before < 5
        assert [message for message in caplog.messages if "busy" in message] == [
            "Hanging is still busy, and is not waited for"
        ]
        assert noting.reports[0].delivered == 100
    finally:
        release.set()


def test_figures_that_come_while_an_observer_is_busy_are_left_out_but_for_the_last(
    connections: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Noting):
        """Takes its time."""

        def progress(self, progress: Progress) -> None:
            time.sleep(0.3)
            super().progress(progress)

    monkeypatch.setattr(job, "PROGRESS_SECONDS", 0.02)
    slow = Slow()
    EventsHook.for_connection("webengage_default", observers=[slow]).deliver(events("webengage", 200))
    assert 2 <= len(slow.figures) <= 6
    assert slow.figures[-1].ended
    assert len(slow.reports) == 1


def test_an_observer_is_told_of_a_failure(connections: Any) -> None:
    noting = Noting()
    hook = EventsHook.for_connection(
        "bloomreach_default", observers=[noting], retry_policy=RetryPolicy(budget_seconds=0.2, base_seconds=0.05)
    )
    connections.fault("status", status=503)
    with pytest.raises(VendorUnavailable) as caught:
        hook.deliver(events("bloomreach", 3))
    assert noting.reports == [caught.value.report]
    assert noting.figures[-1].ended


@pytest.mark.airflow
def test_an_observer_of_a_task_writes_to_a_file(connections: Any, run_dag: Any, tmp_path: Path) -> None:
    path = tmp_path / "told.jsonl"
    result = run_dag(
        f"""
import json
from datetime import datetime, timezone
from airflow.providers.common.compat.sdk import DAG
from airflow_provider_events.delivery.observers import DeliveryObserver
from airflow_provider_events.delivery.pacing import RateLimiter, RetryPolicy
from airflow_provider_events.operators.events import SendEventsOperator


class FileObserver(DeliveryObserver):
    def finished(self, report, examples):
        with open({str(path)!r}, "a") as file:
            file.write(json.dumps(report.to_dict()) + "\\n")


events = [{{"name": "seen", "identity": {{"registered": f"c-{{n}}"}}}} for n in range(3)]
hook_params = {{
    "observers": [FileObserver()], "retry_policy": RetryPolicy(budget_seconds=3600), "rate_limiter": RateLimiter(6000)
}}
with DAG("observed", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None):
    common = {{"conn_id": "bloomreach_default", "hook_params": hook_params}}
    SendEventsOperator(task_id="one", events=events, **common) >> SendEventsOperator.partial(
        task_id="each", **common
    ).expand(events=[events, events[:1]])
""",
        "observed",
    )
    assert result.state == "success"
    told = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(each["delivered"] for each in told) == [1, 3, 3]
    assert result.returned["one"] == told[0]


# -- retry policies and rate limiters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call", [lambda hook: hook.deliver(events("bloomreach", 3)), lambda hook: hook.send(events("bloomreach", 1)[0])]
)
def test_a_retry_policy_counts_for_its_hook_alone(connections: Any, call: Callable[[EventsHook], Any]) -> None:
    connections.fault("status", status=503)
    hasty = RetryPolicy(budget_seconds=0.3, base_seconds=0.1, cap_seconds=0.1)
    before = time.monotonic()
    with pytest.raises(VendorUnavailable):
        call(EventsHook.for_connection("bloomreach_default", retry_policy=hasty))
    assert time.monotonic() - before < 5
    assert EventsHook.for_connection("bloomreach_default").retry_policy == RetryPolicy()


def test_a_retry_policy_counts_on_an_event_loop_and_for_look_ups(connections: Any) -> None:
    async def look() -> None:
        hasty = RetryPolicy(budget_seconds=0.3, base_seconds=0.1, cap_seconds=0.1)
        hook = await EventsHook.afor_connection("vibetrace_default", retry_policy=hasty)
        await hook.aentry_exists({"email": "a@example.com"})

    connections.fault("status", status=503)
    before = time.monotonic()
    with pytest.raises(VendorUnavailable):
        asyncio.run(look())
    assert time.monotonic() - before < 5


def test_deliveries_on_two_threads_share_a_rate_limiter(connections: Any) -> None:
    shared = RateLimiter(1200)

    def deliver(vendor: str) -> None:
        EventsHook.for_connection(f"{vendor}_default", rate_limiter=shared).deliver(events(vendor, 20), batch_size=1)

    threads = [threading.Thread(target=deliver, args=(vendor,)) for vendor in ("bloomreach", "vibetrace")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(ENDLESS)
    at = sorted(request.at for vendor in ("bloomreach", "vibetrace") for request in connections.requests(vendor))
    assert len(at) == 40
    assert at[-1] - at[0] >= 39 * 0.05 * 0.97
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert sum(gap < 0.02 for gap in gaps) <= 4, "one turn after the other, whoever takes it"


def test_a_rate_limiter_and_a_pace_of_its_own_are_one_too_many(connections: Any) -> None:
    hook = EventsHook.for_connection("bloomreach_default", rate_limiter=RateLimiter(60))
    with pytest.raises(ConfigurationError, match="requests_per_minute: the hook's rate_limiter keeps the quota"):
        hook.deliver([], requests_per_minute=30)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"retry_policy": 3}, "retry_policy: has to be of the class RetryPolicy, not int"),
        ({"retry_policy": RetryPolicy}, "retry_policy: has to be of the class RetryPolicy, not type"),
        ({"rate_limiter": 300}, "rate_limiter: has to be of the class RateLimiter, not int"),
        ({"observers": [print]}, "observers: has to be of the class DeliveryObserver, not builtin"),
        ({"retry_polcy": None}, "BloomreachHook: no 'retry_polcy'; did you mean 'retry_policy'"),
        ({"zzz": None}, "BloomreachHook: no 'zzz'; there are conn_id, retry_policy"),
    ],
)
def test_what_is_none_of_them_is_an_error(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        BloomreachHook("bloomreach_default", **given)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RetryPolicy(budget_seconds=-1), "budget_seconds has to be a number of seconds, not -1"),
        (lambda: RetryPolicy(cap_seconds=float("inf")), "cap_seconds has to be a number of seconds, not inf"),
        (lambda: RetryPolicy(base_seconds=True), "base_seconds has to be a number of seconds, not True"),
        (
            lambda: RetryPolicy(max_wait_seconds="9"),  # type: ignore[arg-type]  # that it is refused
            "max_wait_seconds has to be a number of seconds, not '9'",
        ),
        (lambda: RetryPolicy(max_unknown=0), "max_unknown has to be a whole number of at least 1, not 0"),
        (
            lambda: RetryPolicy(max_unknown=1.5),  # type: ignore[arg-type]  # the same
            "max_unknown has to be a whole number of at least 1, not 1.5",
        ),
        (lambda: RateLimiter(0), "requests_per_minute has to be a number above 0, not 0"),
        (lambda: RateLimiter(float("nan")), "requests_per_minute has to be a number above 0, not nan"),
        (
            lambda: SendEventsOperator(task_id="t", conn_id="c", hook_params=[]),
            "hook_params has to be a dict, not list",
        ),
    ],
)
def test_a_wrong_value_is_an_error_where_it_is_written(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make()
