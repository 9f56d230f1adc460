"""A scheduled sync that may be late or repeated without losing or doubling an hour.

Each run reads the rows of one hour by `interval_column`: from its start up to but not including its end, so that no row
falls between two runs or into both. The query itself has no condition on the time; the bounds are bound by the driver.
An hour that failed can be run again.

`CronDataIntervalTimetable` is what gives a run its hour: with `schedule="@hourly"`, Airflow 3 starts and ends the
data interval at the same moment, and the task says so. Start a run by hand with a logical date.

Switched on, it begins with the last whole hour: nothing is sent of the time before. For earlier hours, and for those
that passed while Airflow stood still, start a backfill (`airflow backfill create --dag-id hourly_event_sync …`; Airflow
2: `airflow dags backfill`); or let them come by themselves, by `catchup=True` and the `start_date` of the first hour
that you want.

`placed_at` holds local times of the shop here, and the mapping names the zone. The same DAG reads PostgreSQL's
`timestamp` and MySQL's `DATETIME`. Where the column holds moments (`timestamptz`, `TIMESTAMP`), drop the `timezone`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

with DAG(
    dag_id="hourly_event_sync",
    description="Orders of each hour, from a shop to Bloomreach Engagement",
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
    start_date=datetime(2026, 3, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,  # one hour after the other, and one run at a time for the vendor's quota
    default_args={
        "retries": 3,  # for outages; a wrong key, mapping or query, and too many bad rows, fail at once without any
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
        interval_column="placed_at",
        key_column="order_id",  # unique and not null: pages by key, no transaction open while the vendor is waited for
        mapping={
            "name": "purchase",
            "identity": {"registered": "customer_id"},
            "timestamp": "placed_at",
            "timezone": "Europe/Bucharest",
            "id": "order_id",
            "properties": ["order_id", "status", "total", "currency"],
        },
        max_growth=10,  # ten times as many orders as in a usual hour are looked at by a person first
        max_rejected=0.01,  # one in a hundred may be bad; all the others are delivered in any case
        # rejected_path="s3://…": where the bad ones are kept; without it, `[events] rejected_path` in airflow.cfg
    )
