"""Which of many entries exist: bounded, paced and repeatable look-ups, on one connection's quota.

A look-up only reads. What comes back is compared and dropped; this module keeps nothing of it but a yes or a no.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from airflow_provider_events.contract import Answer, LookupCodec, Outcome, Request, Verdict
from airflow_provider_events.delivery.accounts import Counters
from airflow_provider_events.delivery.pacing import RateLimiter, RetryPolicy, limiter_of
from airflow_provider_events.delivery.sender import Sender
from airflow_provider_events.exceptions import InvalidEvent
from airflow_provider_events.http import open_transport
from airflow_provider_events.http.contract import Endpoint, Transport
from airflow_provider_events.lookups.listing import Place, Reader
from airflow_provider_events.redaction import About, Private, Redactor, nobody

__all__ = ["Identity", "Line", "Progress", "Search", "open_line"]

Identity = Mapping[str, str | int]


@dataclass(slots=True)
class Progress:
    """What a search knows so far, in a form that holds no customer: positions, not identities.

    :param total: how many different identities are searched.
    :param fingerprint: of the identities, so that another list never inherits this progress.
    :param found: positions of those that exist.
    :param place: how far a listing has been read.
    :param let_in: the vendor itself has answered; see `Sender`.
    :param answered: one look-up of this search was answered.
    """

    total: int
    fingerprint: str
    found: set[int] = field(default_factory=set)
    place: Place = field(default_factory=Place)
    let_in: bool = False
    answered: bool = False

    def pack(self) -> dict[str, Any]:
        """As JSON: about one bit for each identity, before compression."""
        bits = bytearray((self.total + 7) // 8)
        for position in self.found:
            bits[position // 8] |= 1 << position % 8
        return {
            "total": self.total,
            "fingerprint": self.fingerprint,
            "found": b64encode(zlib.compress(bytes(bits))).decode("ascii"),
            "place": self.place.pack(),
            "let_in": self.let_in,
            "answered": self.answered,
        }

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> Progress:
        """The inverse of `pack`."""
        bits = zlib.decompressobj().decompress(b64decode(packed["found"]), (packed["total"] + 7) // 8)
        found = {n for n in range(packed["total"]) if bits[n // 8] >> n % 8 & 1}
        place = Place.unpack(packed["place"]) if "place" in packed else Place()
        let_in, answered = packed.get("let_in", False), packed.get("answered", True)
        return cls(packed["total"], packed["fingerprint"], found, place, let_in, answered)


class Search:
    """Looks for entries, round by round; what has been found is not asked for again.

    :param identities: equal ones are asked for once.
    :param needed: a round ends early once so many of the different identities are found. None: all.
    :param progress: packed, of an earlier search for the same identities; another one's is ignored.
    :ivar answers: how many answers were read.
    """

    def __init__(
        self,
        identities: Sequence[Identity],
        *,
        needed: int | None = None,
        progress: Mapping[str, Any] | None = None,
    ) -> None:
        self._identities = identities
        keys = map(_digest, identities)
        positions: dict[bytes, int] = {}
        self._position = [positions.setdefault(key, len(positions)) for key in keys]
        self._wanted: list[Identity] = []
        for identity, position in zip(identities, self._position, strict=True):
            if position == len(self._wanted):
                self._wanted.append(identity)
        self.needed = len(self._wanted) if needed is None else needed
        fingerprint = blake2b(b"".join(positions), digest_size=16).hexdigest()
        self.progress = Progress(len(self._wanted), fingerprint)
        of_this = {"fingerprint": fingerprint, "total": len(self._wanted)}
        if progress is not None and of_this.items() <= progress.items():
            self.progress = Progress.unpack(progress)
        self.answers = 0
        self._direct: list[int] = []
        self._listed: list[int] = []
        self._listing: Reader | None = None

    @property
    def different(self) -> int:
        """How many different identities there are."""
        return len(self._wanted)

    @property
    def enough(self) -> bool:
        """As many were found as are needed."""
        return len(self.progress.found) >= self.needed

    def found(self) -> list[Identity]:
        """Those of the given identities whose entry exists, in their order."""
        return [i for i, n in zip(self._identities, self._position, strict=True) if n in self.progress.found]

    def missing(self) -> list[Identity]:
        """Those not found so far, in their order."""
        return [i for i, n in zip(self._identities, self._position, strict=True) if n not in self.progress.found]

    def exist(self) -> list[bool]:
        """For each of the given identities whether its entry was found."""
        return [n in self.progress.found for n in self._position]

    def prepare(self, vendor: LookupCodec) -> None:
        """Check every identity, before the first request; once, and off the event loop where there are many.

        :raises InvalidEvent: one of them is none that the vendor can be asked for.
        :raises ConfigurationError: the vendor or the connection allows no look-ups.
        """
        self._direct, self._listed = [], []
        for position, identity in enumerate(self._wanted):
            try:
                asked = vendor.lookup(identity)
            except InvalidEvent as fault:
                raise InvalidEvent(f"identities[{self._position.index(position)}]", str(fault)) from None
            (self._listed if asked is None else self._direct).append(position)
        listing = vendor.listing([self._wanted[n] for n in self._listed]) if self._listed else None
        self._listing = None
        if listing is not None:
            self._listing = Reader(listing, self.progress.place, self._found_listed, self._all_listed)

    def _found_listed(self, positions: Collection[int]) -> None:
        self.answers += 1
        self.progress.answered = True
        self.progress.found.update(self._listed[n] for n in positions)

    def _all_listed(self) -> bool:
        return self.enough or self.progress.found.issuperset(self._listed)

    async def round(self, vendor: LookupCodec, line: Line) -> None:
        """Ask once for each that is not found yet; what was found before an error stays found.

        :raises DeliveryError: credentials refused, vendor unavailable, or rate limited for long.
        :raises InvalidEvent: the vendor refuses to be asked for one of the identities.
        """
        line.sender.let_in = line.sender.let_in or self.progress.let_in
        try:
            await self._ask_each([n for n in self._direct if n not in self.progress.found], vendor, line)
            if self._listing is not None and not self._all_listed():
                await self._listing.read(line)
        finally:
            self.progress.let_in = line.sender.let_in

    async def _ask_each(self, positions: Sequence[int], vendor: LookupCodec, line: Line) -> None:
        todo = iter(positions)
        count = min(line.max_in_flight, len(positions))
        workers = [asyncio.create_task(self._ask(todo, vendor, line)) for _ in range(count)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _ask(self, todo: Iterator[int], vendor: LookupCodec, line: Line) -> None:
        for position in todo:
            if self.enough:
                return
            identity = self._wanted[position]
            outcome = await line.ask(partial(_request, vendor, identity), vendor.read_lookup, partial(_about, identity))
            self.answers += 1
            self.progress.answered = True
            if outcome.verdict is Verdict.FOUND:
                self.progress.found.add(position)
            elif outcome.verdict is not Verdict.MISSING:
                raise InvalidEvent(
                    f"identities[{self._position.index(position)}]", f"the vendor refuses the look-up ({outcome.code})"
                )


def _digest(identity: Identity) -> bytes:
    """What tells identities apart, in a tenth of the memory that their JSON takes with the buffer behind it."""
    return blake2b(json.dumps(dict(identity), sort_keys=True).encode(), digest_size=16).digest()


def _request(vendor: LookupCodec, identity: Identity) -> Request:
    request = vendor.lookup(identity)
    assert request is not None, "those without a request of their own are listed"
    return request


def _about(identity: Identity) -> list[Private]:
    return [Private(identity)]


class Line(NamedTuple):
    """What all look-ups through one connection share in a process: client, quota, and bound of requests in flight."""

    sender: Sender
    slots: asyncio.Semaphore
    max_in_flight: int

    async def ask(
        self, request: Callable[[], Request], read: Callable[[Answer], Outcome], about: About = nobody
    ) -> Outcome:
        """What the vendor answered to a request; see `Sender.send`."""
        async with self.slots:
            _, outcome = await self.sender.send(request, read, self.sender.budget(), about)
        return outcome if isinstance(outcome, Outcome) else outcome[0]


@dataclass(slots=True)
class _Shared:
    line: Line
    transport: Transport
    users: int = 0


# By event loop, for its clients and locks serve no other; a triggerer runs all its triggers on one.
_open_lines: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Any, _Shared]] = WeakKeyDictionary()


@asynccontextmanager
async def open_line(
    endpoint: Endpoint,
    quota: RateLimiter | float | None,
    max_in_flight: int,
    redactor: Redactor | None = None,
    retry_policy: RetryPolicy | None = None,
) -> AsyncIterator[Line]:
    """The line to an endpoint, shared by all that use it on this event loop at the same time.

    :param quota: of all of them together, in requests per minute, or what keeps it; None for none.
    :param max_in_flight: requests of all of them together that wait for an answer.
    """
    lines = _open_lines.setdefault(asyncio.get_running_loop(), {})
    key = (
        endpoint.base_url,
        *sorted(endpoint.headers.items()),
        endpoint.timeout_seconds,
        endpoint.verify,
        endpoint.proxy,
        quota,
        retry_policy,
        max_in_flight,
    )
    shared = lines.get(key)
    if shared is None:
        transport = open_transport(endpoint)
        sender = Sender(
            transport,
            limiter_of(quota),
            retry_policy or RetryPolicy(),
            asyncio.Event(),
            Counters(),
            redactor,
            stores=False,
        )
        shared = lines[key] = _Shared(Line(sender, asyncio.Semaphore(max_in_flight), max_in_flight), transport)
        await transport.__aenter__()
    shared.users += 1
    try:
        yield shared.line
    finally:
        shared.users -= 1
        if not shared.users:
            del lines[key]
            await shared.transport.__aexit__(None, None, None)
