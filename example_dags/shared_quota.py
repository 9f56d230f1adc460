"""Two tasks behind one quota of a vendor.

A task keeps the vendor's published rate for itself and knows of no other, so two at once would ask for twice the quota.
Two ways out:

1. **Share it out.** WebEngage publishes 500 bulks a minute. Each of two tasks takes 250 of them by
   `requests_per_minute`, and `max_active_tasks` sees to it that there is no third one at the same time.
2. **Take turns.** With `max_active_tasks=1` a task has the whole quota while it runs. A backlog is done just as soon,
   but a small task may have to wait for a large one.

Here both tasks are in one DAG. Tasks of several DAGs are counted by a pool instead, which is made once; without it they
would wait for ever. Then give each of them `pool="webengage"`:

    airflow pools set webengage 2 "Two at a time, each at half of WebEngage's quota"

What both cannot know, such as another system on the same account, shows in the vendor's answers: the delivery slows
down when `X-RateLimit-Remaining` is nearly used up, and a 429 pauses it as told.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

QUOTA = 500  # WebEngage's bulks a minute
SLOTS = 2

with DAG(
    dag_id="events_shared_quota",
    description="Orders and sign-ups to WebEngage at the same time, within one quota",
    schedule=None,
    start_date=datetime(2026, 3, 1, tzinfo=UTC),
    max_active_tasks=SLOTS,  # of one run, and there is one run at a time
    max_active_runs=1,
    default_args={"retries": 3},
    tags=["events", "webengage"],
    doc_md=__doc__,
):
    shared: dict[str, Any] = {"requests_per_minute": QUOTA / SLOTS}

    SqlToEventsOperator(
        task_id="send_orders",
        conn_id="webengage_default",
        sql_conn_id="shop",
        sql="SELECT order_id, customer_id, placed_at, total FROM orders WHERE customer_id IS NOT NULL",
        key_column="order_id",
        mapping={
            "name": "Order Paid",
            "identity": {"userId": "customer_id"},
            "timestamp": "placed_at",
            "timezone": "Europe/Bucharest",
            "id": "order_id",
            "properties": {"Amount": "total"},
        },
        **shared,
    )

    SqlToEventsOperator(
        task_id="send_customers",
        conn_id="webengage_default",
        sql_conn_id="shop",
        sql="SELECT customer_id, email FROM customers",
        key_column="customer_id",
        mapping={"name": "Customer Known", "identity": {"userId": "customer_id"}, "properties": {"Email": "email"}},
        **shared,
    )
