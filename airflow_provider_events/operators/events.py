"""Operators that send events which are already in Airflow: one, or a list from an XCom."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_events._compat import BaseOperator
from airflow_provider_events.operators.delivery import (
    EventDeliveryOperator,
    dag_run_start,
    fail_without_retry,
    one_line,
)
from airflow_provider_events.operators.paths import GivenPath
from airflow_provider_events.operators.redacted import CountedField, listed
from airflow_provider_events.operators.templated import is_templated
from airflow_provider_events.sources.mapping import EventMapping

if TYPE_CHECKING:
    from airflow_provider_events._compat import Context, XComArg
    from airflow_provider_events.delivery.resume import Source
    from airflow_provider_events.events import Event
    from airflow_provider_events.hooks.base import EventsHook

__all__ = ["SendEventOperator", "SendEventsOperator"]


class SendEventOperator(BaseOperator):
    """Sends one event. The connection's type decides the vendor; all fields of the event are templated.

    :param conn_id: connection of type embeddables, vibetrace, webengage or bloomreach.
    :param name: what happened.
    :param identity: who did it, in the vendor's key names, e.g. `{"email": "{{ params.email }}"}`.
    :param timestamp: when, as an aware datetime or ISO 8601 text with a zone. Default: the start of the DAG run, so
        that a retry sends the same bytes.
    :param properties: what else is known.
    :param id: the caller's own idempotency key.
    :param ensure_entry: create the customer's entry first where it is missing, by an upsert: True, or a mapping of
        attributes that it gets. Vibetrace, WebEngage, Bloomreach. While it is not to be seen, the event is sent again,
        for a minute at most.

    Returns the `Receipt` as a dictionary. A rejected event, or refused credentials, fail the task without a retry; a
    missing entry fails it with one.
    """

    identity = CountedField("ids")
    properties = CountedField()
    template_fields: Sequence[str] = ("conn_id", "name", "identity", "timestamp", "properties", "id")

    def __init__(
        self,
        *,
        conn_id: str,
        name: str,
        identity: Mapping[str, str | int],
        timestamp: datetime | str | None = None,
        properties: Mapping[str, Any] | None = None,
        id: str | None = None,
        ensure_entry: bool | Mapping[str, Any] = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.conn_id = conn_id
        self.name = name
        self._identity: Any = identity
        self.timestamp = timestamp
        self._properties: Any = properties
        self.id = id
        self.ensure_entry = ensure_entry
        self._hook: EventsHook | None = None

    @one_line
    def execute(self, context: Context) -> dict[str, Any]:
        """Send it."""
        from airflow_provider_events.delivery.progress import counted
        from airflow_provider_events.hooks.base import EventsHook
        from airflow_provider_events.hooks.ensuring import send_ensured

        with fail_without_retry(self.conn_id):
            self._hook = hook = EventsHook.for_connection(self.conn_id)
            event = {
                "name": self.name,
                "identity": self._identity,
                "timestamp": self.timestamp or dag_run_start(context),
                "properties": self._properties,
                "id": self.id,
            }
            if self.ensure_entry:
                attributes = self.ensure_entry if isinstance(self.ensure_entry, Mapping) else {}
                hook.upsert(self._identity, attributes, sent_at=dag_run_start(context))
                receipt = hook.run(lambda: send_ensured(hook, event))
            else:
                receipt = hook.send(event)
        self.log.info("%s accepted the event (%s)", receipt.vendor, counted(receipt.requests, "request"))
        return receipt.to_dict()

    def on_kill(self) -> None:
        """Stop: Airflow's signal alone would not keep the event from being sent."""
        if self._hook is not None:
            self._hook.stop()


class SendEventsOperator(EventDeliveryOperator):
    """Sends a list of events, from an XCom or as it stands in the DAG file.

    :param events: dictionaries with the fields of `Event`, or an XComArg or template that gives them; or the path or
        URI of a `.jsonl` file, such as that of the rejected events of an earlier delivery. None: nothing.
    :param mapping: with one, `events` are plain rows, and it says which column is what (templated). Of a file of
        rejected events it makes those rows events that never were; without it, the mapping they were rejected under.

    For the other parameters see `EventDeliveryOperator`.
    """

    events = CountedField()
    template_fields: Sequence[str] = ("events", "mapping", *EventDeliveryOperator.template_fields)

    def __init__(
        self,
        *,
        events: Collection[Event | Mapping[str, Any]] | XComArg | str | None = None,
        mapping: EventMapping | Mapping[str, Any] | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._events: Any = events
        self._path = GivenPath("events", events)
        self.mapping = mapping
        if not is_templated(mapping):
            self._event_mapping()

    def source(self, hook: EventsHook) -> Source:
        """The events, the mapped rows, or the lines of a file."""
        from airflow_provider_events.sources.jsonl import LineRecords, is_lines_uri
        from airflow_provider_events.sources.rows import EventRecords

        if isinstance(self._events, str) and is_lines_uri(self._events):
            self._path.checked(self._events)
            return LineRecords(self._events, hook.conn_type, self._event_mapping())
        return EventRecords(listed(self._events, "events"), self._event_mapping())

    def fingerprint_inputs(self) -> Any:
        """The mapping; the events themselves are compared by their digest."""
        mapping = self._event_mapping()
        return None if mapping is None else mapping.model_dump()

    def _event_mapping(self) -> EventMapping | None:
        return None if self.mapping is None else EventMapping.of(self.mapping)
