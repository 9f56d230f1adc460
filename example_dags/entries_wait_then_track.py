"""Wait until a customer exists at the vendor, then track.

Vibetrace and Embeddables refuse events of customers whom they do not know yet, and a form that was filled in a moment
ago may take its time to arrive. The sensor asks once on a worker, then waits on the triggerer, which it shares with
all others: it holds no worker, and what comes back of a customer is dropped unread.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_events.operators.events import SendEventOperator
from airflow_provider_events.sensors.entry import EntryExistsSensor

with DAG(
    dag_id="entries_wait_then_track",
    description="Wait for a customer, then send an event",
    schedule=None,
    catchup=False,
    tags=["events", "entries"],
    params={"email": "ada@example.com"},
    doc_md=__doc__,
):
    wait = EntryExistsSensor(
        task_id="wait_for_customer",
        conn_id="vibetrace_default",
        identity={"email": "{{ params.email }}"},
        deferrable=True,
        poke_interval=30,
        exponential_backoff=True,
        max_wait=600,
        timeout=6 * 3600,
        soft_fail=True,  # a customer who never comes skips the event; a wrong key still fails
    )
    welcome = SendEventOperator(
        task_id="track_welcome",
        conn_id="vibetrace_default",
        name="welcome_offer_sent",
        identity={"email": "{{ params.email }}"},
        properties={"offer": "ten-percent"},
    )
    wait >> welcome
