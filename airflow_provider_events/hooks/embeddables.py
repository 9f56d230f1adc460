"""The hook of connections of type `embeddables`."""

from __future__ import annotations

from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.vendors.embeddables import Embeddables

__all__ = ["EmbeddablesHook"]


class EmbeddablesHook(EventsHook):
    """Sends events to Embeddables; see `airflow_provider_events.vendors.embeddables`."""

    vendor_class = Embeddables
