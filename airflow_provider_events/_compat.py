"""The one place that knows Airflow versions: every name of Airflow that this package uses comes from here."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    BaseHook,
    BaseOperator,
    Connection,
    Context,
    ObjectStoragePath,
    conf,
    mask_secret,
)

__all__ = [
    "AirflowFailException",
    "AirflowSkipException",
    "BaseHook",
    "BaseOperator",
    "Connection",
    "Context",
    "ObjectStoragePath",
    "conf",
    "mask_secret",
]
