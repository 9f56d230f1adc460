"""What the tests of deliveries share: events, a delivery to the sandbox, odd servers, and a clock that jumps."""

from __future__ import annotations

import asyncio
import json
import selectors
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web

from airflow_provider_events.contract import Answer, Codec, EventContent, Outcome, Request, Verdict
from airflow_provider_events.delivery.accounts import Ledger
from airflow_provider_events.delivery.dead_letter import DeadLetterFile
from airflow_provider_events.delivery.encoding import prepare
from airflow_provider_events.delivery.engine import Engine
from airflow_provider_events.delivery.job import Delivery, Plan
from airflow_provider_events.delivery.observers import DeliveryObserver
from airflow_provider_events.delivery.options import DeliveryOptions, Limits
from airflow_provider_events.delivery.pacing import RateLimiter, RetryPolicy
from airflow_provider_events.delivery.resume import Resumable
from airflow_provider_events.events import DeliveryReport, Event, Record
from airflow_provider_events.exceptions import InvalidEvent
from airflow_provider_events.http import open_transport
from airflow_provider_events.http.contract import Endpoint, Transport
from airflow_provider_events.vendors.base import ConnectionValues, Vendor, registry
from tests.conftest import CUSTOMERS, IDENTITY_KEYS
from tests.delivery.loops import own_loop

VENDORS = list(IDENTITY_KEYS)
MAX_IN_FLIGHT = 4
SENT_AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)

# Long enough never to end a test that should heal, with pauses short enough not to be noticed.
QUICK = RetryPolicy(budget_seconds=20.0, max_wait_seconds=20.0, base_seconds=0.01, cap_seconds=0.05)

ENDLESS_SECONDS = 1_000_000.0  # of simulated time: eleven days

T = TypeVar("T")


# -- events --------------------------------------------------------------------------------------------------------


def events(vendor: str, count: int, **fields: Any) -> list[Event]:
    """Different events of known customers."""
    return [
        Event(
            fields.get("name", "order_paid"),
            {IDENTITY_KEYS[vendor]: CUSTOMERS[n % len(CUSTOMERS)]},
            SENT_AT + timedelta(seconds=n),
            {"n": n, **fields.get("properties", {})},
        )
        for n in range(count)
    ]


class Given:
    """A source that is read once: the chunks of an iterator."""

    cursor = None
    keyed = False

    def __init__(self, chunks: Iterator[Sequence[Record]]) -> None:
        self._chunks = chunks

    def keys(self, records: Sequence[Record]) -> None:
        """There are none."""

    def count(self, limit: int) -> None:
        """It is not known."""

    def records(self, after: Any = None, first_row: int = 1) -> Iterator[Sequence[Record]]:
        """The iterator itself."""
        return self._chunks


def records(source: Iterable[Event], chunk_size: int = 100) -> Given:
    """These events as a source, numbered from 1."""
    numbered = (Record(row, event) for row, event in enumerate(source, start=1))
    return Given(iter(lambda: list(islice(numbered, chunk_size)), []))


def sent_numbers(sandbox: Any, vendor: str, outcome: str | None = "accepted") -> list[int]:
    """The property `n` of each event that the sandbox holds, in ascending order."""
    return sorted(number_of(vendor, event.wire) for event in sandbox.events(vendor, outcome))


def number_of(vendor: str, wire: dict[str, Any]) -> int:
    """The property `n` of an event as the vendor got it."""
    match vendor:
        case "embeddables":
            return int(json.loads(wire["custom_event_props"])["n"])
        case "vibetrace":
            return int(next(iter(wire["event"].values()))["generic"]["n"])
        case "webengage":
            return int(wire["eventData"]["n"])
        case _:
            return int(wire["properties"]["n"])


# -- deliveries over real sockets ----------------------------------------------------------------------------------


class Silent(DeliveryObserver):
    """An observer who keeps what it is told."""

    def __init__(self) -> None:
        self.report: DeliveryReport

    def finished(self, report: DeliveryReport, examples: Mapping[str, Sequence[str]]) -> None:
        """See `DeliveryObserver.finished`."""
        self.report = report


class Memory:
    """A storage in memory; full after some lines."""

    uri = "memory"

    def __init__(self, room: int) -> None:
        self.lines: list[bytes] = []
        self._room = room

    def append(self, data: bytes) -> None:
        """See `Storage.append`."""
        lines = data.splitlines()
        if len(self.lines) + len(lines) > self._room:
            raise OSError(28, "No space left on device")
        self.lines += lines

    def lines_of(self, uri: str) -> Iterable[bytes]:
        """See `Storage.lines_of`."""
        return ()

    def remove(self) -> None:
        """See `Storage.remove`."""


class KeptSink(DeadLetterFile):
    """Rejected events in memory."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.memory = Memory(room)
        super().__init__(self.memory)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """One object for each."""
        return [json.loads(line) for line in self.memory.lines]

    @property
    def rows(self) -> list[int]:
        """Their rows, in ascending order."""
        return sorted(line["row"] for line in self.lines)


def vendor_at(sandbox: Any, name: str, **changes: Any) -> Vendor:
    """A vendor as the sandbox's connection configures it; `changes` replace fields of the connection."""
    given = {**sandbox.connection(name), **changes}
    known = {key: given.get(key) for key in ("host", "login", "password")}
    return registry()[name](ConnectionValues(f"{name}_default", **known, extra=given["extra"]))


def opened(endpoint: Endpoint) -> Transport:
    """What a delivery sends through; tests put another transport here."""
    return open_transport(endpoint)


def delivery(vendor: Vendor, *, timeout_seconds: float = 5.0, verify: bool | str = True, **changes: Any) -> Delivery:
    """A delivery to that vendor over HTTP; for `changes` see `planned`."""
    changes = {"batch_size": vendor.max_batch_size, **changes}
    endpoint = Endpoint(
        vendor.base_url,
        vendor.headers(),
        timeout_seconds=timeout_seconds,
        verify=verify,
        max_connections=changes.get("max_in_flight", MAX_IN_FLIGHT),
    )
    return planned(vendor, lambda: opened(endpoint), vendor=vendor.conn_type, **changes)


def planned(
    codec: Codec,
    open_transport: Callable[[], Transport],
    *,
    observer: Silent | None = None,
    dead_letters: DeadLetterFile | None = None,
    **changes: Any,
) -> Delivery:
    """A delivery; `changes` are fields of its plan, of the plan's limits, or of the plan's options."""
    limits = Limits(
        changes.pop("batch_size", 10),
        changes.pop("max_in_flight", MAX_IN_FLIGHT),
        changes.pop("drain_seconds", 5.0),
    )
    options = DeliveryOptions(
        **{name: changes.pop(name) for name in ("on_missing_entry", "max_rejected", "dry_run") if name in changes}
    )
    plan = {"vendor": "plain", "sent_at": SENT_AT, "retry_policy": QUICK, **changes}
    observers = [observer] if observer else []
    return Delivery(codec, open_transport, Plan(options=options, limits=limits, **plan), observers, dead_letters)


class OddServer:
    """A real HTTP server with one handler for everything; counts what is open at once."""

    def __init__(self, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self._answer = answer
        self.url = ""
        self.open = self.most_open = self.requests = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Count, and let the handler answer."""
        self.requests += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._answer(request)
        finally:
            self.open -= 1


@contextmanager
def odd_server(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]], tls: ssl.SSLContext | None = None
) -> Iterator[OddServer]:
    """Serves `answer` on loopback, on a thread of its own."""
    server = OddServer(answer)

    async def start() -> web.AppRunner:
        application = web.Application(client_max_size=64_000_000)
        application.router.add_route("*", "/{path:.*}", server.handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        server.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    with own_loop("odd-server") as loop:
        runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)


# -- scheduling alone: no network, no real time --------------------------------------------------------------------


class _JumpingSelector(selectors.SelectSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("deadlock: every task waits, and no timer is set")
        self.now += max(timeout, 0.0)
        if self.now > ENDLESS_SECONDS:
            raise RuntimeError("this never ends: only timers that set themselves again are left")
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its clock stands still while there is work, and jumps to the next timer when there is none.

    What would run in a thread runs at once, so that time cannot pass meanwhile.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Simulated seconds."""
        return self._jumping.now

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]  # a future is what its callers need
        """`func(*args)`, done when this returns."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def simulate(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in simulated time."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)


def said(status: int, verdict: str | Sequence[str], **headers: str) -> Answer:
    """An answer that `PlainWire` reads as this verdict, or as one for each event."""
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, _json(verdict))


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


class PlainWire(Codec):
    """A vendor made of nothing: an event is its id on the wire, an answer a list of verdicts."""

    conn_type = "plain"
    timestamp_sent = False

    def __init__(self, max_request_bytes: int = 1_000_000, fragment_overhead: int = 1) -> None:
        self.max_request_bytes = max_request_bytes
        self.fragment_overhead = fragment_overhead

    def encode_content(self, content: EventContent) -> bytes:
        """The event's id."""
        return (content.id or "").encode()

    def request(self, fragments: Sequence[bytes]) -> Request:
        """All ids, with commas between them."""
        return Request("POST", "/", b",".join(fragments))

    def read(self, answer: Answer, count: int) -> Outcome | list[Outcome]:
        """See `said`."""
        verdict = json.loads(answer.body)
        if isinstance(verdict, str):
            return Outcome(Verdict(verdict), "code", "the reason")
        return [Outcome(Verdict(one), "code", "the reason") for one in verdict]


class FakeTransport:
    """Answers with what a coroutine returns; keeps when each request was sent."""

    def __init__(self, answer: Callable[[Request], Awaitable[Answer]]) -> None:
        self._answer = answer
        self.sent: list[tuple[float, list[str]]] = []

    async def send(self, request: Request) -> Answer:
        """See `Transport.send`."""
        self.sent.append((asyncio.get_running_loop().time(), (request.body or b"").decode().split(",")))
        return await self._answer(request)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""


def rows(count: int, size_bytes: int = 0) -> list[Record]:
    """Events for `PlainWire`: their ids count from 1, padded with zeros to a size."""
    numbers = (str(n).zfill(size_bytes) for n in range(1, count + 1))
    return [Record(row, Event("e", {"id": row}, id=number)) for row, number in enumerate(numbers, start=1)]


def faulty(count: int, first: int = 1) -> list[Record]:
    """Rows that are no events."""
    return [Record(row, None, None, InvalidEvent("name", "missing")) for row in range(first, first + count)]


def mixed(*kinds: bool, size_bytes: int = 0) -> list[Record]:
    """Rows from 1: an event where it says True, else none. An event's id is the number of its row."""
    numbered = enumerate(kinds, start=1)
    return [(rows(row, size_bytes)[-1] if good else faulty(1, row)[0]) for row, good in numbered]


def chunked(source: Sequence[Record], size: int = 100) -> Given:
    """Records as a source gives them."""
    return Given(source[at : at + size] for at in range(0, len(source), size))


@dataclass
class Run:
    """An engine with its fakes, to be run in simulated time."""

    answer: Callable[[Request], Awaitable[Answer]]
    wire: PlainWire = field(default_factory=PlainWire)
    batch_size: int = 10
    max_in_flight: int = 4
    drain_seconds: float = 15.0
    requests_per_minute: float | None = None
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    options: DeliveryOptions = field(default_factory=DeliveryOptions)
    dead_letters: KeptSink | None = None

    def __post_init__(self) -> None:
        self.transport = FakeTransport(self.answer)
        self.ledger = Ledger("plain", self.dead_letters)
        self.engine: Engine

    async def through(self, source: Given) -> DeliveryReport:
        """Deliver; the accounts."""
        self.engine = Engine(
            self.wire,
            self.transport,
            self.ledger,
            Limits(self.batch_size, self.max_in_flight, self.drain_seconds),
            self.options,
            rate_limiter=RateLimiter(self.requests_per_minute),
            policy=self.policy,
        )
        prepared = partial(prepare, codec=self.wire, sent_at=SENT_AT, keys=source.keys)
        chunks = Resumable(source, prepared, None, "restart", lambda: None)
        try:
            await self.engine.run(chunks)
        finally:
            if self.dead_letters:
                self.dead_letters.flush()
        return self.ledger.report()
