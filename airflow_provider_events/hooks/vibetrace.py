"""The hook of connections of type `vibetrace`."""

from __future__ import annotations

from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.vendors.vibetrace import Vibetrace

__all__ = ["VibetraceHook"]


class VibetraceHook(EventsHook):
    """Sends events to Vibetrace; see `airflow_provider_events.vendors.vibetrace`."""

    vendor_class = Vibetrace
