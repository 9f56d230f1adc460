"""The hook of connections of type `webengage`."""

from __future__ import annotations

from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.vendors.webengage import WebEngage

__all__ = ["WebEngageHook"]


class WebEngageHook(EventsHook):
    """Sends events to WebEngage; see `airflow_provider_events.vendors.webengage`."""

    vendor_class = WebEngage
