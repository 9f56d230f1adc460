"""From a SQL query to the vendor's entries, row by row, in flat memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_events.operators.entries import entry_mapping
from airflow_provider_events.transfers.sql_to_events import SqlDeliveryOperator

if TYPE_CHECKING:
    from airflow_provider_events.contract import Codec
    from airflow_provider_events.hooks.base import EventsHook
    from airflow_provider_events.sources.mapping import EventMapping

__all__ = ["SqlToEntriesOperator"]


class SqlToEntriesOperator(SqlDeliveryOperator):
    """Creates or updates the entry of each row's customer: Vibetrace, WebEngage, Bloomreach.

    :param mapping: which column is what, as in `UpsertEntryOperator`.

    For the other parameters see `SqlDeliveryOperator` and `DeliveryOperator`.
    """

    mapping: Mapping[str, Any]

    def event_mapping(self) -> EventMapping:
        """The mapping of rows to entries, as the event's that carries them."""
        return entry_mapping(self.mapping)

    def codec(self, hook: EventsHook) -> Codec:
        """As an upsert of the connection's vendor."""
        return hook.vendor.upserts()

    def fingerprint_inputs(self) -> Any:
        """That of the events, and that these are upserts."""
        return ["upsert", super().fingerprint_inputs()]
