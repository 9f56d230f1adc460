"""What users import, write and catch: what is new gets a word here; whoever takes one away breaks somebody's DAG."""

from __future__ import annotations

import inspect
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_events import exceptions
from airflow_provider_events.get_provider_info import get_provider_info
from airflow_provider_events.hooks.base import EventsHook

PACKAGE = "airflow_provider_events"
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

IMPORTED = {
    "delivery.observers": "DeliveryObserver",
    "delivery.options": "DeliveryOptions",
    "delivery.pacing": "RateLimiter RetryPolicy",
    "events": "DeliveryReport Event Receipt Rejection",
    "hooks.base": "EventsHook",
    "hooks.bloomreach": "BloomreachHook",
    "hooks.embeddables": "EmbeddablesHook",
    "hooks.vibetrace": "VibetraceHook",
    "hooks.webengage": "WebEngageHook",
    "operators.delivery": "DeliveryOperator",
    "operators.entries": "FilterByEntryOperator UpsertEntryOperator split_by_entry",
    "operators.events": "SendEventOperator SendEventsOperator",
    "sandbox": "Sandbox",
    "sandbox.pytest_plugin": "events_sandbox",
    "sensors.entry": "EntryExistsSensor",
    "sources": "EventMapping SqlSource",
    "sources.mapping": "EventMapping",
    "transfers.sql_to_entries": "SqlToEntriesOperator",
    "transfers.sql_to_events": "SqlToEventsOperator",
    "triggers.entry": "EntryTrigger",
}

# Parameters in their order, a default where it is a plain value; behind a * they are passed by name.
DELIVERY = (
    "* conn_id on_missing_entry='reject' missing_entry_timeout=900.0 max_rejected=0 rejected_path=None "
    "max_rows=None max_growth=None canary=None canary_max_rejected=0 batch_size=None "
    "max_in_flight=None requests_per_minute=None ordering='none' on_source_changed='restart' "
    "resume_after_clear='unfinished' checkpoint_path=None on_empty='succeed' hook_params=None dry_run=False"
)
EVENTS = f"{DELIVERY[2:]} ensure_entry=False pending_path=None pending_max_age=None"
HOOK_OPTIONS = (
    "on_missing_entry='reject' missing_entry_timeout=900.0 max_rejected=0 max_rows=None canary=None "
    "canary_max_rejected=0 batch_size=None max_in_flight=None "
    "requests_per_minute=None ordering='none' on_source_changed='restart' dry_run=False"
)
FROM_SQL = (
    "sql sql_conn_id mapping parameters=None key_column=None interval_column=None cursor_column=None "
    "initial_value=None lookback=None cursor_delay=None on_cursor_null='fail' cursor_name=None count_rows=False "
    "sql_hook_params=None"
)
CALLED = {
    "events.Event": "name identity timestamp=None properties id=None",
    "events.Receipt": "vendor event_id status reference=None request_id=None requests=1",
    "events.Rejection": "row code reason field=None",
    "events.DeliveryReport": "vendor read=0 delivered=0 rejected=0 skipped=0 resumed=0 unsent=0 requests=0 retries=0 "
    "seconds=0.0 reasons rejected_path=None conn_id='' pending=0 healed=0 expired=0",
    "sources.mapping.EventMapping": "* name=None name_column=None identity timestamp=None id=None properties=None "
    "timezone=None nulls='drop'",
    "delivery.options.DeliveryOptions": HOOK_OPTIONS,
    "hooks.base.EventsHook": "conn_id=None * retry_policy=None rate_limiter=None observers=()",
    "operators.delivery.DeliveryOperator": DELIVERY,
    "operators.events.SendEventOperator": "* conn_id name identity timestamp=None properties=None id=None "
    "ensure_entry=False",
    "operators.events.SendEventsOperator": f"* events=None mapping=None {EVENTS}",
    "operators.entries.UpsertEntryOperator": "* identity=None attributes=None entries=None mapping=None "
    + DELIVERY[2:],
    "operators.entries.FilterByEntryOperator": "* conn_id events mapping=None",
    "operators.entries.split_by_entry": "conn_id events mapping=None",
    "transfers.sql_to_events.SqlToEventsOperator": f"* {FROM_SQL} {EVENTS}",
    "transfers.sql_to_entries.SqlToEntriesOperator": f"* {FROM_SQL} {DELIVERY[2:]}",
    "sensors.entry.EntryExistsSensor": "* conn_id identity=None identities=None require='all' deferrable=False "
    "checkpoint_path=None",
    "sandbox.Sandbox": "* host='127.0.0.1' port=0 allowed_hosts=() quotas=True keep_bodies=True clock=None vendors=()",
}
HOOK_METHODS = {
    "aentry_exists": "identity",
    "afor_connection": "conn_id connection=None",
    "alookup": "identities",
    "asend": "event",
    "entry_exists": "identity",
    "for_connection": "conn_id",
    "get_conn": "",
    "lookup": "identities",
    "send": "event",
    "stop": "",
    "test_connection": "",
    "upsert": "identity attributes=None * sent_at=None",
}
TEMPLATED = {
    "operators.delivery.DeliveryOperator": "conn_id max_rejected max_rows max_growth "
    "dry_run rejected_path checkpoint_path",
    "operators.entries.FilterByEntryOperator": "events mapping conn_id",
    "operators.entries.UpsertEntryOperator": "identity attributes entries mapping conn_id max_rejected max_rows "
    "max_growth dry_run rejected_path checkpoint_path",
    "operators.events.SendEventOperator": "conn_id name identity timestamp properties id",
    "operators.events.SendEventsOperator": "events mapping conn_id max_rejected max_rows max_growth "
    "dry_run rejected_path checkpoint_path pending_path",
    "sensors.entry.EntryExistsSensor": "identity identities conn_id checkpoint_path",
    "transfers.sql_to_entries.SqlToEntriesOperator": "sql parameters sql_conn_id mapping key_column interval_column "
    "initial_value cursor_name conn_id max_rejected max_rows max_growth dry_run rejected_path checkpoint_path",
    "transfers.sql_to_events.SqlToEventsOperator": "sql parameters sql_conn_id mapping key_column interval_column "
    "initial_value cursor_name conn_id max_rejected max_rows max_growth dry_run rejected_path checkpoint_path "
    "pending_path",
}
# Error -> its base, and whether Airflow's retries can help.
ERRORS = {
    "EventsError": ("Exception", False),
    "ConfigurationError": ("EventsError", False),
    "MappingError": ("ConfigurationError", False),
    "InvalidEvent": ("EventsError", False),
    "SourceError": ("EventsError", True),
    "QueryError": ("SourceError", False),
    "KeyColumnError": ("SourceError", False),
    "TooManyRows": ("SourceError", False),
    "SourceChanged": ("SourceError", False),
    "CursorError": ("SourceError", False),
    "CursorNotMoved": ("SourceError", True),
    "DeliveryError": ("EventsError", True),
    "CredentialsRefused": ("DeliveryError", False),
    "EndpointRefused": ("CredentialsRefused", False),
    "EventRejected": ("DeliveryError", False),
    "CanaryFailed": ("DeliveryError", False),
    "TooManyRejected": ("DeliveryError", False),
    "EntryMissing": ("DeliveryError", True),
    "VendorUnavailable": ("DeliveryError", True),
    "UnknownAnswer": ("VendorUnavailable", False),
    "RateLimited": ("DeliveryError", True),
    "RejectedNotWritten": ("DeliveryError", True),
    "DeliveryInterrupted": ("DeliveryError", True),
}


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(f"{PACKAGE}.{module}"), name)


def written(parameters: list[inspect.Parameter]) -> str:
    """Parameters as the tables above write them."""
    parts: list[str] = []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        plain = parameter.default is None or type(parameter.default) in (bool, int, float, str, tuple)
        parts.append(f"{parameter.name}={parameter.default!r}" if plain else parameter.name)
    return " ".join(parts)


def parameters_of(called: Any) -> list[inspect.Parameter]:
    """Of a function or a class, with those that its bases in this package take."""
    if not isinstance(called, type):
        return list(inspect.signature(called).parameters.values())
    found: dict[str, inspect.Parameter] = {}
    for base in called.__mro__:
        if base.__module__.startswith(PACKAGE) and "__init__" in vars(base):
            found = {**found, **{k: v for k, v in inspect.signature(base).parameters.items() if k not in found}}
    return list((found or inspect.signature(called).parameters).values())


@pytest.mark.parametrize("module", IMPORTED)
def test_what_users_import_is_there(module: str) -> None:
    loaded = import_module(f"{PACKAGE}.{module}")
    assert [name for name in IMPORTED[module].split() if not hasattr(loaded, name)] == []


@pytest.mark.parametrize("path", CALLED)
def test_what_users_call_takes_what_they_write(path: str) -> None:
    shown = written(parameters_of(named(path)))
    assert {*shown.split()} == {*CALLED[path].split()}
    in_order = CALLED[path].partition("*")[0].split()
    assert shown.split()[: len(in_order)] == in_order


@pytest.mark.parametrize("name", HOOK_METHODS)
def test_the_hook_does_what_users_ask(name: str) -> None:
    method = getattr(EventsHook, name)
    assert written([p for p in parameters_of(method) if p.name != "self"]) == HOOK_METHODS[name]


def test_the_hook_delivers_with_each_option() -> None:
    deliver = inspect.signature(EventsHook.deliver)
    assert list(deliver.parameters)[:2] == ["self", "events"]
    for option in ("mapping", "rejected_path", *(part.partition("=")[0] for part in HOOK_OPTIONS.split())):
        deliver.bind(None, [], **{option: None})


@pytest.mark.parametrize("path", TEMPLATED)
def test_templates_reach_the_fields_that_they_reached(path: str) -> None:
    assert sorted(named(path).template_fields) == sorted(TEMPLATED[path].split())


def test_errors_are_caught_by_what_they_were_caught_by() -> None:
    found = {name: getattr(exceptions, name) for name in exceptions.__all__}
    assert {name: (kind.__bases__[0].__name__, kind.retryable) for name, kind in found.items()} == ERRORS
    assert issubclass(exceptions.InvalidEvent, ValueError)


def test_settings_keep_their_names() -> None:
    config: Any = get_provider_info()["config"]
    options = "rejected_path checkpoint_path cursor_path allowed_paths file_permissions"
    assert {section: " ".join(config[section]["options"]) for section in config} == {"events": options}


def test_connection_types_keep_their_hooks() -> None:
    types: Any = get_provider_info()["connection-types"]
    hooks = {kind["connection-type"]: kind["hook-class-name"] for kind in types}
    assert hooks == {
        "embeddables": f"{PACKAGE}.hooks.embeddables.EmbeddablesHook",
        "vibetrace": f"{PACKAGE}.hooks.vibetrace.VibetraceHook",
        "webengage": f"{PACKAGE}.hooks.webengage.WebEngageHook",
        "bloomreach": f"{PACKAGE}.hooks.bloomreach.BloomreachHook",
    }


def test_the_entry_points_lead_to_what_is_there() -> None:
    assert PROJECT["name"] == "airflow-provider-events"
    assert set(PROJECT["optional-dependencies"]) >= {"sandbox"}
    points = {group: list(points) for group, points in PROJECT["entry-points"].items()}
    assert points == {"apache_airflow_provider": ["provider_info"]}
    for group in PROJECT["entry-points"].values():
        for target in group.values():
            module, _, name = target.partition(":")
            assert hasattr(import_module(module), name), target


def test_an_event_is_written_as_it_was() -> None:
    from airflow_provider_events.events import DeliveryReport, Event

    event = Event("purchase", {"registered": "c-1"}, None, {"total_price": 39.8}, "order-1")
    assert Event.from_dict({name: getattr(event, name) for name in Event.__slots__}) == event
    report = DeliveryReport("bloomreach", read=1, delivered=1)
    assert list(report.to_dict())[:-1] == [part.partition("=")[0] for part in CALLED["events.DeliveryReport"].split()]
