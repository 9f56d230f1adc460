"""A scheduled sync of a table whose rows come late: it goes on behind the last row that was settled.

Each run reads the orders behind the stored cursor and 15 minutes before it, where those lie that were committed late;
what was sent of them is known, and passed over. A run that fails, is left out, or is started by hand changes nothing of
that. The query needs no condition on time.

`initial_value="earliest"` sends every row that is there when the DAG is switched on; take `"now"` to begin with what
comes from then on. `placed_at` holds local times of the shop here, so the mapping names their zone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

with DAG(
    dag_id="hourly_cursor_sync",
    description="Orders as they come, late ones too, from a shop to Bloomreach Engagement",
    schedule="@hourly",
    start_date=datetime(2026, 3, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,  # two runs at once would read the same rows
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(minutes=50),
    },
    tags=["events", "bloomreach"],
    doc_md=__doc__,
):
    SqlToEventsOperator(
        task_id="send_orders",
        conn_id="bloomreach_default",
        sql_conn_id="shop",
        sql="""
            SELECT order_id, customer_id, status, placed_at, total, currency
            FROM orders
            WHERE customer_id IS NOT NULL
        """,
        cursor_column=("placed_at", "order_id"),
        initial_value="earliest",
        lookback=timedelta(minutes=15),  # the longest transaction that writes orders, and what the replica is behind
        mapping={
            "name": "purchase",
            "identity": {"registered": "customer_id"},
            "timestamp": "placed_at",
            "timezone": "Europe/Bucharest",
            "id": "order_id",
            "properties": ["order_id", "status", "total", "currency"],
        },
        max_rejected=0.01,
        # rejected_path="s3://…": without one the cursor waits before a rejected row, and offers it again
    )
