"""The sandbox's own pages: `/` says what to connect to, `/_sandbox/…` is for tests and for curl.

| call | meaning |
| --- | --- |
| `GET summary` | counts by vendor |
| `GET state` | the counts, the settings, the faults with their counters, the violations |
| `GET events?vendor=&outcome=accepted&offset=0&limit=100` | events as they arrived (`outcome=any`: all) |
| `GET requests?vendor=&offset=0&limit=100` | requests and their answers |
| `GET credentials` | Airflow connections and keys, by vendor |
| `POST entries` | `{"vendor", "entries": […], "appears_after": seconds}` |
| `POST faults` | a list of rules, added to those in force |
| `DELETE faults` | no more faults |
| `POST reset` | forget everything |
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from airflow_provider_events.sandbox.faults import Fault
from airflow_provider_events.sandbox.vendors import Vendors

_DEFAULT_LIMIT = 100


def control_app(vendors: Vendors) -> Starlette:
    """The pages of one sandbox."""
    control = _Control(vendors)
    pages = [
        Route("/summary", control.summary),
        Route("/state", control.state),
        Route("/events", control.events),
        Route("/requests", control.requests),
        Route("/credentials", control.credentials),
        Route("/entries", control.add_entries, methods=["POST"]),
        Route("/faults", control.add_faults, methods=["POST"]),
        Route("/faults", control.clear_faults, methods=["DELETE"]),
        Route("/reset", control.reset, methods=["POST"]),
    ]
    errors: dict[Any, Callable[[Request, Exception], Response]]
    errors = dict.fromkeys((ValueError, TypeError, KeyError), _bad_request)
    routes = [Route("/", control.index), Mount("/_sandbox", routes=pages)]
    return Starlette(routes=routes, exception_handlers=errors)


class _Control:
    def __init__(self, vendors: Vendors) -> None:
        self._vendors = vendors

    async def index(self, request: Request) -> Response:
        vendors = ", ".join(self._vendors.apis)
        lines = [f"The APIs of {vendors}, in a sandbox.", "", "Connections for Airflow:", ""]
        connections = self._vendors.connections(_base_url(request))
        lines += [f"export {name}='{value}'" for name, value in connections.items()]
        lines += ["", "Control:", "", *(__doc__ or "").splitlines()[2:]]
        return PlainTextResponse("\n".join(lines) + "\n")

    async def summary(self, request: Request) -> Response:
        return _json(self._vendors.summary())

    async def state(self, request: Request) -> Response:
        apis, settings = self._vendors.apis, self._vendors.settings
        return _json(
            {
                "summary": self._vendors.summary(),
                "settings": {"quotas": settings.quotas, "keep_bodies": settings.keep_bodies},
                "faults": [rule.as_dict() for rule in self._vendors.faults.rules],
                "violations": {name: api.memory.violations for name, api in apis.items()},
            }
        )

    async def events(self, request: Request) -> Response:
        memory = self._vendors.api(request.query_params["vendor"]).memory
        outcome = request.query_params.get("outcome", "accepted")
        wanted = (event for event in memory.events if outcome in ("any", event.outcome))
        return _json([event.as_dict() for event in islice(wanted, *_window(request))])

    async def requests(self, request: Request) -> Response:
        memory = self._vendors.api(request.query_params["vendor"]).memory
        return _json([logged.as_dict() for logged in islice(memory.requests, *_window(request))])

    async def credentials(self, request: Request) -> Response:
        url = _base_url(request)
        return _json(
            {
                name: {"connection": self._vendors.connection(name, url), "credentials": dict(api.credentials)}
                for name, api in self._vendors.apis.items()
            }
        )

    async def add_entries(self, request: Request) -> Response:
        body = orjson.loads(await request.body())
        self._vendors.add_entries(body["vendor"], body["entries"], body.get("appears_after", 0.0))
        return _json({"added": len(body["entries"])})

    async def add_faults(self, request: Request) -> Response:
        rules = [Fault(**rule) for rule in orjson.loads(await request.body())]
        return _json([self._vendors.add_fault(rule).as_dict() for rule in rules])

    async def clear_faults(self, request: Request) -> Response:
        self._vendors.faults.rules.clear()
        return _json([])

    async def reset(self, request: Request) -> Response:
        self._vendors.reset()
        return _json(self._vendors.summary())


def _base_url(request: Request) -> str:
    return str(request.base_url).rstrip("/").removesuffix("/_sandbox")


def _window(request: Request) -> tuple[int, int]:
    offset = int(request.query_params.get("offset", 0))
    return offset, offset + int(request.query_params.get("limit", _DEFAULT_LIMIT))


def _json(body: Any) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")


def _bad_request(request: Request, error: Exception) -> Response:
    missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return Response(orjson.dumps({"error": missing}), status_code=400, media_type="application/json")
