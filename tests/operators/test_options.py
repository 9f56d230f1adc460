"""Delivery options as arguments of operators: by name, from `default_args`, in `partial`, and misspelt."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_events.delivery.options import DeliveryOptions
from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.operators.entries import UpsertEntryOperator
from airflow_provider_events.operators.events import SendEventsOperator
from airflow_provider_events.transfers.sql_to_entries import SqlToEntriesOperator
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

FROM_SQL: dict[str, Any] = {"sql": "select 1", "sql_conn_id": "db"}
GIVEN: dict[str, Any] = {
    "on_missing_entry": "wait",
    "missing_entry_timeout": 5.0,
    "max_rejected": 0.5,
    "max_rows": 7,
    "canary": 5,
    "canary_max_rejected": 2,
    "batch_size": 3,
    "max_in_flight": 2,
    "requests_per_minute": 10.0,
    "ordering": "identity",
    "on_source_changed": "fail",
    "dry_run": True,
}
OPERATORS: list[Callable[..., Any]] = [
    partial(SendEventsOperator, events=[]),
    partial(UpsertEntryOperator, identity={"email": "a@example.com"}),
    partial(SqlToEventsOperator, **FROM_SQL, mapping={"name": "e", "identity": {"email": "a"}}),
    partial(SqlToEntriesOperator, **FROM_SQL, mapping={"identity": {"email": "a"}}),
]
each_operator = pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.func.__name__)
make = {"task_id": "t", "conn_id": "bloomreach_default"}


def options_of(operator: Any) -> DeliveryOptions:
    wanted: DeliveryOptions = operator._options()
    return wanted


def test_the_values_here_are_of_all_options_and_no_defaults() -> None:
    assert list(GIVEN) == list(DeliveryOptions.names())
    assert [name for name in GIVEN if getattr(DeliveryOptions(), name) == GIVEN[name]] == []


@each_operator
def test_each_option_is_taken_by_its_name(operator: Callable[..., Any]) -> None:
    assert options_of(operator(**make)) == DeliveryOptions()
    assert options_of(operator(**make, **GIVEN)) == DeliveryOptions(**GIVEN)


@pytest.mark.airflow
@each_operator
def test_each_option_is_taken_from_default_args(operator: Callable[..., Any]) -> None:
    with DAG("d", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None, default_args={**GIVEN, "retries": 3}):
        made = operator(**make)
    assert (options_of(made), made.retries) == (DeliveryOptions(**GIVEN), 3)


@pytest.mark.airflow
@each_operator
def test_each_option_is_taken_by_a_mapped_task(operator: Callable[..., Any]) -> None:
    kind, given = operator.func, dict(operator.keywords)  # type: ignore[attr-defined]  # of a partial
    with DAG("d", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None):
        mapped = kind.partial(**make, **given, **{name: GIVEN[name] for name in GIVEN if name != "batch_size"})
        assert mapped.expand(batch_size=[1, 2]).task_id == "t"


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("max_rejcted", "max_rejected"),
        ("on_mising_entry", "on_missing_entry"),
        ("retires", "retries"),
        ("rejected_pth", "rejected_path"),
    ],
)
@each_operator
def test_a_misspelt_one_is_an_error_with_its_nearest_neighbour(
    operator: Callable[..., Any], misspelt: str, meant: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"takes no '{misspelt}'; did you mean '{meant}'"):
        operator(**make, **{misspelt: 1})


@each_operator
def test_what_is_like_no_option_is_airflows_to_refuse(operator: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match="Invalid arguments were passed"):
        operator(**make, zzzzzz=1)


@each_operator
def test_a_wrong_value_is_an_error_of_the_dag(operator: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="ordering has to be one of none, identity, not 'customer'"):
        operator(**make, ordering="customer")


def test_events_may_ensure_entries_and_upserts_need_not() -> None:
    """A DAG's `default_args` reach those alone that take it."""
    with DAG("d", start_date=datetime(2026, 1, 1, tzinfo=UTC), schedule=None, default_args={"ensure_entry": True}):
        made = [operator(**{**make, "task_id": f"t{n}"}) for n, operator in enumerate(OPERATORS)]
    assert [getattr(operator, "ensure_entry", None) for operator in made] == [True, None, True, None]
    for operator in (OPERATORS[1], OPERATORS[3]):
        with pytest.raises(Exception, match="ensure_entry"):
            operator(**make, ensure_entry=True)
