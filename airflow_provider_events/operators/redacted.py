"""Customers in an operator's arguments: taken from whatever Airflow gives, and shown as their number."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_events._compat import XComArg
from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.values import kind

__all__ = ["Counted", "CountedField", "listed"]

# What Airflow looks into for templates; it stores a value of any other type as it prints.
RENDERED_TYPES = (str, list, tuple, dict, set, XComArg)


class Counted:
    """Prints a value as its size: rendered templates are stored, and must not hold customers.

    :param noun: what the value is made of.
    """

    def __init__(self, value: Any, noun: str) -> None:
        self.value = value
        self._noun = noun

    def __repr__(self) -> str:
        if isinstance(self.value, str):
            return f"<{self._noun}: a text of {len(self.value)} characters>"
        try:
            return f"<{len(self.value)} {self._noun}>"
        except TypeError:
            return f"<{self._noun}>"


class CountedField:
    """A template field that holds customers. The value is kept with an underscore before the field's name.

    Airflow reads the field to render it, sets what it rendered, and reads it again to store it: from then on, and from
    the beginning where there is nothing to render, it reads a `Counted`.

    :param noun: what the value is made of. Default: the field's name.
    """

    def __init__(self, noun: str | None = None) -> None:
        self._noun = noun

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, operator: Any, owner: type) -> Any:
        if operator is None:
            return self
        value = getattr(operator, f"_{self._name}")
        if value is None or (isinstance(value, RENDERED_TYPES) and not self._is_rendered(operator)):
            return value
        return Counted(value, self._noun or self._name)

    def __set__(self, operator: Any, value: Any) -> None:
        setattr(operator, f"_{self._name}", value.value if isinstance(value, Counted) else value)
        setattr(operator, f"_{self._name}_is_rendered", True)

    def _is_rendered(self, operator: Any) -> bool:
        return getattr(operator, f"_{self._name}_is_rendered", False)


def listed(value: Any, name: str) -> Any:
    """The list in what a template or an XCom gave; a single one is a list of one.

    :param name: of the argument, for the error.
    :raises ConfigurationError: it is no list.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        value = _parsed(value, name)
    if isinstance(value, Mapping):
        return [value]
    if not hasattr(value, "__iter__"):
        raise ConfigurationError(f"{name}: has to be a list of {name}, not {kind(value)}")
    return value


def _parsed(text: str, name: str) -> Any:
    """A rendered template is text: JSON, or what Python prints of a list."""
    text = text.removeprefix("\ufeff").strip()
    if text in ("", "None"):
        return ()
    try:
        return json.loads(text)
    except ValueError:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            file = ", and no path of a .jsonl file, the only kind that is read" if name == "events" else ""
            raise ConfigurationError(
                f"{name}: the text is no list{file}; pass the XComArg itself, or add `| tojson` to the template"
            ) from None
