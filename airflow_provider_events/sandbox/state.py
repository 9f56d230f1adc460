"""What the sandbox remembers: a vendor's events and requests, its quota windows; and a run's settings."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

Outcome = Literal["accepted", "duplicate", "ignored", "refused"]

LOGGED_HEADERS = ("content-type", "content-encoding", "user-agent", "x-request-id")
QUOTA_WINDOW_SECONDS = 60.0
MAX_KEPT_VIOLATIONS = 1000  # the counter goes on: 200,000 bad events need no more examples


@dataclass(frozen=True, slots=True)
class Settings:
    """How a sandbox behaves.

    `quotas`: `True` (default) enforces the documented numbers, `False` none, a mapping replaces some of them
    (`{"webengage:events": 10}`: requests per 60 s). `keep_bodies` (default `True`): keep raw request bodies.
    `clock`: seconds since the epoch, `time.time` by default; tests move it by hand.
    """

    quotas: bool | Mapping[str, int] = True
    keep_bodies: bool = True
    clock: Callable[[], float] = time.time


@dataclass(frozen=True, slots=True)
class SandboxEvent:
    """One event as it came over the wire.

    `request`: number of the request that brought it. `outcome`: what the vendor did with it. `key`: the
    idempotency or correlation key that came with it (WebEngage `x-request-id`, Vibetrace `orderId`,
    Bloomreach `command_id`). `notes`: what the vendor hides ("stray customer created"), or why it refused.
    """

    request: int
    outcome: Outcome
    key: str | None
    notes: tuple[str, ...]
    blob: bytes = field(repr=False)

    @property
    def wire(self) -> Any:
        """The vendor's own event object, decoded."""
        return orjson.loads(self.blob)

    def as_dict(self) -> dict[str, Any]:
        """The form that the control endpoint serves."""
        return {
            "request": self.request,
            "outcome": self.outcome,
            "key": self.key,
            "notes": self.notes,
            "wire": self.wire,
        }


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """One request and its answer. No key is kept: `auth` says "ok", "wrong" or "missing".

    `at`: seconds since the epoch. `size`: bytes of the body. `events`: how many events were read from it.
    `status`: of the answer, 0 if the connection was cut before it. `fault`: kind of the injected one, if any.
    `body`: raw bytes, `None` if bodies aren't kept.
    """

    number: int
    at: float
    method: str
    path: str
    status: int
    size: int
    events: int
    auth: str
    fault: str | None
    body: bytes | None = field(repr=False)
    header_values: tuple[str | None, ...] = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Those of `LOGGED_HEADERS` that were sent, by lower-case name."""
        pairs = zip(LOGGED_HEADERS, self.header_values, strict=True)
        return {name: value for name, value in pairs if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """The form that the control endpoint serves; of a body, what is UTF-8."""
        hidden = ("header_values", "body")
        shown = {name: getattr(self, name) for name in self.__slots__ if name not in hidden}
        body = None if self.body is None else self.body.decode("utf-8", "replace")
        return {**shown, "headers": self.headers, "body": body}


@dataclass(slots=True)
class Memory:
    """All that one vendor has received, in order of arrival."""

    keep_bodies: bool = True
    events: list[SandboxEvent] = field(default_factory=list)
    requests: list[SandboxRequest] = field(default_factory=list)
    violations: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def record(
        self,
        request: int,
        blob: bytes,
        outcome: Outcome = "accepted",
        *,
        key: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> int:
        """Keep an event (`blob`: its JSON) and count its outcome; returns its position."""
        self.counts[outcome] += 1
        self.events.append(SandboxEvent(request, outcome, key, notes, blob))
        return len(self.events) - 1

    def violation(self, request: int, text: str) -> str:
        """Keep what no careful client does, though the vendor may swallow it; returns the text."""
        self.counts["violations"] += 1
        if len(self.violations) < MAX_KEPT_VIOLATIONS:
            self.violations.append({"request": request, "text": text})
        return text

    def summary(self) -> dict[str, int]:
        """Counts: requests, refused_requests, and events by outcome, strays, violations."""
        names = ("accepted", "duplicate", "ignored", "refused", "refused_requests", "strays", "violations")
        return {"requests": len(self.requests), **{name: self.counts[name] for name in names}}


def compact_json(value: Any) -> bytes:
    """JSON that holds no more memory than its length: orjson's own buffers are over-allocated."""
    return bytes(memoryview(orjson.dumps(value)))


class Quotas:
    """Requests per sliding minute, by bucket (an endpoint) and, for some vendors, by client address."""

    def __init__(self, vendor: str, documented: Mapping[str, int], settings: Settings) -> None:
        """`documented`: bucket -> requests per 60 s."""
        overrides = settings.quotas if isinstance(settings.quotas, Mapping) else {}
        self._limits = {bucket: overrides.get(f"{vendor}:{bucket}", n) for bucket, n in documented.items()}
        self._enforced = settings.quotas is not False
        self._clock = settings.clock
        self._windows: dict[tuple[str, str], deque[float]] = {}

    def take(self, bucket: str, who: str = "") -> tuple[int, int]:
        """Count a request; returns (limit, remaining), where a negative remainder means: over the limit."""
        limit = self._limits[bucket]
        if not self._enforced:
            return limit, limit
        now = self._clock()
        window = self._windows.setdefault((bucket, who), deque())
        while window and window[0] <= now - QUOTA_WINDOW_SECONDS:
            window.popleft()
        if len(window) >= limit:
            return limit, -1
        window.append(now)
        return limit, limit - len(window)
