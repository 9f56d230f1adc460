"""Lists of customers in an operator's arguments: taken from whatever Airflow gives, and shown as their number."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.values import kind

__all__ = ["Counted", "CountedField", "listed"]


class Counted(Sequence[Any]):
    """A list that prints as its length: rendered templates are stored, and must not hold customers.

    :param noun: what it is a list of.
    """

    def __init__(self, items: Sequence[Any], noun: str) -> None:
        self._items = items
        self._noun = noun

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<{len(self)} {self._noun}>"

    __str__ = __repr__


class CountedField:
    """A template field, kept with an underscore before its name: as given, and once rendered a `Counted`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, operator: Any, owner: type) -> Any:
        return self if operator is None else getattr(operator, f"_{self._name}")

    def __set__(self, operator: Any, value: Any) -> None:
        rendered = Counted(value, self._name) if isinstance(value, list | tuple) else value
        setattr(operator, f"_{self._name}", rendered)


def listed(value: Any, name: str) -> Any:
    """The list in what a template or an XCom gave.

    :param name: of the argument, for the error.
    :raises ConfigurationError: it is no list.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        value = _parsed(value, name)
    if isinstance(value, Mapping) or not hasattr(value, "__iter__"):
        raise ConfigurationError(f"{name}: has to be a list of {name}, not {kind(value)}")
    return value


def _parsed(text: str, name: str) -> Any:
    """A rendered template is text: JSON, or what Python prints of a list."""
    if text.strip() in ("", "None"):
        return ()
    try:
        return json.loads(text)
    except ValueError:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ConfigurationError(
                f"{name}: the rendered text is no list; pass the XComArg itself, or add `| tojson` to the template"
            ) from None
