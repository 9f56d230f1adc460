"""The hook of connections of type `postbox`."""

from __future__ import annotations

from airflow_provider_events.hooks.base import EventsHook
from events_postbox.vendor import Postbox

__all__ = ["PostboxHook"]


class PostboxHook(EventsHook):
    """Sends events to Postbox."""

    vendor_class = Postbox
