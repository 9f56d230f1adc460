"""What Airflow does after an error is up to a retry policy: give up, wait as told, or wait as usual.

Errors that no retry can heal (refused credentials, a wrong option, too many rejected events) fail the task at once by
themselves, on every Airflow. A policy can do more, because the errors are typed: `RateLimited` says for how long the
vendor wants to be left alone, `VendorUnavailable` that there was no usable answer for five minutes.

Retry policies came with Airflow 3.3. On an older Airflow this DAG is the same without one, and waits `retry_delay`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_events.exceptions import CredentialsRefused, RateLimited, VendorUnavailable
from airflow_provider_events.transfers.sql_to_events import SqlToEventsOperator

if TYPE_CHECKING:
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
else:
    try:
        from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
    except ImportError:  # Airflow before 3.3
        RetryDecision, RetryPolicy = None, object

NIGHT = timedelta(hours=6)


class AsTheVendorSays(RetryPolicy):
    """Waits as long as the vendor asks, gives an outage the night, and never knocks twice with a refused key."""

    def evaluate(self, exception: BaseException, try_number: int, max_tries: int, context: Any = None) -> RetryDecision:
        """What to do after an error; the task's `retries` remain the upper bound."""
        # The operators see to it themselves; a hook in a task does not.
        if isinstance(exception, CredentialsRefused):
            return RetryDecision.fail(reason=f"connection {exception.conn_id} has to be mended first")
        if isinstance(exception, RateLimited) and exception.retry_after is not None:
            delay = timedelta(seconds=exception.retry_after)
            return RetryDecision.retry(delay=delay, reason=f"{exception.conn_id} asks for {delay} of patience")
        if isinstance(exception, VendorUnavailable) and try_number == max_tries:
            return RetryDecision.retry(delay=NIGHT, reason="an outage; the last try is for the morning")
        return RetryDecision.default()


with DAG(
    dag_id="events_retry_policy",
    description="Orders to WebEngage, retried as the vendor says",
    schedule=None,
    start_date=datetime(2026, 3, 1, tzinfo=UTC),
    tags=["events", "webengage"],
    doc_md=__doc__,
):
    policy: dict[str, Any] = {} if RetryDecision is None else {"retry_policy": AsTheVendorSays()}
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
        retries=3,
        retry_delay=timedelta(minutes=5),
        **policy,
    )
