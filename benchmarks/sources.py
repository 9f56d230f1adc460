"""What a delivery may read: the same rows from a query, as dictionaries, as events, from a file; and as upserts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.job import Job
from benchmarks.rows import COLUMNS, MAPPING, chunks, query

if TYPE_CHECKING:
    from airflow_provider_events.delivery.resume import Source

__all__ = ["SOURCES", "source_of"]

# By name: what the table calls it.
SOURCES = {
    "sql": "rows of a query",
    "upserts": "rows of a query, as upserts",
    "dictionaries": "list of dictionaries, with a mapping",
    "generator": "generator of dictionaries, with a mapping",
    "lines": "`.jsonl` of rows, with a mapping",
    "events": "list of events as dictionaries",
    "event generator": "generator of `Event`",
    "event lines": "`.jsonl` of events",
}


def source_of(job: Job, identity: str, database: Any) -> Callable[[int], Source]:
    """Makes the job's source of so many rows; what is not read from a database is in memory or in a file before.

    :param identity: key of the customer's id.
    :param database: Airflow's hook.
    """
    from airflow_provider_events.events import Event
    from airflow_provider_events.sources.jsonl import LineRecords
    from airflow_provider_events.sources.mapping import EventMapping
    from airflow_provider_events.sources.rows import EventRecords, SqlRecords
    from airflow_provider_events.sources.sql import SqlSource

    mapping = EventMapping.of({**MAPPING, "identity": {identity: "email"}})
    key_column = "event_id" if job.keyset else None
    if job.source in ("sql", "upserts"):

        def of_query(rows: int) -> Source:
            source = SqlSource(database, query(rows, job.bad_percent), key_column=key_column)
            return SqlRecords(source, mapping, key_column)

        return of_query

    given = [dict(zip(COLUMNS, row, strict=True)) for some in chunks(job.database, job.rows) for row in some]
    if "event" in job.source:
        given = [as_event(row, identity) for row in given]
    paths = {rows: written(Path(job.folder, f"rows-{rows}.jsonl"), given[:rows]) for rows in (job.warm_up, job.rows)}

    def made(rows: int) -> Source:
        some = given[:rows]
        match job.source:
            case "dictionaries":
                return EventRecords(some, mapping)
            case "generator":
                return EventRecords(iterated(some), mapping)
            case "events":
                return EventRecords(some)
            case "event generator":
                return EventRecords(Event(**event) for event in some)
            case _:
                return LineRecords(str(paths[rows]), job.vendor, None if "event" in job.source else mapping)

    return made


def as_event(row: dict[str, Any], identity: str) -> dict[str, Any]:
    """The fields of an event."""
    return {
        "name": row["event"],
        "identity": {identity: row["email"]},
        "timestamp": row["happened_at"],
        "properties": {name: row[name] for name in MAPPING["properties"]},
        "id": row["event_id"],
    }


def iterated(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One after the other."""
    yield from rows


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as JSON Lines."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path
