"""The sandbox as an object: a real server on a free port of loopback, in a thread, for tests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from http.client import HTTPConnection
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import uvicorn

    from airflow_provider_events.sandbox.api import VendorApi
    from airflow_provider_events.sandbox.faults import Fault, FaultKind
    from airflow_provider_events.sandbox.state import Outcome, SandboxEvent, SandboxRequest
    from airflow_provider_events.sandbox.vendors import Vendors

LOOPBACK = "127.0.0.1"

_START_SECONDS = 10.0
_KEEP_ALIVE_SECONDS = 75  # longer than clients keep a connection: no test meets one closed under its hands


class Sandbox:
    """The four vendors' APIs at one loopback address.

    ```python
    with Sandbox() as sandbox:
        sandbox.add_entries("embeddables", [{"email": "ada@example.com"}])
        ...
        assert len(sandbox.events("embeddables")) == 1
    ```

    It listens from `start()` (or `with`) to `stop()`; the methods may be called from any thread.
    """

    def __init__(
        self,
        *,
        host: str = LOOPBACK,
        port: int = 0,
        allowed_hosts: Sequence[str] = (),
        quotas: bool | Mapping[str, int] = True,
        keep_bodies: bool = True,
        clock: Callable[[], float] | None = None,
        vendors: Sequence[type[VendorApi]] = (),
    ) -> None:
        """Prepare a sandbox.

        `host`: what to listen on, by default `127.0.0.1`; beyond loopback it logs a warning. `port`: 0 (default) takes
        a free one. `allowed_hosts`: names to answer to beside those of loopback and the address it listens on, such as
        `"sandbox"` in a network of containers. `quotas`: enforce the documented numbers (`True`, the default),
        none (`False`), or others (`{"webengage:events": 10}`, requests per minute). `keep_bodies`: keep raw
        request bodies (default `True`).
        `clock`: seconds since the epoch, `time.time` by default; a clock of your own moves quota windows,
        de-duplication windows and late entries without waiting.
        `vendors`: those of other packages (`airflow_provider_events.sandbox.api.VendorApi`), beside the four.
        """
        self._address = (host, port)
        self._allowed_hosts = tuple(allowed_hosts)
        self._others = tuple(vendors)
        self._options: dict[str, Any] = {"quotas": quotas, "keep_bodies": keep_bodies}
        if clock is not None:
            self._options["clock"] = clock
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Listen, unless it does already; returns when requests are answered."""
        if self._thread is not None and self._thread.is_alive():
            return self
        self._vendors.hosts.warn()
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        self._socket = socket.create_server(self._address, family=family, backlog=1024)
        ready = threading.Event()
        self._server = make_server(self._vendors, on_started=ready.set)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="events-sandbox", daemon=True
        )
        self._thread.start()
        if not ready.wait(_START_SECONDS):
            raise RuntimeError(f"the sandbox did not start within {_START_SECONDS:.0f} s")
        return self

    def stop(self) -> None:
        """Stop listening and drop what is in flight; what was received can still be read."""
        if self._server and self._thread:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join()
        if self._socket:
            self._socket.close()
        self._server = self._thread = None

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    @cached_property
    def _vendors(self) -> Vendors:
        from airflow_provider_events.sandbox.hosts import Hosts
        from airflow_provider_events.sandbox.state import Settings
        from airflow_provider_events.sandbox.vendors import Vendors

        return Vendors(Hosts(self._address[0], self._allowed_hosts), Settings(**self._options), self._others)

    @cached_property
    def port(self) -> int:
        """The TCP port, once started."""
        if self._socket is None:
            raise RuntimeError("the sandbox isn't started")
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        """The base URL of all vendors, such as `http://127.0.0.1:40123`."""
        return f"http://{self._vendors.hosts.reachable}:{self.port}"

    def events(self, vendor: str, outcome: Outcome | None = "accepted") -> list[SandboxEvent]:
        """Events of a vendor, in order of arrival; `outcome=None`: duplicates, ignored and refused too."""
        events = list(self._vendors.api(vendor).memory.events)
        return events if outcome is None else [event for event in events if event.outcome == outcome]

    def requests(self, vendor: str) -> list[SandboxRequest]:
        """Requests to a vendor in order of arrival, whatever they were answered."""
        return list(self._vendors.api(vendor).memory.requests)

    def violations(self, vendor: str) -> list[str]:
        """What no careful client does, though the vendor may swallow it; at most the first 1,000."""
        return [str(violation["text"]) for violation in self._vendors.api(vendor).memory.violations]

    def add_entries(
        self,
        vendor: str,
        entries: Sequence[Mapping[str, Any]],
        *,
        appears_after: float = 0.0,
    ) -> None:
        """Make customers known to a vendor, in `appears_after` seconds from now.

        An entry is the customer in the vendor's own names: Embeddables User Data (`{"email": …}`;
        `embeddable_id` and `entry_id` may stand beside it), Vibetrace attributes (`email`, `_id` or both),
        a WebEngage user (`userId`), Bloomreach ids (`{"registered": …}`).
        """
        self._vendors.add_entries(vendor, entries, appears_after)

    def fault(self, kind: FaultKind, **options: Any) -> Fault:
        """Make requests go wrong: see `Fault` for kinds and options. Its `matched` and `fired` count."""
        from airflow_provider_events.sandbox.faults import Fault

        return self._vendors.add_fault(Fault(kind, **options))

    def clear_faults(self) -> None:
        """No more faults."""
        self._vendors.faults.rules.clear()

    def reset(self) -> None:
        """Forget everything: events, requests, entries, faults, quota windows, counters.

        Requests that clients sent before, and no longer wait for, are forgotten with the rest.
        """
        if self._thread is not None and self._thread.is_alive():
            # What arrived earlier is accepted before the first call, and served before the second.
            for _ in range(2):
                self._call()
        self._vendors.reset()

    def _call(self) -> None:
        connection = HTTPConnection(f"{self._vendors.hosts.reachable}:{self.port}", timeout=_START_SECONDS)
        with closing(connection):
            connection.request("GET", "/_sandbox/summary")
            connection.getresponse().read()

    def summary(self) -> dict[str, dict[str, int]]:
        """Counts by vendor: requests, refused_requests, events by outcome, strays, violations, entries."""
        return self._vendors.summary()

    def connection(self, conn_type: str) -> dict[str, Any]:
        """The Airflow connection to a vendor: conn_type, host, login, password, extra."""
        return self._vendors.connection(conn_type, self.url)

    def credentials(self, vendor: str) -> dict[str, str]:
        """The keys that the vendor takes here, by name."""
        return dict(self._vendors.api(vendor).credentials)


def make_server(
    vendors: Vendors, *, host: str = LOOPBACK, port: int = 0, on_started: Callable[[], None] | None = None
) -> uvicorn.Server:
    """A uvicorn server of the vendors, whose connections can be cut; `on_started` is called once it listens."""
    import uvicorn

    from airflow_provider_events.sandbox.app import SandboxApp
    from airflow_provider_events.sandbox.wire import TransportProtocol

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if on_started:
                on_started()

    config = uvicorn.Config(
        SandboxApp(vendors),
        host=host,
        port=port,
        http=TransportProtocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
    )
    return Server(config)
