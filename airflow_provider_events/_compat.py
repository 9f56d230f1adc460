"""The one place that knows Airflow versions: every name of Airflow that this package uses comes from here."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseHook,
    BaseOperator,
    BaseSensorOperator,
    Connection,
    Context,
    ObjectStoragePath,
    PokeReturnValue,
    XComArg,
    conf,
    mask_secret,
)

NEVER_EXPIRE = timedelta.max  # Airflow 3.3's own value, which lies in a module that older versions do not have

__all__ = [
    "NEVER_EXPIRE",
    "AirflowException",
    "AirflowFailException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "BaseHook",
    "BaseOperator",
    "BaseSensorOperator",
    "Connection",
    "Context",
    "ObjectStoragePath",
    "PokeReturnValue",
    "XComArg",
    "conf",
    "get_async_connection",
    "mask_secret",
]
