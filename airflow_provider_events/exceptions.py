"""Every error this package raises, as one tree. `retryable` says whether Airflow's task retry can help.

    EventsError
    ├── ConfigurationError          no   a connection, an option or a mapping is wrong: a person must change it
    │   └── MappingError            no   the mapping and the columns of the query do not fit together
    ├── InvalidEvent                no   an event that cannot be sent; in a batch it becomes a rejection
    ├── SourceError                 yes  rows could not be read
    │   ├── QueryError              no   the query is at fault, its parameters, or a value in its rows
    │   ├── KeyColumnError          no   `key_column` is not unique, not filled or not there
    │   ├── TooManyRows             no   more rows than `max_rows` or `max_growth` lets through; nothing was sent
    │   ├── SourceChanged           no   a retry finds other rows than an earlier try settled
    │   ├── CursorError             no   the cursor kept from run to run does not fit the source, or holds no more
    │   └── CursorNotMoved          yes  rows were delivered, and the cursor could not be moved behind them
    └── DeliveryError               yes  the delivery stopped; `report` holds what had happened until then
        ├── CredentialsRefused      no   the vendor refused the key, the project or the URL
        │   └── EndpointRefused     no   URL, certificate or proxy is wrong: what answers is not the vendor
        ├── EventRejected           no   a single event was rejected
        ├── TooManyRejected         no   more events were rejected than `max_rejected` allows
        ├── CanaryFailed            no   of the first events too many were rejected; the others were not sent
        ├── EntryMissing            yes  the customer's entry does not exist (yet)
        ├── VendorUnavailable       yes  no usable answer within the retry budget
        │   └── UnknownAnswer       no   a success in an unknown form: repeating it may store it twice
        ├── RateLimited             yes  the vendor asks for a longer pause than a task should hold a worker for
        ├── RejectedNotWritten      yes  rejected events cannot be written to their file
        └── DeliveryInterrupted     yes  stopped by a kill, a timeout or SIGTERM after draining what was in flight

No message holds a key, a request body or the value of a customer's field.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_events.reports import DeliveryReport
from airflow_provider_events.shown import TEXT_LENGTH, shown, shown_path

__all__ = [
    "CanaryFailed",
    "ConfigurationError",
    "CredentialsRefused",
    "CursorError",
    "CursorNotMoved",
    "DeliveryError",
    "DeliveryInterrupted",
    "EndpointRefused",
    "EntryMissing",
    "EventRejected",
    "EventsError",
    "InvalidEvent",
    "KeyColumnError",
    "MappingError",
    "QueryError",
    "RateLimited",
    "RejectedNotWritten",
    "SourceChanged",
    "SourceError",
    "TooManyRejected",
    "TooManyRows",
    "UnknownAnswer",
    "VendorUnavailable",
]


class EventsError(Exception):
    """Base of all errors of this package.

    :ivar report: what had happened until then, where a batch delivery ended with it.
    """

    retryable: bool = False
    report: DeliveryReport | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by state, so that keyword-only constructors survive a process boundary."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[EventsError], args: tuple[Any, ...], state: dict[str, Any]) -> EventsError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(EventsError):
    """A connection, an option or a mapping is wrong."""


class MappingError(ConfigurationError):
    """The mapping and the columns of the source do not fit together."""


class InvalidEvent(EventsError, ValueError):
    """An event that cannot be sent as it is.

    :param field: where the fault is, e.g. `"identity.email"` or `"properties.price"`.
    :param reason: what is wrong and what would be right, without the value itself.
    """

    def __init__(self, field: str, reason: str) -> None:
        self.field = shown_path(field)
        self.reason = shown(reason, TEXT_LENGTH)
        super().__init__(f"{self.field}: {self.reason}")


class SourceError(EventsError):
    """Rows could not be read."""

    retryable = True


class QueryError(SourceError):
    """The query is at fault, or its parameters, or a value in its rows that cannot be read: a retry meets it again.

    :ivar in_rows: whether a row is at fault, not the statement as such.
    """

    retryable = False

    def __init__(self, message: str, *, in_rows: bool = True) -> None:
        super().__init__(message)
        self.in_rows = in_rows


class KeyColumnError(SourceError):
    """The key column is not unique, holds NULLs or is not returned by the query."""

    retryable = False


class TooManyRows(SourceError):
    """There are more rows than are let through; nothing was sent."""

    retryable = False


class SourceChanged(SourceError):
    """The source no longer says what an earlier try of the same task settled."""

    retryable = False


class CursorError(SourceError):
    """The cursor that is kept from run to run does not fit the source, or cannot hold what it has to."""

    retryable = False


class CursorNotMoved(SourceError):
    """What was delivered could not be noted for the next run, which will send some of it again."""


class DeliveryError(EventsError):
    """A delivery stopped.

    :param status: HTTP status of the answer that ended it, if there was one.
    :param code: the vendor's own error code.
    :param request_id: the vendor's request id, for its support.
    :param retry_after: seconds the vendor asked us to wait.
    :param conn_id: Airflow connection that was used.
    :param report: counts up to the stop (batch deliveries only).
    """

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        conn_id: str | None = None,
        report: DeliveryReport | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after
        self.conn_id = conn_id
        self.report = report


class CredentialsRefused(DeliveryError):
    """The vendor refused the key, the project or the URL: every further request would be refused as well."""

    retryable = False


class EndpointRefused(CredentialsRefused):
    """Not the key is wrong, but where the connection leads: URL, TLS certificate, proxy, or a firewall in between.

    A `CredentialsRefused` all the same, as it was before it had a name: the connection has to be mended either way.
    """


class EventRejected(DeliveryError):
    """The vendor, or our own validation, will never accept this single event as it is."""

    retryable = False


class TooManyRejected(DeliveryError):
    """Everything deliverable was delivered, yet more events were rejected than allowed."""

    retryable = False


class CanaryFailed(DeliveryError):
    """Of the events that went first more were rejected than `canary_max_rejected` allows; the others were not sent."""

    retryable = False


class EntryMissing(DeliveryError):
    """The customer's entry does not exist at the vendor (yet)."""


class VendorUnavailable(DeliveryError):
    """The vendor gave no usable answer within the retry budget."""


class UnknownAnswer(VendorUnavailable):
    """The vendor answers with a success in an unknown form, so that nobody can tell whether events were stored.

    :ivar retryable: only after look-ups: what was sent may be stored, and each further try would store it again.
    """

    retryable = False


class RateLimited(DeliveryError):
    """The vendor asks for a longer pause than a task should hold a worker for; see `retry_after`."""


class RejectedNotWritten(DeliveryError):
    """Rejected events cannot be written to `rejected_path`: going on would lose them silently."""


class DeliveryInterrupted(DeliveryError):
    """Stopped from outside; whatever was in flight was waited for and counted."""
