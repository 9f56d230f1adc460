"""Bloomreach Engagement: single events, and batches of 50 whose results are read one by one.

The names of the ids (`registered`, `cookie`, …) are those of the project. An event for an unknown customer creates
that customer. The same customer, type, time and properties count as one event: a retry does no harm.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_events.operators.events import SendEventOperator, SendEventsOperator
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

with DAG(
    dag_id="bloomreach_events",
    description="One event, a list of events and a query, to Bloomreach Engagement",
    schedule=None,
    catchup=False,
    tags=["events", "bloomreach"],
    params={"customer_id": "1", "segment": "vip"},
    doc_md=__doc__,
):
    # One event, with two ids of the same customer.
    SendEventOperator(
        task_id="enter_segment",
        conn_id="bloomreach_default",
        name="segment_entered",
        identity={"registered": "{{ params.customer_id }}", "cookie": "382d4221-3441-44b7-a676-3eb5f515157f"},
        properties={"segment": "{{ params.segment }}"},
    )

    # A list of events that another task returns.
    @task
    def delivered_parcels() -> list[dict[str, Any]]:
        """Stands for a carrier's tracking API."""
        return [
            {
                "name": "parcel_delivered",
                "identity": {"registered": str(customer)},
                "timestamp": "2026-03-01T11:20:00.250+02:00",
                "properties": {"carrier": "example-post", "parcel": parcel},
                "id": parcel,
            }
            for customer, parcel in [(1, "p-1"), (1, "p-2"), (2, "p-3")]
        ]

    SendEventsOperator(task_id="send_parcels", conn_id="bloomreach_default", events=delivered_parcels())

    # Purchases. Properties are renamed on the way; columns that are not named here stay at home.
    SqlToEventsOperator(
        task_id="send_purchases",
        conn_id="bloomreach_default",
        sql_conn_id="shop",
        sql="SELECT order_id, customer_id, placed_at, total, currency, note FROM orders WHERE customer_id IS NOT NULL",
        key_column="order_id",
        mapping={
            "name": "purchase",
            "identity": {"registered": "customer_id"},
            "timestamp": "placed_at",
            "timezone": "Europe/Bucharest",
            "id": "order_id",
            "properties": {"purchase_id": "order_id", "total_price": "total", "currency": "currency", "note": "note"},
        },
        max_rejected=0.05,
    )
