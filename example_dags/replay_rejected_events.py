"""Send the rejected events of an earlier delivery again, from the UI: *Trigger*, and name the file.

The path is that of `rejected_path` in the delivery's report (its XCom). Correct the file first: in a line with `event`
the event, in one without it the row's `data`. Where the mapping was wrong, give the mended one as `mapping`, as in the
DAG that rejected them. What is rejected again goes to a new file. Try it with `dry_run` first: it sends nothing.

Whoever may trigger this DAG makes the worker read the file that is named: Airflow's setting `[events] allowed_paths`
has to name the folders where it may lie, for instance that of `[events] rejected_path`.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_events.operators.events import SendEventsOperator

with DAG(
    dag_id="replay_rejected_events",
    description="Send the events of a .jsonl file of rejected events again",
    schedule=None,
    catchup=False,
    tags=["events", "replay"],
    render_template_as_native_obj=True,
    params={
        "file": Param(
            "/var/lib/airflow/rejected-events/orders.jsonl",
            type="string",
            pattern=r"\.jsonl$",
            title="File",
            description="Local path or object-storage URI of a .jsonl file",
        ),
        "conn_id": Param(
            "bloomreach_default",
            type="string",
            title="Connection",
            description="Of the vendor that rejected them",
        ),
        "mapping": Param(
            None,
            type=["object", "null"],
            title="Mapping",
            description="Only where that of the delivery was wrong",
        ),
        "max_rejected": Param(0, type="integer", minimum=0, title="May be rejected again"),
        "dry_run": Param(False, type="boolean", title="Dry run", description="Check everything, and send nothing"),
    },
    doc_md=__doc__,
):
    SendEventsOperator(
        task_id="send_again",
        conn_id="{{ params.conn_id }}",
        events="{{ params.file }}",
        mapping="{{ params.mapping }}",
        max_rejected="{{ params.max_rejected }}",
        dry_run="{{ params.dry_run }}",
        retries=3,
    )
