"""The clients in Python. Each `prepare`s by importing what it needs, and then runs: rows in, deliveries counted out.

What each includes is said in docs/performance.md. Imports are inside: every process pays for its own client alone.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.job import Job
from benchmarks.rows import COLUMNS, chunks
from benchmarks.sources import source_of
from benchmarks.wires import WIRES, bodies

__all__ = ["CLIENTS", "Run"]

# Delivers so many rows; how many were delivered.
Run = Callable[[int], int]


def ours(job: Job) -> Run:
    """This package, called as its operator calls it, with a checkpoint in a file."""
    wire = WIRES[job.vendor]
    os.environ["AIRFLOW_CONN_BENCH"] = json.dumps(
        {
            "conn_type": job.vendor,
            "host": job.url,
            "login": "id" if job.vendor == "bloomreach" else "",
            "password": "secret_bench",
            "extra": wire.extra,
        }
    )
    postgres = job.database.startswith("{")
    os.environ["AIRFLOW_CONN_BENCH_ROWS"] = (
        job.database if postgres else json.dumps({"conn_type": "sqlite", "host": job.database})
    )
    from airflow.providers.common.sql.hooks.sql import DbApiHook

    from airflow_provider_events._compat import BaseHook
    from airflow_provider_events.delivery.options import DeliveryOptions
    from airflow_provider_events.hooks.base import EventsHook

    database = BaseHook.get_connection("bench_rows").get_hook()
    assert isinstance(database, DbApiHook)
    source = source_of(job, wire.identity, database)

    def run(rows: int) -> int:
        hook = EventsHook.for_connection("bench")
        if job.requests_per_minute is None:
            hook.vendor.quota = lambda batch_size: None  # type: ignore[method-assign]  # lifted, as the page says
        report = hook.deliver_source(
            source(rows),
            DeliveryOptions(
                max_rejected=rows,
                max_in_flight=job.in_flight,
                requests_per_minute=job.requests_per_minute,
                dry_run=job.dry_run,
            ),
            codec=hook.vendor.upserts() if job.source == "upserts" else None,
            store=FileStore(Path(job.folder, f"checkpoint-{rows}.json")),
            rejected_path=str(Path(job.folder, f"rejected-{rows}.jsonl")) if job.bad_percent else None,
        )
        if report.read != rows:
            raise AssertionError(f"{report.read} rows read of {rows}")
        return report.unsent if job.dry_run else report.delivered

    return run


class FileStore:
    """Keeps a checkpoint in a file: moved into place, as a real store has to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Mapping[str, Any] | None:
        """Nothing: every run starts at the beginning."""
        return None

    def save(self, checkpoint: Mapping[str, Any], *, completed: bool) -> None:
        """Keep it."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({**checkpoint, "completed": completed}))
        fresh.replace(self._path)


def aiohttp_client(job: Job) -> Run:
    """As many workers as requests in flight share one iterator of bodies."""
    import aiohttp
    import orjson

    wire = WIRES[job.vendor]

    async def deliver(rows: int) -> int:
        delivered, work = 0, bodies(wire, job.database, rows)
        headers = {**wire.headers, "Content-Type": "application/json"}
        connector = aiohttp.TCPConnector(limit=job.in_flight)
        async with aiohttp.ClientSession(job.url, connector=connector, headers=headers) as session:

            async def worker() -> None:
                nonlocal delivered
                for body, count in work:
                    async with session.post(wire.path, data=body) as answer:
                        check(answer.status, wire.accepted(orjson.loads(await answer.read())))
                        delivered += count

            await asyncio.gather(*(worker() for _ in range(job.in_flight)))
        return delivered

    return lambda rows: asyncio.run(deliver(rows))


def aiohttp_uvloop(job: Job) -> Run:
    """The same on uvloop."""
    import uvloop

    run = aiohttp_client(job)
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    return run


def httpx_async(job: Job) -> Run:
    """As `aiohttp_client`, with `httpx.AsyncClient`."""
    import httpx
    import orjson

    wire = WIRES[job.vendor]

    async def deliver(rows: int) -> int:
        delivered, work = 0, bodies(wire, job.database, rows)
        headers = {**wire.headers, "Content-Type": "application/json"}
        limits = httpx.Limits(max_connections=job.in_flight, max_keepalive_connections=job.in_flight)
        async with httpx.AsyncClient(base_url=job.url, headers=headers, limits=limits, timeout=60) as client:

            async def worker() -> None:
                nonlocal delivered
                for body, count in work:
                    answer = await client.post(wire.path, content=body)
                    check(answer.status_code, wire.accepted(orjson.loads(answer.content)))
                    delivered += count

            await asyncio.gather(*(worker() for _ in range(job.in_flight)))
        return delivered

    return lambda rows: asyncio.run(deliver(rows))


def httpx_client(job: Job) -> Run:
    """A loop over `httpx.Client.post`."""
    import httpx
    import orjson

    wire = WIRES[job.vendor]

    def run(rows: int) -> int:
        delivered = 0
        with httpx.Client(base_url=job.url, headers={**wire.headers, "Content-Type": "application/json"}) as client:
            for body, count in bodies(wire, job.database, rows):
                answer = client.post(wire.path, content=body)
                check(answer.status_code, wire.accepted(orjson.loads(answer.content)))
                delivered += count
        return delivered

    return run


def requests_session(job: Job) -> Run:
    """A loop over `requests.Session.post`."""
    import orjson
    import requests

    wire = WIRES[job.vendor]

    def run(rows: int) -> int:
        delivered = 0
        with requests.Session() as session:
            session.headers.update({**wire.headers, "Content-Type": "application/json"})
            for body, count in bodies(wire, job.database, rows):
                answer = session.post(job.url + wire.path, data=body)
                check(answer.status_code, wire.accepted(orjson.loads(answer.content)))
                delivered += count
        return delivered

    return run


def http_hook(job: Job) -> Run:
    """A loop over `HttpHook.run`: what a DAG does without a provider for its vendor."""
    os.environ["AIRFLOW_CONN_BENCH_HTTP"] = json.dumps({"conn_type": "http", "host": job.url})
    import orjson
    from airflow.providers.http.hooks.http import HttpHook

    wire = WIRES[job.vendor]
    headers = {**wire.headers, "Content-Type": "application/json"}

    def run(rows: int) -> int:
        delivered, hook = 0, HttpHook(method="POST", http_conn_id="bench_http")
        for body, count in bodies(wire, job.database, rows):
            answer = hook.run(wire.path, data=body, headers=headers)
            check(answer.status_code, wire.accepted(orjson.loads(answer.content)))
            delivered += count
        return delivered

    return run


def segment(job: Job) -> Run:
    """Segment's own SDK and wire: a thread that uploads a queue, or one request per event."""
    from datetime import datetime

    from segment.analytics import Client

    wire = WIRES[job.vendor]

    def run(rows: int) -> int:
        failures: list[object] = []
        client = Client(
            "write_key",
            host=job.url,
            sync_mode=wire.single,
            upload_size=wire.batch,
            max_queue_size=rows + 1,  # with the default, 10,000, events are dropped when the queue is full
            on_error=lambda error, items: failures.append(error),
        )
        for chunk in chunks(job.database, rows):
            for row in chunk:
                client.track(
                    user_id=row[1],
                    event=row[2],
                    properties=dict(zip(COLUMNS[4:], row[4:], strict=True)),
                    timestamp=datetime.fromisoformat(row[3]),
                    message_id=str(row[0]),
                )
        if not wire.single:
            client.shutdown()  # sends what is queued
        return 0 if failures else rows

    return run


def dlt_destination(job: Job) -> Run:
    """dlt with a custom destination that posts with `requests.Session`."""
    os.environ.update({"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR", "DLT_DATA_DIR": job.folder})
    import dlt
    import orjson
    import requests

    wire = WIRES[job.vendor]

    def run(rows: int) -> int:
        delivered = 0
        session = requests.Session()
        session.headers.update({**wire.headers, "Content-Type": "application/json"})

        def send(items: Any, table: Any) -> None:
            nonlocal delivered
            body = wire.encode([[_text(item[column]) for column in COLUMNS] for item in items])
            answer = session.post(job.url + wire.path, data=body)
            check(answer.status_code, wire.accepted(orjson.loads(answer.content)))
            delivered += len(items)

        def read() -> Iterator[list[dict[str, Any]]]:
            for chunk in chunks(job.database, rows):
                yield [dict(zip(COLUMNS, row, strict=True)) for row in chunk]

        destination = dlt.destination(batch_size=wire.batch, max_parallel_load_jobs=1)(send)
        pipeline = dlt.pipeline(f"bench_{rows}", destination=destination, pipelines_dir=f"{job.folder}/{rows}")
        pipeline.run(read(), table_name="events")
        return delivered

    return run


def _text(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def check(status: int, accepted: bool) -> None:
    """Every client looks at what it was told."""
    if status not in (200, 201) or not accepted:
        raise AssertionError(f"not accepted: {status}")


CLIENTS: dict[str, Callable[[Job], Run]] = {
    "ours": ours,
    "aiohttp": aiohttp_client,
    "aiohttp-uvloop": aiohttp_uvloop,
    "httpx": httpx_client,
    "httpx-async": httpx_async,
    "requests": requests_session,
    "http-hook": http_hook,
    "segment": segment,
    "dlt": dlt_destination,
}
