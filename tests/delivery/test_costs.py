"""What an event keeps in memory, in counts that are the same on every machine: blocks, and bytes at the peak.

`python -m tests.delivery.test_costs [VENDOR…]` also counts the instructions of this package's code, for `make bench`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sqlite3
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType, TracebackType
from typing import Any, Self, cast

import pytest

from airflow_provider_events.contract import Answer, Request
from airflow_provider_events.delivery.accounts import Ledger
from airflow_provider_events.delivery.encoding import Chunk, prepare
from airflow_provider_events.delivery.engine import Engine
from airflow_provider_events.delivery.options import DeliveryOptions, Limits
from airflow_provider_events.delivery.pacing import RateLimiter
from airflow_provider_events.delivery.resume import Resumable
from airflow_provider_events.events import Record
from airflow_provider_events.http.client import Http1Transport
from airflow_provider_events.http.contract import Endpoint
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.sources.rows import SqlRecords
from airflow_provider_events.sources.sql import SqlSource
from airflow_provider_events.vendors.base import Vendor, registry
from tests.conftest import IDENTITY_KEYS
from tests.delivery.harness import QUICK, SENT_AT, Given, planned, simulate
from tests.vendors.wires import vendor

VENDORS = sorted(registry())
pytestmark = pytest.mark.slow
every_vendor = pytest.mark.parametrize("conn_type", VENDORS)
PACKAGE = "airflow_provider_events"
FEW, MANY = 1000, 3000
BLOCKS_OF_A_ROW = 8  # its fragment, identity, properties, and what these share; 7.02 were measured
NOISE = 0.1  # blocks for each request: what the interpreter keeps for itself
TRIES = 4


def codec_of(conn_type: str) -> Vendor:
    """The vendor; that of Embeddables knows its embeddable."""
    return vendor(conn_type, **({"embeddable_id": "flow_given"} if conn_type == "embeddables" else {}))


# -- counting ----------------------------------------------------------------------------------------------------------


class Instructions:
    """How many of this package's instructions have run, on all threads."""

    def __init__(self) -> None:
        self.count = 0

    def on_call(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Look into a function if it is of this package, be it one that `dataclass` has made."""
        if not frame.f_globals.get("__name__", "").startswith(PACKAGE):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return self.on_opcode

    def on_opcode(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Count one."""
        self.count += event == "opcode"
        return self.on_opcode


@contextmanager
def instructions() -> Iterator[Instructions]:
    """Counts until the end of the block; what else traces (a debugger, coverage) is put back."""
    counted, before, in_threads = Instructions(), sys.gettrace(), threading.gettrace()
    threading.settrace(counted.on_call)
    sys.settrace(counted.on_call)
    try:
        yield counted
    finally:
        sys.settrace(before)
        threading.settrace(cast(Any, in_threads))


def blocks() -> int:
    """Memory blocks in use."""
    gc.collect()
    return sys.getallocatedblocks()


# -- rows of a query ---------------------------------------------------------------------------------------------------


class SqliteHook:  # by this name `SqlSource` knows that its cursors stream
    """What `SqlSource` needs of a `DbApiHook`, over a file of SQLite with orders of customers."""

    dialect_name = "sqlite"
    placeholder = "?"

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        rows = [
            (
                f"c{n}@example.com",
                f"2026-03-01T09:{n % 60:02d}:00.{n:06d}+00:00",
                n,
                n / 100,
                "EUR",
                None if n % 2 else "x",
            )
            for n in range(count)
        ]
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE orders (customer, placed_at, number, total, currency, coupon)")
            connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.close()

    def get_conn(self) -> sqlite3.Connection:
        """A new connection."""
        return sqlite3.connect(self._path, check_same_thread=False)


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], SqlRecords]:
    return query_of(tmp_path_factory.mktemp("costs"))


def query_of(folder: Path) -> Callable[[str, int], SqlRecords]:
    """Gives a query of so many orders, mapped for a vendor."""

    @cache
    def database(count: int) -> Any:
        return SqliteHook(folder / f"{count}.db", count)

    def query(conn_type: str, count: int) -> SqlRecords:
        identity = {IDENTITY_KEYS[conn_type]: "customer"}
        mapping = EventMapping(name="order_placed", identity=identity, timestamp="placed_at")
        return SqlRecords(SqlSource(database(count), "SELECT * FROM orders"), mapping)

    return query


def prepared(source: SqlRecords, codec: Vendor) -> list[Chunk]:
    """All rows, ready for the wire."""
    return list(prepare(source.records(), codec, SENT_AT, source.keys))


# -- what is measured --------------------------------------------------------------------------------------------------


def row_instructions(conn_type: str, orders: Callable[[str, int], SqlRecords]) -> float:
    """From the database to fragments of requests, for each row."""

    def cost(count: int) -> int:
        codec, source = codec_of(conn_type), orders(conn_type, count)
        with instructions() as counted:
            prepared(source, codec)
        return counted.count

    cost(FEW)
    return (cost(MANY) - cost(FEW)) / (MANY - FEW)


def row_blocks(conn_type: str, orders: Callable[[str, int], SqlRecords]) -> float:
    """Memory blocks of each row that is ready for the wire."""

    def kept(count: int) -> int:
        codec, source, before = codec_of(conn_type), orders(conn_type, count), blocks()
        rows = prepared(source, codec)
        taken = blocks() - before
        assert sum(map(len, rows)) == count
        return taken

    kept(FEW)
    return (kept(MANY) - kept(FEW)) / (MANY - FEW)


class Agreeable:
    """A transport that answers at once what the vendor says when all is well."""

    def __init__(self, conn_type: str) -> None:
        self._conn_type = conn_type
        self.requests = 0

    async def send(self, request: Request) -> Answer:
        """See `Transport.send`."""
        self.requests += 1
        return answer_to(self._conn_type, request)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""


def answer_to(conn_type: str, request: Request) -> Answer:
    """What the vendor answers when all is well."""
    if request.path.endswith("/batch"):
        return answered_batch((request.body or b"").count(b'"command_id":'))
    body = {
        "bloomreach": b'{"success":true,"errors":[]}',
        "embeddables": b'{"entry_id":"entry_1"}',
        "vibetrace": b'{"results":{"message":"Event created"}}',
        "webengage": b'{"response":{"status":"queued"}}',
    }[conn_type]
    return Answer(200, {"content-type": "application/json"}, body)


@cache
def answered_batch(count: int) -> Answer:
    """Each command of a batch succeeded."""
    results = [{"success": True, "command_id": str(n)} for n in range(count)]
    return Answer(200, {"content-type": "application/json"}, json.dumps({"success": True, "results": results}).encode())


def of_requests(conn_type: str, orders: Callable[[str, int], SqlRecords], *, count_instructions: bool) -> float:
    """Instructions of engine, sender, ledger and feed for each request, or the memory blocks that they keep.

    On a loop whose threads take turns, always in one order.
    """
    codec = codec_of(conn_type)
    everything = prepared(orders(conn_type, MANY), codec)

    def cost(chunks: Sequence[Chunk]) -> tuple[int, int]:
        transport, ledger = Agreeable(conn_type), Ledger(conn_type)

        async def deliver() -> None:
            source = Given(cast(Iterator[Sequence[Record]], iter(chunks)))  # they are prepared already
            limits = Limits(codec.max_batch_size, codec.max_in_flight)
            rate_limiter, options = RateLimiter(None), DeliveryOptions()
            engine = Engine(codec, transport, ledger, limits, options, rate_limiter=rate_limiter, policy=QUICK)
            await engine.run(Resumable(source, given, None, "restart", lambda: None))

        before = blocks()
        with instructions() if count_instructions else nullcontext() as counted:
            simulate(deliver())
        taken = counted.count if counted else blocks() - before
        assert ledger.report().delivered == sum(map(len, chunks))
        return transport.requests, taken

    few = FEW // len(everything[0])
    assert sum(map(len, everything[:few])) == FEW
    cost(everything[:few])
    (requests, less), (more_requests, more) = cost(everything[:few]), cost(everything)
    return (more - less) / (more_requests - requests)


def given(chunks: Any) -> Any:
    """Chunks as they are, like `prepare`."""
    yield from chunks


def http_instructions() -> float:
    """Instructions of our HTTP client for each request; the server is on the same loop, so that nothing overlaps."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async def cost(count: int) -> int:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        request = Request("POST", "/events", b"x" * 300)
        async with server, Http1Transport(Endpoint(url, {"Authorization": "Bearer x"})) as transport:
            with instructions() as counted:
                for _ in range(count):
                    assert (await transport.send(request)).status == 200
        return counted.count

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(cost(10))
        few, many = runner.run(cost(100)), runner.run(cost(300))
    return (many - few) / 200


def least(measure: Callable[[], float]) -> float:
    """The best of a few tries: what else runs in the process allocates, too."""
    return min(measure() for _ in range(TRIES))


@every_vendor
def test_a_row_keeps_few_memory_blocks(conn_type: str, orders: Callable[[str, int], SqlRecords]) -> None:
    assert least(lambda: row_blocks(conn_type, orders)) <= BLOCKS_OF_A_ROW


@every_vendor
def test_a_request_keeps_no_memory(conn_type: str, orders: Callable[[str, int], SqlRecords]) -> None:
    assert least(lambda: of_requests(conn_type, orders, count_instructions=False)) <= NOISE


@every_vendor
def test_memory_does_not_grow_with_the_rows(conn_type: str, orders: Callable[[str, int], SqlRecords]) -> None:
    def peak(count: int) -> int:
        codec, source = codec_of(conn_type), orders(conn_type, count)
        gc.collect()
        tracemalloc.start()
        try:
            run = planned(codec, lambda: Agreeable(conn_type), batch_size=codec.max_batch_size)
            assert run.run(source).delivered == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(500)
    few, many = peak(5000), peak(20_000)
    assert many < 1.2 * few + 100_000


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        query = query_of(Path(folder))
        for name in sys.argv[1:] or VENDORS:
            figures = {
                "row": row_instructions(name, query),
                "request": of_requests(name, query, count_instructions=True),
                "http": http_instructions(),
                "row_blocks": row_blocks(name, query),
            }
            print(json.dumps({"vendor": name} | {key: round(value, 1) for key, value in figures.items()}))
