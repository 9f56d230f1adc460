"""The hook of connections of type `bloomreach`."""

from __future__ import annotations

from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.vendors.bloomreach import Bloomreach

__all__ = ["BloomreachHook"]


class BloomreachHook(EventsHook):
    """Sends events to Bloomreach; see `airflow_provider_events.vendors.bloomreach`."""

    vendor_class = Bloomreach
