"""A scheduled sync that may be late, repeated or caught up without losing or doubling an hour.

Each run reads the rows of one hour, from its start up to but not including its end, so that no row falls between two
runs or into both. The ends are bound by the driver, never written into the SQL. An hour that failed can be run again,
and hours that were missed are caught up, one after the other.

`CronDataIntervalTimetable` is what gives a run its hour: with `schedule="@hourly"`, Airflow 3 starts and ends the
data interval at the same moment, and such a query would find nothing. Start a run by hand with a logical date, or as
a backfill.

`updated_at` holds moments here (`timestamptz`, or UTC). Where it holds local times, give the bounds as times of that
zone, for a database drops their offset without an error, and name the zone in the mapping:
`{{ data_interval_start.in_timezone('Europe/Bucharest').to_datetime_string() }}` and `"timezone": "Europe/Bucharest"`.

The markers `%(start)s` are those of PostgreSQL and MySQL; SQLite and Oracle write `:start`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

with DAG(
    dag_id="hourly_event_sync",
    description="Orders of each hour, from the warehouse to Bloomreach Engagement",
    schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
    start_date=datetime(2026, 3, 1, tzinfo=UTC),
    catchup=True,
    max_active_runs=1,  # one hour after the other, and one run at a time for the vendor's quota
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=5),
        "retry_exponential_backoff": True,
        "execution_timeout": timedelta(minutes=50),
    },
    tags=["events", "bloomreach"],
    doc_md=__doc__,
):
    SqlToEventsOperator(
        task_id="send_orders",
        conn_id="bloomreach_default",
        sql_conn_id="warehouse",
        sql="""
            SELECT order_id, customer_id, status, updated_at, total, currency
            FROM orders
            WHERE updated_at >= %(start)s AND updated_at < %(end)s
        """,
        parameters={"start": "{{ data_interval_start }}", "end": "{{ data_interval_end }}"},
        key_column="order_id",  # unique and not null: pages by key, no transaction open while the vendor is waited for
        mapping={
            "name_column": "status",
            "identity": {"registered": "customer_id"},
            "timestamp": "updated_at",
            "id": "order_id",
            "properties": ["order_id", "total", "currency"],
        },
        max_rejected=0.01,  # one in a hundred may be bad; all the others are delivered in any case
        rejected_path="{{ var.value.rejected_events }}",  # an Airflow variable: s3://…, gs://…, or a folder
    )
