"""What a caller may ask of a delivery, and when its accounts are a success."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest

from airflow_provider_events.delivery.options import DeliveryKeywords, DeliveryOptions
from airflow_provider_events.events import DeliveryReport
from airflow_provider_events.exceptions import ConfigurationError, TooManyRejected


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"on_missing_entry": "skip"},
        {"on_missing_entry": "fail"},
        {"max_rejected": 0},
        {"max_rejected": 10**9},
        {"max_rejected": 0.0},
        {"max_rejected": 0.999},
        {"batch_size": 1, "max_in_flight": 1},
        {"requests_per_minute": 0.5},
        {"requests_per_minute": 6000},
    ],
    ids=str,
)
def test_good_options(options: dict[str, Any]) -> None:
    DeliveryOptions(**options)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("on_missing_entry", "ignore"),
        ("on_missing_entry", None),
        ("max_rejected", -1),
        ("max_rejected", 1.0),
        ("max_rejected", -0.1),
        ("max_rejected", float("nan")),
        ("max_rejected", True),
        ("max_rejected", "5"),
        ("max_rejected", None),
        ("batch_size", 0),
        ("batch_size", 2.0),
        ("batch_size", True),
        ("batch_size", "10"),
        ("max_in_flight", 0),
        ("max_in_flight", -1),
        ("requests_per_minute", 0),
        ("requests_per_minute", -1.0),
        ("requests_per_minute", float("nan")),
        ("requests_per_minute", True),
        ("requests_per_minute", "100"),
    ],
)
def test_a_bad_option_is_named_with_what_it_got(option: str, value: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        DeliveryOptions(**{option: value})
    assert option in str(caught.value)
    assert repr(value) in str(caught.value)


def test_type_checkers_see_each_option_as_it_is() -> None:
    assert get_type_hints(DeliveryKeywords) == get_type_hints(DeliveryOptions)
    assert list(DeliveryKeywords.__annotations__) == list(DeliveryOptions.names())


def test_keyword_arguments_are_options() -> None:
    assert DeliveryOptions.of({"batch_size": 3, "dry_run": True}) == DeliveryOptions(batch_size=3, dry_run=True)
    with pytest.raises(ConfigurationError, match=r"max_rejcted is no option; did you mean 'max_rejected'\?"):
        DeliveryOptions.of({"max_rejcted": 3})
    with pytest.raises(ConfigurationError, match=r"mappin is no option; did you mean 'mapping'\?"):
        DeliveryOptions.of({"mappin": {}}, ["mapping"])


@pytest.mark.parametrize(
    ("delivered", "rejected", "skipped", "allowed", "good"),
    [
        (10, 0, 0, 0, True),
        (0, 0, 0, 0, True),
        (9, 1, 0, 0, False),
        (9, 1, 0, 1, True),
        (8, 2, 0, 1, False),
        (9, 1, 0, 0.1, True),
        (89, 11, 0, 0.1, False),
        (9, 1, 0, 0.0, False),
        (0, 5, 0, 100, False),
        (0, 5, 0, 0.99, False),
        (0, 1, 9, 5, False),
        (1, 9, 0, 0.9, True),
    ],
)
def test_task_is_not_green_while_rows_failed(
    delivered: int, rejected: int, skipped: int, allowed: int | float, good: bool
) -> None:
    """Mistake 2 of the peers: and where nothing arrived at all, no allowance makes it a success."""
    read = delivered + rejected + skipped
    report = DeliveryReport("bloomreach", read, delivered, rejected, skipped, reasons={"a: b": rejected})
    options = DeliveryOptions(max_rejected=allowed)
    if good:
        options.check_rejections(report)
        return
    with pytest.raises(TooManyRejected, match=rf"{rejected} of {read} events were rejected .*: {rejected} x a: b") as e:
        options.check_rejections(report)
    assert e.value.report == report
    assert not e.value.retryable


def test_what_an_earlier_try_delivered_counts_as_arrived() -> None:
    report = DeliveryReport("bloomreach", read=10, rejected=1, resumed=9)
    DeliveryOptions(max_rejected=1).check_rejections(report)


def test_the_error_shows_the_three_most_common_reasons() -> None:
    reasons = {f"r{n}": 10 - n for n in range(5)}
    report = DeliveryReport("bloomreach", read=41, delivered=1, rejected=40, reasons=reasons)
    with pytest.raises(TooManyRejected, match=r"10 x r0; 9 x r1; 8 x r2$"):
        DeliveryOptions().check_rejections(report)


def test_a_dry_run_that_rejects_less_than_allowed_is_a_success() -> None:
    report = DeliveryReport("bloomreach", read=10, rejected=1, unsent=9)
    DeliveryOptions(max_rejected=1, dry_run=True).check_rejections(report)
    with pytest.raises(TooManyRejected):
        DeliveryOptions(dry_run=True).check_rejections(report)
