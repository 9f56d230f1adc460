"""Embeddables: what happened after somebody filled in a form is sent back to their entry.

An entry is found by one key of its User Data, here `email`; nothing is sent for people who never filled in the form.
The connection `embeddables_default` names the project and, as `embeddable_id`, the form.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_events.operators.events import SendEventOperator, SendEventsOperator
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

with DAG(
    dag_id="embeddables_events",
    description="One event, a list of events and a query, to Embeddables",
    schedule=None,
    catchup=False,
    tags=["events", "embeddables"],
    params={"email": "ada@example.com"},
    doc_md=__doc__,
):
    # One event. Names are snake_case; the time is the start of the DAG run unless `timestamp` says otherwise.
    SendEventOperator(
        task_id="book_consultation",
        conn_id="embeddables_default",
        name="consultation_booked",
        identity={"email": "{{ params.email }}"},
        properties={"channel": "phone", "minutes": 30},
    )

    # A list of events that another task returns. Embeddables' dashboards read the two `payload_…` objects.
    @task
    def paid_invoices() -> list[dict[str, Any]]:
        """Stands for a call of an accounting system."""
        invoices = [("ada@example.com", "inv-1001", 89.99, "premium"), ("grace@example.com", "inv-1002", 19.5, "basic")]
        return [
            {
                "name": "invoice_paid",
                "identity": {"email": email},
                "timestamp": "2026-03-01T09:30:00+02:00",
                "properties": {
                    "payload_metrics": {"revenue": amount},
                    "payload_dimensions": {"plan": plan, "invoice": number},
                },
                "id": number,
            }
            for email, number, amount, plan in invoices
        ]

    SendEventsOperator(
        task_id="send_paid_invoices",
        conn_id="embeddables_default",
        events=paid_invoices(),
        on_missing_entry="skip",  # who paid without having filled in the form is counted, and is no failure
    )

    # One event for each row of a query; the column `status` names the event.
    SqlToEventsOperator(
        task_id="send_orders",
        conn_id="embeddables_default",
        sql_conn_id="shop",
        sql="""
            SELECT o.order_id, c.email, o.status, o.placed_at, o.total, o.currency
            FROM orders o JOIN customers c ON c.customer_id = o.customer_id
            WHERE c.email IS NOT NULL
        """,
        key_column="order_id",
        mapping={
            "name_column": "status",
            "identity": {"email": "email"},
            "timestamp": "placed_at",
            "timezone": "Europe/Bucharest",
            "id": "order_id",
            "properties": ["order_id", "total", "currency"],
        },
        on_missing_entry="skip",
        max_rejected=0.05,
    )
