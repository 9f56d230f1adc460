"""`DeliveryOptions` as arguments of an operator: named where Airflow looks for names; a wrong one gets an answer."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Set
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar, cast

from airflow_provider_events._compat import BaseOperator
from airflow_provider_events.delivery.options import DeliveryOptions
from airflow_provider_events.exceptions import ConfigurationError

__all__ = ["names_options", "without_options"]

Method = TypeVar("Method", bound=Callable[..., Any])


def names_options(init: Method) -> Method:
    """Decorator of an `__init__`: its signature has the options, as what `default_args` and `partial` give needs it."""
    signature = inspect.signature(init)
    *own, others = signature.parameters.values()
    options = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(DeliveryOptions)
    ]
    cast(Any, init).__signature__ = signature.replace(parameters=[*own, *options, others])
    return init


def without_options(operator: BaseOperator, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given for Airflow's own operator.

    :raises ConfigurationError: the name of one is nearly that of an argument.
    """
    others = {name: value for name, value in given.items() if name not in DeliveryOptions.names()}
    classes = type(operator).__mro__
    if not others.keys() <= _parameters(BaseOperator):
        known = set[str]().union(*map(_parameters, classes))
        for name in others.keys() - known:
            if near := difflib.get_close_matches(name, known, 1):
                raise ConfigurationError(f"{classes[0].__name__} takes no {name!r}; did you mean {near[0]!r}?")
    return others


@cache
def _parameters(operator: type) -> Set[str]:
    return inspect.signature(vars(operator).get("__init__", object.__init__)).parameters.keys()
