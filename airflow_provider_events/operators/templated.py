"""Options that may be templates: checked at DAG parse where they are none, and read from what a template gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_events._compat import XComArg
from airflow_provider_events.exceptions import ConfigurationError

__all__ = ["boolean", "is_templated", "number"]


def is_templated(value: Any) -> bool:
    """Whether Airflow is to render the value, or anything within it."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(map(is_templated, value.values()))
    if isinstance(value, list | tuple):
        return any(map(is_templated, value))
    return isinstance(value, XComArg)


def number(value: Any, name: str) -> Any:
    """A whole number or a decimal one, where a template gave text; every other value as it is.

    :param name: of the option, for the error.
    :raises ConfigurationError: a text that is no number.
    """
    if not isinstance(value, str):
        return value
    for read in (int, float):
        try:
            return read(value)
        except ValueError:
            continue
    raise ConfigurationError(f"{name} has to be a number, and the rendered text is not one")


def boolean(value: Any, name: str) -> bool:
    """True or False, also where a template gave text.

    :param name: of the option, for the error.
    :raises ConfigurationError: neither.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and (text := value.strip().lower()) in ("true", "false"):
        return text == "true"
    raise ConfigurationError(f"{name} has to be true or false; what was given is neither")
