"""WebEngage: single events, and bulks of 25.

WebEngage answers "queued" and later drops in silence what breaks its rules (over-long texts, names that start with
`we_`, a 26th attribute of one type): those events are rejected here, with the reason, before they are sent.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_events.operators.events import SendEventOperator, SendEventsOperator
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

with DAG(
    dag_id="webengage_events",
    description="One event, a list of events and a query, to WebEngage",
    schedule=None,
    catchup=False,
    tags=["events", "webengage"],
    params={"customer_id": 1},
    doc_md=__doc__,
):
    # One event. WebEngage drops a repetition of the same single event within four hours.
    SendEventOperator(
        task_id="renew_subscription",
        conn_id="webengage_default",
        name="Subscription Renewed",
        identity={"userId": "{{ params.customer_id }}"},
        properties={"plan": "yearly", "price": 99},
    )

    # Rows that another task returns, with a mapping that says which key is what.
    @task
    def abandoned_carts() -> list[dict[str, Any]]:
        """Stands for a call of the shop's own API."""
        return [
            {"customer": 1, "left_at": "2026-03-01T09:30:00+02:00", "cart_value": 39.8, "items": 2},
            {"customer": 2, "left_at": "2026-03-01T09:41:10+02:00", "cart_value": 120, "items": 1},
        ]

    SendEventsOperator(
        task_id="send_abandoned_carts",
        conn_id="webengage_default",
        events=abandoned_carts(),
        mapping={
            "name": "Cart Abandoned",
            "identity": {"userId": "customer"},
            "timestamp": "left_at",
            "properties": {"Cart Value": "cart_value", "Items": "items"},
        },
    )

    # Sign-ups, 25 in a request, at most 500 requests a minute: WebEngage's published quota is kept by itself.
    SqlToEventsOperator(
        task_id="send_sign_ups",
        conn_id="webengage_default",
        sql_conn_id="shop",
        sql="SELECT customer_id, signed_up_at, country FROM customers",
        key_column="customer_id",
        mapping={
            "name": "Signed Up",
            "identity": {"userId": "customer_id"},
            "timestamp": "signed_up_at",
            "timezone": "Europe/Bucharest",
            "properties": {"Country": "country"},
        },
    )
