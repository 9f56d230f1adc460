"""From an Airflow connection to a vendor and its client."""

from __future__ import annotations

import logging
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, Unpack

from airflow_provider_events._compat import BaseHook, get_async_connection, hook_class_of, mask_secret
from airflow_provider_events.delivery.observers import DeliveryObserver
from airflow_provider_events.delivery.pacing import RateLimiter, RetryPolicy
from airflow_provider_events.events import DeliveryReport, Event, Receipt
from airflow_provider_events.exceptions import (
    ConfigurationError,
    DeliveryInterrupted,
    EventsError,
)
from airflow_provider_events.frames import final, name_connection
from airflow_provider_events.get_provider_info import get_provider_info
from airflow_provider_events.hooks.form import get_connection_form_widgets, get_ui_field_behaviour
from airflow_provider_events.shown import did_you_mean
from airflow_provider_events.values import parse_time
from airflow_provider_events.vendors.base import ConnectionValues, Vendor
from airflow_provider_events.vendors.connection import read_extra_text

if TYPE_CHECKING:
    import httpx

    from airflow_provider_events._compat import Connection
    from airflow_provider_events.contract import Codec
    from airflow_provider_events.delivery.checkpoint import CheckpointStore
    from airflow_provider_events.delivery.job import Delivery
    from airflow_provider_events.delivery.options import DeliveryKeywords, DeliveryOptions
    from airflow_provider_events.delivery.pending import PendingEvents
    from airflow_provider_events.delivery.resume import Source
    from airflow_provider_events.hooks.client import VendorClient
    from airflow_provider_events.sources.mapping import EventMapping

__all__ = ["EventsHook"]

T = TypeVar("T")

log = logging.getLogger(__name__)

SHORTEST_MASKED = 5  # Airflow masks no shorter one, and warns of each


class EventsHook(BaseHook):
    """A vendor reached through an Airflow connection. Use a vendor's own hook, or `for_connection`.

    Nothing is looked up before it is needed: a hook can be made without a connection being there.

    :param conn_id: the connection; its type decides the vendor. Default: `<type>_default`.
    :param retry_policy: how long to go on when answers fail. Default: `RetryPolicy()`.
    :param rate_limiter: keeps the quota of all hooks that are given the same one, on any thread of the process, in
        place of the connection's or the vendor's.
    :param observers: are told how each delivery goes, beside the task's log.
    :raises ConfigurationError: one of them is of another type, or there is no such parameter.
    """

    vendor_class: ClassVar[type[Vendor]]
    conn_type: ClassVar[str]
    hook_name: ClassVar[str]
    default_conn_name: ClassVar[str]
    conn_name_attr = "conn_id"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        vendor = cls.vendor_class
        cls.conn_type = vendor.conn_type
        cls.hook_name = vendor.label
        cls.default_conn_name = f"{vendor.conn_type}_default"
        # Airflow 2.11 to 3.1 draw the form from methods that a class has itself, not from those it inherits.
        for method in (get_ui_field_behaviour, get_connection_form_widgets):
            setattr(cls, method.__name__, classmethod(method))

    def __init__(
        self,
        conn_id: str | None = None,
        *,
        retry_policy: RetryPolicy | None = None,
        rate_limiter: RateLimiter | None = None,
        observers: Sequence[DeliveryObserver] = (),
        **kwargs: Any,
    ) -> None:
        if unknown := kwargs.keys() - {"logger_name"}:
            known = ("conn_id", "retry_policy", "rate_limiter", "observers")
            raise ConfigurationError(f"{type(self).__name__}: no {min(unknown)!r}; {did_you_mean(min(unknown), known)}")
        super().__init__(**kwargs)
        self.conn_id = conn_id or self.default_conn_name
        self.retry_policy = retry_policy or RetryPolicy()
        self.rate_limiter = rate_limiter
        self.observers = list(observers)
        for name, kind, given in (
            ("retry_policy", RetryPolicy, [self.retry_policy]),
            ("rate_limiter", RateLimiter, [] if rate_limiter is None else [rate_limiter]),
            ("observers", DeliveryObserver, self.observers),
        ):
            if wrong := [type(each).__name__ for each in given if not isinstance(each, kind)]:
                raise ConfigurationError(f"{name}: has to be of the class {kind.__name__}, not {wrong[0]}")
        self._delivery: Delivery | None = None
        self._running: set[Callable[[], None]] = set()
        self._stopped = False

    @classmethod
    @final
    def for_connection(cls, conn_id: str, **hook_params: Any) -> EventsHook:
        """The hook that Airflow's providers name for the connection's type; a vendor may be of any package.

        :param hook_params: what else the hook takes, see there: `retry_policy`, `rate_limiter`, `observers`.
        :raises ConfigurationError: that is no `EventsHook`; names the types of this package.
        """
        return _hook_class(conn_id, cls.get_connection(conn_id).conn_type)(conn_id, **hook_params)

    @classmethod
    @final
    async def afor_connection(
        cls, conn_id: str, connection: Connection | None = None, **hook_params: Any
    ) -> EventsHook:
        """`for_connection` for code that runs on an event loop, with the vendor ready to use.

        :param connection: where it has been read already.
        :param hook_params: as there.
        """
        from asgiref.sync import sync_to_async

        connection = connection or await get_async_connection(conn_id)
        hook_class = await sync_to_async(_hook_class)(conn_id, connection.conn_type)  # the first time reads files
        hook = hook_class(conn_id, **hook_params)
        await hook.prepare(connection)
        return hook

    @cached_property
    @final
    def vendor(self) -> Vendor:
        """The vendor as the connection configures it; all its secrets are masked in logs from here on.

        :raises ConfigurationError: the connection is of another type, or a field of it is wrong or missing.
        """
        vendor = self._configured(self.get_connection(self.conn_id))
        _mask(vendor)
        return vendor

    @final
    async def prepare(self, connection: Connection | None = None) -> None:
        """Read the connection without blocking the event loop, so that `vendor` need not.

        :param connection: where it has been read already.
        """
        if "vendor" in self.__dict__:
            return
        from asgiref.sync import sync_to_async

        vendor = self._configured(connection or await get_async_connection(self.conn_id, self))
        await sync_to_async(_mask)(vendor)
        self.vendor = vendor

    @cached_property
    def client(self) -> VendorClient:
        """What speaks to the vendor."""
        from airflow_provider_events.hooks.client import VendorClient

        return VendorClient(
            self.vendor,
            retry_policy=self.retry_policy,
            rate_limiter=self.rate_limiter,
            observers=self.observers,
        )

    # -- looking up --------------------------------------------------------------------------------------------------

    @final
    def entry_exists(self, identity: Mapping[str, str | int]) -> bool:
        """Whether the vendor has an entry of this customer. Only reads; the entry itself is dropped.

        :raises ConfigurationError: the vendor documents no look-up, or the connection allows none.
        :raises InvalidEvent: the vendor cannot be asked for such an identity.
        :raises DeliveryError: credentials refused, vendor unavailable, or rate limited for long.
        """
        return self.lookup([identity])[0]

    @final
    async def aentry_exists(self, identity: Mapping[str, str | int]) -> bool:
        """`entry_exists` for code that runs on an event loop."""
        return (await self.alookup([identity]))[0]

    @final
    def lookup(self, identities: Sequence[Mapping[str, str | int]]) -> list[bool]:
        """For each of the identities whether the vendor has an entry; see `entry_exists`."""
        self.vendor  # noqa: B018  # read on this thread: Airflow's connections are not for others
        with self.naming():
            return self.run(lambda: self.alookup(identities))

    @final
    async def alookup(self, identities: Sequence[Mapping[str, str | int]]) -> list[bool]:
        """`lookup` for code that runs on an event loop."""
        await self.prepare()
        return await self.client.lookup(identities)

    # -- sending -----------------------------------------------------------------------------------------------------

    @final
    def send(self, event: Event | Mapping[str, Any]) -> Receipt:
        """Deliver one event.

        :raises InvalidEvent: our own validation refused it.
        :raises EventRejected: the vendor refused it for good.
        :raises EntryMissing: the customer's entry does not exist (yet).
        :raises DeliveryError: credentials refused, vendor unavailable, or rate limited for long.
        """
        with self.naming():
            return self.run(lambda: self.asend(event))

    @final
    async def asend(self, event: Event | Mapping[str, Any]) -> Receipt:
        """`send` for code that runs on an event loop."""
        await self.prepare()
        return await self.client.send(event)

    @final
    def upsert(
        self,
        identity: Mapping[str, str | int],
        attributes: Mapping[str, Any] | None = None,
        *,
        sent_at: datetime | None = None,
    ) -> Receipt:
        """Create the customer's entry, or update its attributes.

        :param attributes: None among them is left out, so that it wipes nothing.
        :param sent_at: of two upserts the later one wins, where the vendor looks at it. Default: now.
        :raises ConfigurationError: the vendor documents no such call.
        :raises DeliveryError: as from `send`.
        """
        client = self.client
        with self.naming():
            return self.run(lambda: client.upsert(identity, attributes, sent_at))

    @final
    def deliver(
        self,
        events: Iterable[Event | Mapping[str, Any]],
        *,
        mapping: EventMapping | Mapping[str, Any] | None = None,
        rejected_path: str | None = None,
        sent_at: datetime | None = None,
        **options: Unpack[DeliveryKeywords],
    ) -> DeliveryReport:
        """Deliver many events from a list or a generator; memory stays flat.

        :param mapping: with one, `events` are plain rows.
        :param rejected_path: URI or local path of a `.jsonl` file for rejected events, or of a folder for such files.
        :param sent_at: the time of events that have none. Default: now.
        :param options: see `DeliveryOptions`.
        :raises ConfigurationError: an option is unknown or wrong.
        :raises DeliveryError: with the accounts so far as its `report`.
        """
        from airflow_provider_events.delivery.options import DeliveryOptions
        from airflow_provider_events.sources.rows import EventRecords

        with self.naming():
            wanted = DeliveryOptions.of(options, ("mapping", "rejected_path", "sent_at"))
            source = EventRecords(events, mapping)
            return self.deliver_source(source, wanted, rejected_path=rejected_path, sent_at=sent_at)

    @final
    def deliver_source(
        self,
        source: Source,
        options: DeliveryOptions | None = None,
        *,
        codec: Codec | None = None,
        rejected_path: str | None = None,
        rejected_name: str | None = None,
        sent_at: datetime | None = None,
        fingerprint: str = "",
        store: CheckpointStore | None = None,
        entry_delay_seconds: float = 0.0,
        observers: Sequence[DeliveryObserver] = (),
        pending: PendingEvents | None = None,
    ) -> DeliveryReport:
        """Deliver the records of a source; see `deliver`.

        :param codec: how a record travels. Default: as an event of the connection's vendor.
        :param rejected_path: URI or local path of a `.jsonl` file for rejected events, or of a folder for such files.
            What is there is never written over: a file that is taken gets `rejected_name` into its name.
        :param rejected_name: name inside that folder. Default: connection and time.
        :param sent_at: the time of events that have none. Default: now.
        :param fingerprint: of query, mapping and options; a checkpoint of another one is not continued.
        :param entry_delay_seconds: the customers' entries were made just before; see `Limits`.
        :param store: keeps the checkpoint from try to try.
        :param observers: are told how it goes, beside the log and the hook's own.
        :param pending: takes events that are rejected for a reason that time can cure.
        """
        from airflow_provider_events.delivery.dead_letter import DeadLetterFile
        from airflow_provider_events.delivery.options import DeliveryOptions
        from airflow_provider_events.hooks.files import safe_name
        from airflow_provider_events.hooks.rejected import rejected_file

        options = options or DeliveryOptions()
        client = self.client
        client.check(options)
        sent_at = parse_time(sent_at or datetime.now(UTC), "sent_at")
        dead_letters = None
        if rejected_path and not options.dry_run:
            if rejected_path.removeprefix("file://") == getattr(source, "uri", None):
                raise ConfigurationError(
                    f"rejected_path: {rejected_path} is the file that is to be read; name another one"
                )
            name = rejected_name or f"{safe_name(self.conn_id)}-{sent_at:%Y%m%dT%H%M%S.%f}.jsonl"
            dead_letters = DeadLetterFile(rejected_file(rejected_path, name), self.conn_type)
        return client.deliver(
            source,
            options,
            codec=codec,
            dead_letters=dead_letters,
            sent_at=sent_at,
            fingerprint=fingerprint,
            store=store,
            entry_delay_seconds=entry_delay_seconds,
            observers=observers,
            pending=None if options.dry_run else pending,
            begun=self._begun,
        )

    def _begun(self, delivery: Delivery) -> None:
        self._delivery = delivery
        if self._stopped:
            delivery.stop()

    @property
    def report(self) -> DeliveryReport | None:
        """The accounts of the last delivery as they stand, however it ended; None where there was none."""
        return None if self._delivery is None else self._delivery.report()

    def stop(self) -> None:
        """Stop whatever the hook runs, from another thread or a signal handler; that raises `DeliveryInterrupted`.

        A delivery waits for what is in flight; a single call, of which at most one request is, does not. Nothing new
        begins.
        """
        self._stopped = True
        if self._delivery is not None:
            self._delivery.stop()
        for cancel in list(self._running):
            cancel()

    def run(self, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine of this hook on an event loop of its own, until `stop`.

        :raises DeliveryInterrupted: it was stopped.
        """
        from airflow_provider_events.delivery.runtime import on_own_loop

        def begun(cancel: Callable[[], None]) -> None:
            started.append(cancel)
            self._running.add(cancel)
            if self._stopped:
                cancel()

        started: list[Callable[[], None]] = []
        try:
            return on_own_loop(main, begun=begun)
        except CancelledError:
            raise DeliveryInterrupted("stopped before the vendor had answered; a retry asks again") from None
        finally:
            self._running.difference_update(started)

    # -- Airflow -----------------------------------------------------------------------------------------------------

    @final
    def get_conn(self) -> httpx.Client:
        """A client with the API's base URL, for calls that this package does not make. Close it.

        It is authenticated for the base URL's origin (scheme, host and port) alone, also where a redirect is followed.
        """
        from airflow_provider_events.http.httpx_client import open_httpx

        return open_httpx(self.client.endpoint(), self.client.redactor.holds_secret)

    def test_connection(self) -> tuple[bool, str]:
        """Whether the vendor lets this connection in, by the least harmful documented call."""
        from airflow_provider_events.delivery.options import DeliveryOptions

        try:
            client = self.client
            client.check(DeliveryOptions())
            return self.run(client.probe)
        except (EventsError, OSError) as error:
            # The form tests a connection under an id that Airflow makes up.
            return False, str(error).replace(f"connection {self.conn_id!r}", "this connection")

    # -- inside ------------------------------------------------------------------------------------------------------

    def _configured(self, connection: Connection) -> Vendor:
        if connection.conn_type != self.conn_type:
            raise ConfigurationError(
                f"connection {self.conn_id!r} has the type {connection.conn_type!r}; "
                f"{type(self).__name__} needs {self.conn_type!r}"
            )
        vendor = self.vendor_class(
            ConnectionValues(
                self.conn_id,
                connection.host,
                connection.port,
                connection.schema,
                connection.login,
                connection.password,
                read_extra_text(self.conn_id, connection.extra),
            )
        )
        for warning in vendor.warnings():
            log.warning("connection %r: %s", self.conn_id, warning)
        return vendor

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Errors name the connection."""
        try:
            yield
        except EventsError as error:
            if "client" in self.__dict__:
                self.client.explained(error)
            name_connection(error, f"connection {self.conn_id!r}")
            raise error from None


def _mask(vendor: Vendor) -> None:
    from airflow_provider_events.hooks.route import secrets_of

    for secret in secrets_of(vendor):
        if len(secret) >= SHORTEST_MASKED:
            mask_secret(secret)


def _hook_class(conn_id: str, conn_type: str | None) -> type[EventsHook]:
    found = hook_class_of(conn_type)
    if isinstance(found, type) and issubclass(found, EventsHook):
        return found
    why = "for which Airflow finds no hook: is its package installed? `airflow providers hooks` lists what is"
    if found:
        why = f"whose {found.__name__} is no EventsHook"
    raise ConfigurationError(
        f"connection {conn_id!r} has the type {conn_type!r}, {why}; events are sent to one of "
        f"{', '.join(_connection_types())}, or to a vendor of another package"
    )


def _connection_types() -> list[str]:
    types: Any = get_provider_info()["connection-types"]
    return [kind["connection-type"] for kind in types]
