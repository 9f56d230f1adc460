"""A scheduled sync that may be late or repeated without losing or doubling an hour.

Each run reads the rows of one hour, from its start up to but not including its end, so that no row falls between two
runs or into both. The ends are bound by the driver, never written into the SQL. An hour that failed can be run again.

`CronDataIntervalTimetable` is what gives a run its hour: with `schedule="@hourly"`, Airflow 3 starts and ends the
data interval at the same moment, and such a query would find nothing. Start a run by hand with a logical date.

Switched on, it begins with the last whole hour: nothing is sent of the time before. For earlier hours, and for those
that passed while Airflow stood still, start a backfill; or let them come by themselves, by `catchup=True` and the
`start_date` of the first hour that you want.

`placed_at` holds local times of the shop here, as text (`2026-03-01 09:30:00`), so the bounds are written just so, and
the mapping names the zone. Where the column holds moments (`timestamptz`, or UTC), drop the `timezone` and write the
bounds as `{{ data_interval_start }}`. The markers `:start` are those of SQLite and Oracle; PostgreSQL and MySQL write
`%(start)s`.
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
            WHERE placed_at >= :start AND placed_at < :end AND customer_id IS NOT NULL
        """,
        parameters={
            "start": "{{ data_interval_start.in_timezone('Europe/Bucharest').to_datetime_string() }}",
            "end": "{{ data_interval_end.in_timezone('Europe/Bucharest').to_datetime_string() }}",
        },
        key_column="order_id",  # unique and not null: pages by key, no transaction open while the vendor is waited for
        mapping={
            "name": "purchase",
            "identity": {"registered": "customer_id"},
            "timestamp": "placed_at",
            "timezone": "Europe/Bucharest",
            "id": "order_id",
            "properties": ["order_id", "status", "total", "currency"],
        },
        max_rejected=0.01,  # one in a hundred may be bad; all the others are delivered in any case
        # rejected_path="s3://…": where the bad ones are kept; without it, `[events] rejected_path` in airflow.cfg
    )
