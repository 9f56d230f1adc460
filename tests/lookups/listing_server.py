"""A vendor's listing that can be odd in every way, on a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

PROJECT = "/projects/pr_odd/entries"


@dataclass
class Odd:
    """Entries by id, with the time of their update, and how the listing behaves.

    :param cap: entries on a page at most, whatever is asked for.
    :param inclusive: bounds include their own moment.
    :param ignored: parameters that are not looked at.
    :param hidden: ids that are taken out of a page after `limit`.
    :param digits: of a second, as the vendor writes times.
    :param skew: how far the vendor's `Date` is from the times it stores.
    :param before_page: called before each page, with the listing; it may change it.
    :param fixed: ids of entries that are there throughout.
    :param extra: what an entry says otherwise; None as a value is JSON's null, `...` leaves the field out.
    """

    times: dict[str, datetime] = field(default_factory=dict)
    cap: int = 10**9
    inclusive: bool = False
    ignored: tuple[str, ...] = ()
    hidden: frozenset[str] = frozenset()
    digits: int = 3
    skew: timedelta = timedelta(0)
    before_page: Callable[[Odd], None] | None = None
    fixed: Collection[str] = ()
    extra: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    refuse_after: int | None = None
    max_limit: int | None = None
    requests: list[dict[str, str]] = field(default_factory=list, repr=False)

    def page(self, query: dict[str, str]) -> tuple[int, Any]:
        """The answer to a request."""
        self.requests.append(query)
        if self.before_page:
            self.before_page(self)
        if self.refuse_after is not None and len(self.requests) > self.refuse_after:
            return 429, {"error": {"code": "slow_down", "message": "later"}}
        if self.max_limit and int(query["limit"]) > self.max_limit:
            return 400, {"error": {"code": "bad_request", "message": "limit"}}
        query = {name: value for name, value in query.items() if name not in self.ignored}
        after, before = (
            datetime.fromisoformat(query[name]) if name in query else None
            for name in ("updated_after", "updated_before")
        )
        down = query.get("direction", "DESC") == "DESC"
        listed = [
            one
            for one, at in self.times.items()
            if (after is None or at > after or (self.inclusive and at == after))
            and (before is None or at < before or (self.inclusive and at == before))
        ]
        listed.sort(key=lambda one: self.times[one], reverse=down)
        listed = listed[: min(int(query.get("limit", 10)), self.cap)]
        return 200, [self.entry(one) for one in listed if one not in self.hidden]

    def entry(self, one: str) -> dict[str, Any]:
        """As documented."""
        written = self.times[one].isoformat(timespec="milliseconds" if self.digits == 3 else "microseconds")
        entry = {
            "entry_id": one,
            "embeddable_id": "flow_1",
            "updated_at": written.replace("+00:00", "Z"),
            "entry_data": json.dumps({"email": f"{one}@example.com"}),
            **self.extra.get(one, {}),
        }
        return {name: value for name, value in entry.items() if value is not ...}


@contextmanager
def listening(odd: Odd) -> Iterator[str]:
    """Serve the listing; yields the base URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            status, value = odd.page(dict(parse_qsl(urlsplit(self.path).query)))
            body = json.dumps(value).encode()
            self.send_response_only(status)
            self.send_header("Date", format_datetime(datetime.now(UTC) + odd.skew, usegmt=True))
            self.send_header("Content-Type", "application/json")
            if status == 429:
                self.send_header("Retry-After", "7200")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(ConnectionError):  # the reader may have enough of it
                self.wfile.write(body)

        def handle(self) -> None:
            with suppress(ConnectionError):
                super().handle()

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
