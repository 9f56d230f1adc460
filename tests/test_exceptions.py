"""The error tree is the one its docstring draws, and survives a process boundary."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest

from airflow_provider_events import exceptions
from airflow_provider_events.events import DeliveryReport
from airflow_provider_events.exceptions import DeliveryError, EventsError, InvalidEvent

CLASSES = [getattr(exceptions, name) for name in exceptions.__all__]
BRANCH = re.compile(r"^ {4}(?P<trunk>[│├└─ ]*)(?P<name>[A-Z]\w+)(?: +(?P<retryable>yes|no) +\S.*)?$")


def drawn() -> dict[str, tuple[str | None, bool]]:
    """Class -> its parent and whether a retry helps, as the docstring draws them."""
    tree: dict[str, tuple[str | None, bool]] = {}
    parents: list[str] = []
    for line in (exceptions.__doc__ or "").splitlines():
        if (branch := BRANCH.match(line)) is None:
            continue
        depth = len(branch["trunk"]) // 4
        del parents[depth:]
        tree[branch["name"]] = (parents[-1] if parents else None, branch["retryable"] == "yes")
        parents.append(branch["name"])
    return tree


def test_the_tree_is_the_one_that_is_drawn() -> None:
    defined = {
        kind.__name__: (kind.__base__.__name__ if kind is not EventsError else None, kind.retryable) for kind in CLASSES
    }
    assert drawn() == defined


def test_every_error_is_exported() -> None:
    defined = {
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and value.__module__ == exceptions.__name__
    }
    assert defined == set(exceptions.__all__)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_says_what_it_means(kind: type[EventsError]) -> None:
    assert kind.__doc__


def made(kind: type[EventsError]) -> EventsError:
    if issubclass(kind, InvalidEvent):
        return kind("identity.email", "an id must not be empty")
    if issubclass(kind, DeliveryError):
        report = DeliveryReport("bloomreach", read=3, delivered=1, rejected=1, unsent=1, reasons={"invalid: x": 1})
        return kind(
            "stopped",
            status=429,
            code="http_429",
            request_id="r-1",
            retry_after=90.5,
            conn_id="bloomreach_default",
            report=report,
        )
    return kind("wrong")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_errors_survive_pickling_with_all_they_know(kind: type[EventsError], protocol: int) -> None:
    error = made(kind)
    error.add_note("while testing")
    for twin in (pickle.loads(pickle.dumps(error, protocol)), copy.copy(error)):
        assert type(twin) is kind
        assert str(twin) == str(error)
        assert twin.args == error.args
        assert vars(twin) == vars(error)


def test_an_invalid_event_is_a_value_error_that_names_the_field() -> None:
    error = InvalidEvent("identity.email", "an id must not be empty")
    assert isinstance(error, ValueError)
    assert (error.field, error.reason) == ("identity.email", "an id must not be empty")
    assert str(error) == "identity.email: an id must not be empty"


def test_a_delivery_error_knows_nothing_that_it_was_not_told() -> None:
    known: dict[str, Any] = vars(DeliveryError("stopped"))
    assert set(known) == {"status", "code", "request_id", "retry_after", "conn_id", "report"}
    assert set(known.values()) == {None}
