"""Operators on the customers themselves: create or update their entries, and tell events by whether these exist."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_events._compat import BaseOperator
from airflow_provider_events.exceptions import ConfigurationError, InvalidEvent, MappingError
from airflow_provider_events.frames import final
from airflow_provider_events.operators.delivery import DeliveryOperator, fail_without_retry, one_line
from airflow_provider_events.operators.redacted import CountedField, listed
from airflow_provider_events.operators.templated import is_templated
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.values import filled, kind

if TYPE_CHECKING:
    from airflow_provider_events._compat import Context, XComArg
    from airflow_provider_events.contract import Codec
    from airflow_provider_events.delivery.resume import Source
    from airflow_provider_events.events import Event
    from airflow_provider_events.hooks.base import EventsHook

__all__ = ["FilterByEntryOperator", "UpsertEntryOperator", "entry_mapping", "split_by_entry"]

ENTRY_FIELDS = ("identity", "attributes", "timestamp")


class UpsertEntryOperator(DeliveryOperator):
    """Creates customers' entries, or updates their attributes: Vibetrace, WebEngage, Bloomreach.

    The same engine as for events, and the same accounts: returns the `DeliveryReport`. For a query there is
    `SqlToEntriesOperator`.

    :param identity: one customer (templated); with `attributes`, a mapping of attribute to value (templated). Or
    :param entries: a list of `{"identity": …, "attributes": …, "timestamp": …}`, an XComArg or a template that gives
        one. `timestamp` says when the attributes were so; Bloomreach lets no older upsert overwrite a newer one.
    :param mapping: with one, `entries` are plain rows: `{"identity": {key: column}, "attributes": [column, …] |
        {attribute: column} | None, "timestamp": column, "timezone": …, "nulls": …}`, as in `EventMapping` (templated).

    For the other parameters see `DeliveryOperator`.
    """

    identity = CountedField("ids")
    attributes = CountedField()
    entries = CountedField()
    template_fields: Sequence[str] = ("identity", "attributes", "entries", "mapping", *DeliveryOperator.template_fields)

    def __init__(
        self,
        *,
        identity: Mapping[str, str | int] | None = None,
        attributes: Mapping[str, Any] | None = None,
        entries: Collection[Mapping[str, Any]] | str | None = None,
        mapping: Mapping[str, Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (identity is None) == (entries is None):
            raise ConfigurationError("UpsertEntryOperator: give exactly one of identity and entries")
        if entries is not None and attributes is not None:
            raise ConfigurationError("UpsertEntryOperator: attributes go with identity; entries hold their own")
        self._identity: Any = identity
        self._attributes: Any = attributes
        self._entries: Any = entries
        self.mapping = mapping
        if not is_templated(mapping):
            self._entry_mapping()

    def source(self, hook: EventsHook) -> Source:
        """The entries as records."""
        from airflow_provider_events.sources.rows import EventRecords

        if self._identity is not None:
            return EventRecords([_as_event({"identity": self._identity, "attributes": self._attributes})])
        entries, mapping = listed(self._entries, "entries"), self._entry_mapping()
        return EventRecords(entries if mapping else _Events(entries), mapping)

    def codec(self, hook: EventsHook) -> Codec:
        """As an upsert of the connection's vendor."""
        return hook.vendor.upserts()

    def fingerprint_inputs(self) -> Any:
        """The mapping; the entries themselves are compared by their digest."""
        mapping = self._entry_mapping()
        return ["upsert", mapping and mapping.model_dump()]

    def _entry_mapping(self) -> EventMapping | None:
        return None if self.mapping is None else entry_mapping(self.mapping)


def entry_mapping(mapping: object) -> EventMapping:
    """The mapping of rows to entries, as the event's that carries them.

    :raises MappingError: it is no such mapping.
    """
    if not isinstance(mapping, Mapping):
        raise MappingError(f"mapping: has to be a dict, not {kind(mapping)}")
    known = ("identity", "attributes", "timestamp", "timezone", "nulls")
    if unknown := [str(name) for name in mapping if name not in known]:
        raise MappingError(f"mapping: {unknown[0]!r} is not one of {', '.join(known)}")
    columns = dict(mapping)
    return EventMapping.of({"name": "upsert", "properties": columns.pop("attributes", None), **columns})


class _Events(Collection[Any]):
    """Entries as the events that carry them; may be read again."""

    def __init__(self, entries: Any) -> None:
        self._entries = entries

    def __iter__(self) -> Iterator[Any]:
        return map(_as_event, self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry: object) -> bool:
        return entry in self._entries


def _as_event(entry: Any) -> Any:
    """An entry as the event that carries it; anything else as it is, for the engine to reject."""
    if not isinstance(entry, Mapping) or any(name not in ENTRY_FIELDS for name in entry):
        return entry
    fields = {name: entry[name] for name in ("identity", "timestamp") if name in entry}
    return {"name": "upsert", "properties": filled(entry.get("attributes")), **fields}


@final
def split_by_entry(
    conn_id: str,
    events: Collection[Event | Mapping[str, Any]],
    mapping: EventMapping | Mapping[str, Any] | None = None,
) -> dict[str, list[Any]]:
    """Events by whether their customer's entry exists: `{"existing": […], "missing": […]}`, each in the order given.

    Each customer is asked for once, on the connection's quota.

    :param mapping: with one, `events` are plain rows, and it says which columns are the identity.
    :raises InvalidEvent: an event has no identity, or none that the vendor can be asked for; naming its number.
    :raises ConfigurationError: the vendor documents no look-up, or the connection allows none.
    :raises DeliveryError: credentials refused, vendor unavailable, or rate limited for long.
    """
    from airflow_provider_events.hooks.base import EventsHook

    hook = EventsHook.for_connection(conn_id)
    with hook.naming():
        return _split(hook, list(events), mapping)


def _split(hook: EventsHook, events: list[Any], mapping: Any) -> dict[str, list[Any]]:
    from airflow_provider_events.sources.rows import EventRecords

    identities = []
    for chunk in EventRecords(events, mapping).records():
        for record in chunk:
            if record.event is None:
                raise InvalidEvent(f"events[{record.row - 1}]", str(record.fault))
            identities.append(record.event.identity)
    split: dict[str, list[Any]] = {"existing": [], "missing": []}
    if events:
        exist = hook.lookup(identities)
        for event, exists in zip(events, exist, strict=True):
            split["existing" if exists else "missing"].append(event)
    return split


class FilterByEntryOperator(BaseOperator):
    """Tells events whose customer's entry exists from those whose doesn't.

    The events are pushed as the XComs `existing` and `missing`, for `split.output["existing"]`; returned are the
    counts, `{"existing": 98, "missing": 2}`.

    :param conn_id: connection of a vendor with look-ups (templated).
    :param events: dictionaries with the fields of `Event`, or an XComArg or template that gives them.
    :param mapping: with one, `events` are plain rows, and it says which columns are the identity (templated).
    """

    events = CountedField()
    template_fields: Sequence[str] = ("events", "mapping", "conn_id")

    def __init__(
        self,
        *,
        conn_id: str,
        events: Collection[Event | Mapping[str, Any]] | XComArg | str,
        mapping: EventMapping | Mapping[str, Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self._events: Any = events
        self._hook: EventsHook | None = None
        self.mapping = mapping
        if mapping is not None and not is_templated(mapping):
            EventMapping.of(mapping)

    @one_line
    def execute(self, context: Context) -> dict[str, int]:
        """Look their customers up; an error of the connection or the vendor fails the task, and tells nothing apart."""
        from airflow_provider_events.hooks.base import EventsHook

        with fail_without_retry(self.conn_id):
            events = list(listed(self._events, "events"))
            self._hook = EventsHook.for_connection(self.conn_id)
            split = _split(self._hook, events, self.mapping)
        for name, events in split.items():
            context["ti"].xcom_push(key=name, value=events)
        counts = {name: len(events) for name, events in split.items()}
        self.log.info("%(existing)d events of existing entries, %(missing)d of missing ones", counts)
        return counts

    def on_kill(self) -> None:
        """Stop asking."""
        if self._hook is not None:
            self._hook.stop()
