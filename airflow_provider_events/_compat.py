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

try:
    from airflow.sdk import NEVER_EXPIRE
except ImportError:  # before Airflow 3.3 there is no state store to keep anything in
    NEVER_EXPIRE = None

__all__ = [
    "NEVER_EXPIRE",
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
