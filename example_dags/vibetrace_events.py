"""Vibetrace: orders as `confirmation` events, everything else by its own name.

A user has to exist at Vibetrace before the event. The API has no field for the time of an event: it counts as of its
arrival, so send soon and often. Only `confirmation` is protected from duplicates, by its `orderId`.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_events.operators.events import SendEventOperator, SendEventsOperator
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

with DAG(
    dag_id="vibetrace_events",
    description="One event, a list of events and a query, to Vibetrace",
    schedule=None,
    catchup=False,
    tags=["events", "vibetrace"],
    params={"email": "ada@example.com"},
    doc_md=__doc__,
):
    # One event. A name that is none of Vibetrace's own is sent as a generic event under that name.
    SendEventOperator(
        task_id="join_loyalty_club",
        conn_id="vibetrace_default",
        name="loyalty_club_joined",
        identity={"email": "{{ params.email }}"},
        properties={"tier": "silver"},
    )

    # A list of events that another task returns. `update` sets attributes of the user.
    @task
    def favourite_cities() -> list[dict[str, Any]]:
        """Stands for a model's output."""
        cities = {"ada@example.com": "London", "grace@example.com": "New York"}
        return [
            {"name": "update", "identity": {"email": email}, "properties": {"city": city}}
            for email, city in cities.items()
        ]

    SendEventsOperator(
        task_id="update_cities",
        conn_id="vibetrace_default",
        events=favourite_cities(),
        on_missing_entry="skip",
    )

    # Orders. `id` becomes the `orderId`: an order that Vibetrace knows already is not counted again.
    SqlToEventsOperator(
        task_id="send_orders",
        conn_id="vibetrace_default",
        sql_conn_id="shop",
        sql="""
            SELECT o.order_id, c.email, o.total
            FROM orders o JOIN customers c ON c.customer_id = o.customer_id
            WHERE c.email IS NOT NULL
        """,
        key_column="order_id",
        mapping={"name": "confirmation", "identity": {"email": "email"}, "id": "order_id", "properties": ["total"]},
        on_missing_entry="skip",
        max_rejected=0.05,
    )
