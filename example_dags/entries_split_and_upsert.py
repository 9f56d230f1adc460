"""Tell events by whether their customer exists, create the missing customers, then track all.

Tracking alone would create a stray profile in Bloomreach for each customer whom it does not know. Here the missing
ones come with their attributes first. Looking customers up needs the connection to have private access.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_events.operators.entries import FilterByEntryOperator, UpsertEntryOperator
from airflow_provider_events.operators.events import SendEventsOperator

IDENTITY = {"registered": "customer_id"}

with DAG(
    dag_id="entries_split_and_upsert",
    description="Create the customers who are missing, then send all events",
    schedule=None,
    catchup=False,
    tags=["events", "entries"],
    doc_md=__doc__,
):

    @task
    def orders() -> list[dict[str, Any]]:
        """Stands for a shop's output: one row an order."""
        return [
            {"customer_id": "c-1", "city": "London", "paid_at": "2026-03-01T09:30:00+00:00", "total": 39.8},
            {"customer_id": "c-2", "city": "Paris", "paid_at": "2026-03-01T09:31:00+00:00", "total": 12.5},
        ]

    rows = orders()
    split = FilterByEntryOperator(
        task_id="split",
        conn_id="bloomreach_default",
        events=rows,
        mapping={"name": "purchase", "identity": IDENTITY},
    )
    create = UpsertEntryOperator(
        task_id="create_the_missing",
        conn_id="bloomreach_default",
        entries=split.output["missing"],  # type: ignore[index]  # the XCom `missing`; Airflow types it too narrowly
        mapping={"identity": IDENTITY, "attributes": ["city"]},
    )
    track = SendEventsOperator(
        task_id="track_all",
        conn_id="bloomreach_default",
        events=rows,
        mapping={"name": "purchase", "identity": IDENTITY, "timestamp": "paid_at", "properties": ["total"]},
    )
    create >> track
