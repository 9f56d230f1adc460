"""Errors as they are told: without the frames that they came through, and with the connection that they concern.

Frames hold keys and customers, and some tools print them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from airflow_provider_events.exceptions import EventsError

__all__ = ["alone", "final", "name_connection"]

Method = TypeVar("Method", bound=Callable[..., Any])

_NAMED = re.compile(r"(connection|sql_conn_id) ['\"]")


def final(method: Method, kinds: tuple[type[Exception], ...] = (EventsError,)) -> Method:
    """Decorator of what users call: errors of these kinds leave it alone, as their text says all there is to know.

    Any other error is a bug, and keeps its frames.
    """
    if inspect.iscoroutinefunction(method):

        @wraps(method)
        async def acall(*args: Any, **kwargs: Any) -> Any:
            try:
                return await method(*args, **kwargs)
            except kinds as error:
                left = error
            del args, kwargs
            raise alone(left)

        return cast(Method, acall)

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except kinds as error:
            left = error
        del args, kwargs
        raise alone(left)

    return cast(Method, call)


def alone(error: Exception) -> Exception:
    """The error without its frames and causes."""
    error.__cause__ = error.__context__ = None
    error.__suppress_context__ = True
    return error.with_traceback(None)


def name_connection(error: Exception, connection: str) -> None:
    """Begin an error's words with the connection that they concern, unless they begin with one already.

    :param connection: e.g. `"connection 'webengage_default'"`.
    """
    words = str(error)
    if not _NAMED.match(words):
        error.args = (f"{connection}: {words}",)
