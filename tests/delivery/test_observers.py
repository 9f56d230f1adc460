"""The progress of a delivery: its line in the log, the same figures as fields, rates, quota and the estimated end."""

from __future__ import annotations

import io
import json
import logging
import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from airflow_provider_events.delivery import job
from airflow_provider_events.delivery.accounts import Counters
from airflow_provider_events.delivery.observers import LogObserver
from airflow_provider_events.delivery.progress import Meter, Progress
from airflow_provider_events.hooks.base import EventsHook
from tests.delivery.harness import events


class Run:
    """Counts of a delivery whose clock is put forward by hand."""

    def __init__(self, quota: float | None = None, total: int | None = None, **counts: Any) -> None:
        self.counters = Counters(started=time.monotonic(), **counts)
        self._meter = Meter("webengage", "shop", quota, lambda: total)

    def after(self, seconds: float, **more: int) -> Progress:
        """The figures when so much time has passed, and so much more has happened."""
        self.counters.started -= seconds
        for name, count in more.items():
            setattr(self.counters, name, getattr(self.counters, name) + count)
        return self._meter.read(self.counters)


# -- figures ---------------------------------------------------------------------------------------------------------


def test_the_rate_is_that_of_the_last_interval_and_of_the_whole() -> None:
    run = Run()
    run.after(5, read=1000, delivered=1000)
    now = run.after(5, read=200, delivered=200)
    assert [now.events_per_second, now.events_per_second_overall] == pytest.approx([40, 120], abs=0.5)
    assert "; 40 events/s (120 overall)" in str(now)
    assert "; 0 events/s (80 overall)" in str(run.after(5))


def test_the_last_figures_are_not_those_of_a_moment() -> None:
    """The last ones come whenever the delivery ends, a few milliseconds after others perhaps."""
    run = Run()
    run.after(5, delivered=1000)
    run.after(5, delivered=1000)
    assert run.after(0.01, delivered=1).events_per_second == pytest.approx(200, rel=0.02)


@pytest.mark.parametrize(("quota", "requests", "percent"), [(600, 50, 98), (600, 0, 0), (6000, 50, 10)])
def test_the_quota_that_is_used_is_that_of_the_last_minute(quota: int, requests: int, percent: int) -> None:
    run = Run(quota)
    for _ in range(12):
        run.after(5)
    for _ in range(12):
        now = run.after(5, requests=requests)
    assert now.quota_percent == pytest.approx(percent, abs=2)
    assert f"requests, {now.quota_percent} % of {quota} a minute; " in str(now)


def test_the_first_request_goes_at_once_and_is_no_excess() -> None:
    assert Run(12).after(5, requests=2).quota_percent == 100


def test_without_a_quota_there_is_none_to_tell_of() -> None:
    now = Run().after(5, requests=10)
    assert "%" not in str(now)
    assert not {"quota_percent", "requests_per_minute", "total", "ends_at"} & now.to_dict().keys()


def test_the_end_is_estimated_where_the_rows_are_known() -> None:
    now = Run(total=10_000).after(10, read=2500, delivered=1900, rejected=100)
    assert now.ends_at is not None
    assert (now.ends_at - now.updated_at).total_seconds() == pytest.approx(40, abs=0.5)
    assert str(now).startswith("2500 of 10000 read, 1900 delivered, 100 rejected; ")
    assert f"; about 0:00:40 left, until {now.ends_at:%H:%M:%S} UTC" in str(now)


def test_rows_of_an_earlier_try_are_no_speed() -> None:
    """A retry starts with the accounts of the try before it."""
    now = Run(total=10_000, resumed=4500, rejected=500).after(10, read=6000, delivered=900, rejected=100)
    assert now.ends_at is not None
    assert (now.ends_at - now.updated_at).total_seconds() == pytest.approx(40, abs=0.5)
    assert "500 resumed; " in str(now)


@pytest.mark.parametrize(
    ("total", "counts"),
    [(None, {"read": 5, "delivered": 5}), (10, {"read": 10, "delivered": 10}), (10, {"read": 5}), (0, {"read": 0})],
)
def test_there_is_no_end_to_estimate(total: int | None, counts: dict[str, int]) -> None:
    now = Run(total=total).after(5, **counts)
    assert now.ends_at is None
    assert "left" not in str(now)


def test_a_count_that_proves_wrong_is_not_repeated() -> None:
    """Some drivers count what they have fetched."""
    now = Run(total=10).after(5, read=500, delivered=300)
    assert (now.total, now.ends_at) == (None, None)


def test_a_delivery_that_starts_over_has_no_negative_rate() -> None:
    run = Run()
    run.after(5, delivered=1000)
    run.counters.restart()
    assert run.after(5, delivered=100).events_per_second == 0
    assert run.after(5, delivered=100).events_per_second == pytest.approx(20, rel=0.01)


def test_the_figures_are_json_with_times_in_utc() -> None:
    now = Run(500, 1000).after(5, read=100, delivered=50, requests=2)
    figures = json.loads(json.dumps(now.to_dict()))
    assert datetime.fromisoformat(figures["updated_at"]).utcoffset() == timedelta(0)
    assert figures["ends_at"] > figures["updated_at"]
    last = now.at_end().to_dict()
    assert ("ended" in figures, last["ended"], "ends_at" in last) == (False, True, False)


# -- the log -----------------------------------------------------------------------------------------------------------


def test_a_delivery_shows_itself_every_few_seconds(
    connections: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "PROGRESS_SECONDS", 0.2)
    given: list[Any] = [*events("webengage", 398), {"name": "", "identity": {"userId": "x"}}, {"name": "no identity"}]
    hook = EventsHook.for_connection("webengage_default")
    with caplog.at_level(logging.INFO):
        hook.deliver(given, max_rejected=5)
    shown = [record for record in caplog.records if hasattr(record, "events_progress")]
    assert len(shown) >= 4, "16 requests at 500 a minute take two seconds"
    figures = [record.__dict__["events_progress"] for record in shown]
    assert [each["delivered"] for each in figures] == sorted(each["delivered"] for each in figures)
    assert {each["total"] for each in figures} == {400}
    assert all("ends_at" in each for each in figures[1:-1])
    last = figures[-1]
    assert (last["read"], last["delivered"], last["rejected"], last["requests"]) == (400, 398, 2, 16)
    assert "quota_percent" not in last
    line = shown[-1].getMessage()
    assert line.startswith("400 of 400 read, 398 delivered, 2 rejected; 16 requests; ")
    assert "skipped" not in line
    assert "repeated" not in line


def test_the_last_line_of_a_delivery_that_was_stopped_expects_no_more(caplog: pytest.LogCaptureFixture) -> None:
    observer = LogObserver(logging.getLogger(__name__))
    progress = Run(total=1000).after(5, read=500, delivered=400)
    with caplog.at_level(logging.INFO):
        observer.progress(progress)
        observer.progress(progress.at_end())
    before, after = caplog.records
    assert " left, until " in before.getMessage()
    assert "left" not in after.getMessage()
    assert after.__dict__["events_progress"]["ended"]


def test_the_figures_are_fields_only_for_handlers_that_keep_fields() -> None:
    """In Airflow's UI each field would stand behind the line, as JSON."""
    structlog = pytest.importorskip("structlog")
    lines = []
    for chain in ([structlog.contextvars.merge_contextvars], [structlog.stdlib.ExtraAdder()]):
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        processors = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()]
        formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=chain, processors=processors)
        handler.setFormatter(formatter)
        logger = logging.Logger("events", logging.INFO)
        logger.addHandler(handler)
        LogObserver(logger).progress(Run(read=10, delivered=7).after(1))
        lines.append(json.loads(stream.getvalue()))
    plain, rich = lines
    assert list(plain) == ["event"]
    assert plain["event"].startswith("10 read, 7 delivered; ")
    assert (rich["events_progress"]["read"], rich["events_progress"]["delivered"]) == (10, 7)


def test_a_share_of_the_quota_needs_some_seconds() -> None:
    run = Run(6000)
    assert "%" not in str(run.after(0.2, requests=78))
    assert "% of 6000 a minute" in str(run.after(5, requests=78))


def test_one_request_is_one() -> None:
    assert "; 1 request; " in str(Run().after(5, requests=1))
    assert "; 2 requests; " in str(Run().after(5, requests=2))


def test_an_early_error_has_no_lines_of_zeros_before_it(connections: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Any:
        raise RuntimeError("the generator's own")
        yield

    with caplog.at_level(logging.INFO), pytest.raises(RuntimeError):
        EventsHook.for_connection("webengage_default").deliver(broken())
    assert [message for message in caplog.messages if "0 read" in message] == []
    with caplog.at_level(logging.INFO):
        EventsHook.for_connection("webengage_default").deliver([])
    assert [message for message in caplog.messages if "0 read = 0 delivered" in message]
