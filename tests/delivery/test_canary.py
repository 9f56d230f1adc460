"""The canary: so many rows go first, and the others only once each of these has its outcome, and few were rejected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_events.exceptions import CanaryFailed, ConfigurationError, DeliveryError
from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.operators.events import SendEventsOperator
from tests.conftest import CUSTOMERS, IDENTITY_KEYS
from tests.delivery.harness import number_of, sent_numbers
from tests.operators.test_checkpoints import StateStore, context

VENDORS = list(IDENTITY_KEYS)


def events(vendor: str, count: int, bad: Any = ()) -> list[dict[str, Any]]:
    """So many events, of which some have no customer."""
    return [
        {
            "name": "order_paid",
            "identity": {} if n in bad else {IDENTITY_KEYS[vendor]: CUSTOMERS[n % 100]},
            "timestamp": "2026-03-01T09:30:00Z",
            "properties": {"n": n},
        }
        for n in range(count)
    ]


def hook_of(vendor: str) -> EventsHook:
    return EventsHook.for_connection(f"{vendor}_default")


@pytest.mark.parametrize("ordering", ["none", "identity"])
@pytest.mark.parametrize("canary", [1, 7, 100, 0.1])
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_good_canary_is_followed_by_all_the_others(vendor: str, canary: Any, ordering: Any, connections: Any) -> None:
    report = hook_of(vendor).deliver(events(vendor, 230), canary=canary, ordering=ordering)
    assert (report.read, report.delivered) == (230, 230)
    assert sent_numbers(connections, vendor) == list(range(230))


@pytest.mark.parametrize("vendor", VENDORS)
def test_no_request_holds_rows_of_both_parts(vendor: str, connections: Any) -> None:
    hook_of(vendor).deliver(events(vendor, 120), canary=30)
    batch = hook_of(vendor).vendor.max_batch_size
    assert connections.summary()[vendor]["requests"] == -(-30 // batch) + -(-90 // batch)


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_others_wait_until_each_row_of_the_canary_has_its_outcome(vendor: str, connections: Any) -> None:
    """One of its requests is refused for the moment, and comes again: nothing of the others overtakes it."""
    connections.fault("status", vendor=vendor, status=503, times=1)
    hook_of(vendor).deliver(events(vendor, 60), canary=5)
    requests = {number_of(vendor, event.wire): event.request for event in connections.events(vendor)}
    assert max(requests[n] for n in range(5)) < min(requests[n] for n in range(5, 60))


@pytest.mark.parametrize("ordering", ["none", "identity"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_bad_canary_is_a_full_stop(vendor: str, ordering: Any, connections: Any) -> None:
    hook = hook_of(vendor)
    with pytest.raises(
        CanaryFailed, match=r": 3 of the first 20 events were rejected .*not sent: 3 x invalid"
    ) as caught:
        hook.deliver(
            events(vendor, 500, bad=[1, 2, 3]), canary=20, canary_max_rejected=2, max_rejected=500, ordering=ordering
        )
    assert sent_numbers(connections, vendor) == [n for n in range(20) if n not in (1, 2, 3)]
    report = caught.value.report
    assert report is not None
    assert (report.read, report.delivered, report.rejected, report.unsent) == (20, 17, 3, 0)
    assert not caught.value.retryable


def test_what_the_vendor_refuses_counts_as_what_we_refuse(connections: Any) -> None:
    connections.fault("status", vendor="webengage", status=400)
    with pytest.raises(DeliveryError):
        hook_of("webengage").deliver(events("webengage", 500), canary=10, max_rejected=500)
    assert set(sent_numbers(connections, "webengage", None)) <= set(range(10))


@pytest.mark.parametrize(("allowed", "stops"), [(0, True), (2, True), (3, False), (0.15, False), (0.14, True)])
def test_how_many_of_the_canary_may_be_rejected(allowed: Any, stops: bool, connections: Any) -> None:
    options: Any = {"canary": 20, "canary_max_rejected": allowed, "max_rejected": 100}
    hook = hook_of("bloomreach")
    if stops:
        with pytest.raises(CanaryFailed):
            hook.deliver(events("bloomreach", 60, bad=[1, 2, 3]), **options)
    else:
        assert hook.deliver(events("bloomreach", 60, bad=[1, 2, 3]), **options).delivered == 57


def test_a_canary_without_others_leaves_the_verdict_to_max_rejected(connections: Any) -> None:
    report = hook_of("bloomreach").deliver(events("bloomreach", 10, bad=[1]), canary=10, max_rejected=1)
    assert (report.delivered, report.rejected) == (9, 1)


def test_a_file_and_a_generator_have_canaries(connections: Any, tmp_path: Path) -> None:
    lines = [json.dumps(event) for event in events("bloomreach", 40, bad=[0])]
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join(lines))
    operator = SendEventsOperator(
        task_id="t", conn_id="bloomreach_default", events=str(file), canary=0.5, max_rejected=5
    )
    with pytest.raises(Exception, match=": 1 of the first 20 "):
        operator.execute(context())
    with pytest.raises(CanaryFailed, match=": 1 of the first 5 "):
        hook_of("bloomreach").deliver((event for event in events("bloomreach", 50, bad=[4])), canary=5)


def test_a_share_of_a_generator_is_refused(connections: Any) -> None:
    with pytest.raises(ConfigurationError, match="canary: a share needs a source that can be counted"):
        hook_of("bloomreach").deliver((event for event in events("bloomreach", 5)), canary=0.1)


def test_held_events_of_the_canary_are_waited_for(connections: Any) -> None:
    """Whoever is missing is found missing before the others go out."""
    given = events("embeddables", 100)
    given[3]["identity"] = {"email": "nobody@example.com"}
    with pytest.raises(CanaryFailed, match=": 1 of the first 10 "):
        hook_of("embeddables").deliver(
            given, canary=10, on_missing_entry="wait", missing_entry_timeout=0.2, max_rejected=9
        )
    assert sent_numbers(connections, "embeddables") == [n for n in range(10) if n != 3]


# -- tries -----------------------------------------------------------------------------------------------------------


def send(given: list[dict[str, Any]], **options: Any) -> SendEventsOperator:
    return SendEventsOperator(task_id="t", conn_id="bloomreach_default", events=given, **options)


def test_a_retry_behind_the_canary_needs_none(connections: Any) -> None:
    """Whatever was rejected behind it."""
    store, given = StateStore(), events("bloomreach", 400, bad=[150, 151])
    options: Any = {"canary": 20, "max_rejected": 5, "max_in_flight": 1}
    connections.fault("status", vendor="bloomreach", status=403, after=5)
    with pytest.raises(Exception, match=r"403"):
        send(given, **options).execute(context(store))
    connections.clear_faults()
    report = send(given, **options).execute(context(store, try_number=2, max_tries=5))
    assert report["resumed"] > 0
    assert (report["read"], report["rejected"]) == (400, 2)
    assert sent_numbers(connections, "bloomreach") == [n for n in range(400) if n not in (150, 151)]


def test_a_clear_after_a_bad_canary_goes_on_once_more_is_allowed(connections: Any) -> None:
    store, given = StateStore(), events("bloomreach", 100, bad=[1, 2])
    with pytest.raises(Exception, match="2 of the first 20"):
        send(given, canary=20, max_rejected=5).execute(context(store))
    with pytest.raises(Exception, match="2 of the first 20"):
        send(given, canary=20, max_rejected=5).execute(context(store, try_number=2, max_tries=5))
    report = send(given, canary=20, canary_max_rejected=2, max_rejected=5).execute(
        context(store, try_number=3, max_tries=7)
    )
    assert (report["resumed"], report["delivered"], report["rejected"]) == (18, 80, 2)
    assert sent_numbers(connections, "bloomreach") == [n for n in range(100) if n not in (1, 2)]


def test_a_source_that_has_changed_starts_over_with_a_canary(connections: Any) -> None:
    store = StateStore()
    connections.fault("status", vendor="bloomreach", status=403, after=3)
    with pytest.raises(Exception, match=r"403"):
        send(events("bloomreach", 400), canary=20, max_in_flight=1).execute(context(store))
    connections.reset()
    connections.clear_faults()
    with pytest.raises(Exception, match="1 of the first 20"):
        send(events("bloomreach", 400, bad=[0]), canary=20, max_rejected=9).execute(context(store, try_number=2))
    assert sent_numbers(connections, "bloomreach") == list(range(1, 20))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"canary": 0}, "canary has to be above 0"),
        ({"canary": 0.0}, "canary has to be above 0"),
        ({"canary": 1.5}, "canary has to be a count"),
        ({"canary": True}, "canary has to be a count"),
        ({"canary": -1}, "canary has to be a count"),
        ({"canary": 10, "canary_max_rejected": "2"}, "canary_max_rejected has to be a count"),
        ({"canary_max_rejected": 2}, "canary_max_rejected needs canary"),
    ],
)
def test_a_wrong_canary_is_an_error_when_the_dag_is_parsed(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        send([], **options)
