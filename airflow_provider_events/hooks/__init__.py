"""Hooks: one per vendor, all of them `EventsHook`."""
