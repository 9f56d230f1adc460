"""Where rows come from, and how they become events."""

from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.sources.sql import RowChunk, SqlSource

__all__ = ["EventMapping", "RowChunk", "SqlSource"]
