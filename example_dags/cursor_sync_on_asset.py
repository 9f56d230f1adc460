"""A sync that runs whenever a table was loaded, however often that is: the cursor says what is new.

The DAG that loads the table names it as an outlet, `Asset("x-warehouse://shop/orders")`. Such a run has no interval,
and two loads may come to one run: `cursor_column` needs neither, for it goes on behind the last row that was settled.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

with DAG(
    dag_id="cursor_sync_on_asset",
    description="Orders, whenever they were loaded, to WebEngage",
    schedule=[Asset("x-warehouse://shop/orders")],
    start_date=datetime(2026, 3, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["events", "webengage"],
    doc_md=__doc__,
):
    SqlToEventsOperator(
        task_id="send_orders",
        conn_id="webengage_default",
        sql_conn_id="shop",
        sql="SELECT order_id, customer_id, status, placed_at, total FROM orders WHERE customer_id IS NOT NULL",
        cursor_column="order_id",  # given in order of the orders' coming, and unique: no second column is needed
        initial_value="earliest",
        mapping={
            "name": "order_placed",
            "identity": {"userId": "customer_id"},
            "timestamp": "placed_at",
            "timezone": "Europe/Bucharest",
            "id": "order_id",
            "properties": ["status", "total"],
        },
        max_rejected=0.01,
    )
