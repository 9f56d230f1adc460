"""The demo: one shop's orders, sent to all four vendors. `make demo` runs it against the sandbox.

The shop is a SQLite database with a few bad rows in it: guests without a customer, customers without an e-mail
address, a note of many pages, an infinite discount, names that a vendor refuses. Each is rejected with its reason and
kept in a file; all others arrive. One in five may be rejected before a task fails.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

ORDERS = """
    SELECT o.order_id, o.customer_id, c.email, o.status, o.placed_at, o.total, o.currency, o.discount, o.note
    FROM orders o LEFT JOIN customers c ON c.customer_id = o.customer_id
"""

with DAG(
    dag_id="events_demo",
    description="Orders of a shop, to four vendors",
    schedule=None,
    catchup=False,
    tags=["events", "demo"],
    default_args={"key_column": "order_id", "max_rejected": 0.2},
    doc_md=__doc__,
):
    # The status of the order names the event. Who never filled in the form has no entry, and is passed over.
    SqlToEventsOperator(
        task_id="embeddables",
        conn_id="embeddables_default",
        sql_conn_id="shop",
        sql=ORDERS,
        mapping={
            "name_column": "status",
            "identity": {"email": "email"},
            "timestamp": "placed_at",
            "timezone": "Europe/Bucharest",
            "id": "order_id",
            "properties": ["order_id", "total", "currency", "discount"],
        },
        on_missing_entry="skip",
    )

    # Every order is a confirmation; its id becomes the `orderId`, by which Vibetrace drops repetitions.
    SqlToEventsOperator(
        task_id="vibetrace",
        conn_id="vibetrace_default",
        sql_conn_id="shop",
        sql=ORDERS,
        mapping={
            "name": "confirmation",
            "identity": {"email": "email"},
            "id": "order_id",
            "properties": ["total", "discount"],
        },
    )

    # Bulks of 25, paced to the published 500 requests a minute.
    SqlToEventsOperator(
        task_id="webengage",
        conn_id="webengage_default",
        sql_conn_id="shop",
        sql=ORDERS,
        mapping={
            "name_column": "status",
            "identity": {"userId": "customer_id"},
            "timestamp": "placed_at",
            "timezone": "Europe/Bucharest",
            "id": "order_id",
            "properties": ["order_id", "total", "currency", "discount", "note"],
        },
    )

    # Batches of 50. A missing note or discount is left out, so that it wipes nothing.
    SqlToEventsOperator(
        task_id="bloomreach",
        conn_id="bloomreach_default",
        sql_conn_id="shop",
        sql=ORDERS,
        mapping={
            "name": "purchase",
            "identity": {"registered": "customer_id"},
            "timestamp": "placed_at",
            "timezone": "Europe/Bucharest",
            "id": "order_id",
            "properties": {
                "purchase_id": "order_id",
                "total_price": "total",
                "currency": "currency",
                "discount": "discount",
                "note": "note",
            },
        },
    )
