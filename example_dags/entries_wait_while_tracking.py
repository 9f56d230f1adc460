"""Track, and let the few events wait whose customer does not exist yet.

The cheapest of all ways where most customers exist: nothing is asked beforehand. The vendor's refusal of an event is
the answer, and only the events that it refused are held and tried again.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_events.operators.events import SendEventsOperator

with DAG(
    dag_id="entries_wait_while_tracking",
    description="Send events; those of customers who are not there yet wait",
    schedule=None,
    catchup=False,
    tags=["events", "entries"],
    doc_md=__doc__,
):

    @task
    def booked() -> list[dict[str, Any]]:
        """Stands for a booking system's output."""
        return [
            {"name": "consultation_booked", "identity": {"email": email}, "timestamp": "2026-03-01T09:30:00+02:00"}
            for email in ("ada@example.com", "grace@example.com")
        ]

    SendEventsOperator(
        task_id="track_bookings",
        conn_id="embeddables_default",
        events=booked(),
        on_missing_entry="wait",
        missing_entry_timeout=1800,
    )
