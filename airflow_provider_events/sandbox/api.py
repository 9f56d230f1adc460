"""What a vendor module is made of: the call it reads, the answer it gives, and the base class it fills in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from sys import intern
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import orjson
from starlette.routing import Match, Route
from starlette.types import Scope

from airflow_provider_events.sandbox.state import LOGGED_HEADERS, Memory, Quotas, SandboxRequest, Settings

_SECRET_QUERY_PARAMETER = "access_token"


@dataclass(slots=True)
class Call:
    """One HTTP request, read to its end.

    `params`: from the path. `auth`: what `authenticate` said of its key. `events`: how many events were read
    from it. `quota`: (limit, remaining) of its bucket, `None` if it has none.
    """

    number: int
    at: float
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    client: str
    params: dict[str, str] = field(default_factory=dict)
    auth: str = "missing"
    events: int = 0
    quota: tuple[int, int] | None = None

    @classmethod
    def read(cls, number: int, at: float, scope: Scope, body: bytes) -> Call:
        """Make a call of an ASGI scope and the whole body."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        raw_query: bytes = scope["query_string"]
        query = dict(parse_qsl(raw_query.decode("latin-1"), keep_blank_values=True)) if raw_query else {}
        client = scope["client"][0] if scope.get("client") else ""
        return cls(number, at, scope["method"], scope["path"], query, headers, body, client)

    @property
    def shown_path(self) -> str:
        """Path and query, without a token that came in the query."""
        shown = {name: "***" if name == _SECRET_QUERY_PARAMETER else v for name, v in self.query.items()}
        return self.path + ("?" + "&".join(f"{k}={v}" for k, v in shown.items()) if shown else "")


@dataclass(slots=True)
class Answer:
    """What goes back to the client."""

    status: int
    content: bytes
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, status: int, body: Any, **headers: str) -> Answer:
        """An answer with a JSON body."""
        return cls(status, orjson.dumps(body), headers=headers)


class Refused(Exception):
    """Raised by a vendor module to answer with a refusal."""

    def __init__(self, answer: Answer) -> None:
        """`answer`: the refusal, in the vendor's own words."""
        super().__init__(answer.status)
        self.answer = answer


class VendorApi(ABC):
    """One vendor's API. A subclass says its paths, its keys, its rules; the rest is inherited."""

    name: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]
    credentials: ClassVar[Mapping[str, str]]
    quotas: ClassVar[Mapping[str, int]] = {}

    def __init__(self, settings: Settings) -> None:
        """Start with an empty memory and no entries."""
        self.clock = settings.clock
        self.memory = Memory(keep_bodies=settings.keep_bodies)
        self.windows = Quotas(self.name, self.quotas, settings)
        self.routes = self.build_routes()

    @abstractmethod
    def build_routes(self) -> Sequence[Route]:
        """Routes whose endpoints take a `Call` and return an `Answer`."""

    @abstractmethod
    def authenticate(self, call: Call) -> str:
        """What the call's key is: "ok" (or a vendor's own word for it), "wrong" or "missing"."""

    @abstractmethod
    def refusal(self, status: int, message: str) -> Answer:
        """A refusal in the vendor's own envelope."""

    @abstractmethod
    def connection(self, url: str) -> dict[str, Any]:
        """The Airflow connection that reaches this API at `url`, as a dictionary."""

    @abstractmethod
    def add_entry(self, entry: Mapping[str, Any], visible_at: float) -> None:
        """Make a customer known from `visible_at` on (seconds since the epoch)."""

    @abstractmethod
    def count_entries(self) -> int:
        """How many customers are known, whether visible yet or not."""

    def quota_bucket(self, call: Call) -> tuple[str, str] | None:
        """The bucket of `quotas` and the client that the call counts for; `None`: unlimited."""
        return None

    def extra_headers(self, call: Call) -> dict[str, str]:
        """Headers of every answer."""
        return {}

    def refuse(self, status: int, message: str) -> Refused:
        """A refusal to raise."""
        return Refused(self.refusal(status, message))

    def respond(self, call: Call, scope: Scope) -> Answer:
        """Route a call, keep the quota, and answer."""
        try:
            endpoint = self._route(call, scope)
            bucket = self.quota_bucket(call)
            if bucket:
                call.quota = self.windows.take(*bucket)
                if call.quota[1] < 0:
                    raise self.refuse(429, "Rate limit exceeded")
            answer: Answer = endpoint(call)
        except Refused as refused:
            self.memory.counts["refused_requests"] += 1
            answer = refused.answer
        answer.headers.update(self.extra_headers(call))
        return answer

    def log(self, call: Call, status: int, fault: str | None) -> None:
        """Keep the request."""
        memory = self.memory
        memory.requests.append(
            SandboxRequest(
                number=call.number,
                at=call.at,
                method=call.method,
                path=intern(call.shown_path),
                status=status,
                size=len(call.body),
                events=call.events,
                auth=call.auth if call.auth in ("wrong", "missing") else "ok",
                fault=fault,
                body=call.body if memory.keep_bodies else None,
                header_values=tuple(_interned(call.headers.get(name)) for name in LOGGED_HEADERS),
            )
        )

    def json_object(self, call: Call) -> dict[str, Any]:
        """The body as a JSON object; anything else is refused with 400."""
        if call.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise self.refuse(400, "Content-Type must be application/json")
        try:
            body = orjson.loads(call.body)
        except orjson.JSONDecodeError as error:
            raise self.refuse(400, "Invalid JSON") from error
        if not isinstance(body, dict):
            raise self.refuse(400, "The body must be a JSON object")
        return body

    def _route(self, call: Call, scope: Scope) -> Any:
        other_method = False
        for route in self.routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                call.params = found["path_params"]
                return found["endpoint"]
            other_method = other_method or match is Match.PARTIAL
        if other_method:
            raise self.refuse(405, f"Method {call.method} not allowed")
        raise self.refuse(404, "The requested URL was not found on the server")


def _interned(text: str | None) -> str | None:
    return None if text is None else intern(text)
