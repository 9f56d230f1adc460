"""The one place that knows Airflow versions: every name of Airflow that this package uses comes from here."""

from __future__ import annotations

from datetime import timedelta
from pkgutil import resolve_name
from typing import Any

from airflow import __version__
from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    Asset,
    BaseHook,
    BaseOperator,
    BaseSensorOperator,
    Connection,
    Context,
    ObjectStoragePath,
    PokeReturnValue,
    Variable,
    XComArg,
    conf,
    mask_secret,
)

HAS_STATE_STORES = tuple(map(int, __version__.split(".")[:2])) >= (3, 3)
NEVER_EXPIRE = timedelta.max  # Airflow 3.3's own value, which lies in a module that older versions do not have

__all__ = [
    "HAS_STATE_STORES",
    "NEVER_EXPIRE",
    "AirflowException",
    "AirflowFailException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "Asset",
    "BaseHook",
    "BaseOperator",
    "BaseSensorOperator",
    "Connection",
    "Context",
    "ObjectStoragePath",
    "PokeReturnValue",
    "Variable",
    "XComArg",
    "conf",
    "get_async_connection",
    "hook_class_of",
    "mask_secret",
]


def hook_class_of(conn_type: str | None) -> Any:
    """The hook class that an installed provider names for a connection type, imported; None where there is none."""
    try:
        from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime as ProvidersManager
    except ImportError:  # before Airflow 3.2
        from airflow.providers_manager import ProvidersManager  # type: ignore[assignment]  # in its place
    hook = ProvidersManager().hooks.get(conn_type or "")  # None too where the class cannot be imported
    return hook and resolve_name(hook.hook_class_name)
