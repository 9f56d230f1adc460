"""Where rows come from, and how they become events."""

from airflow_provider_events.sources.sql import RowChunk, SqlSource

__all__ = ["RowChunk", "SqlSource"]
