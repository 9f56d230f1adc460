"""Sends the rejected events of an earlier delivery again."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_events.exceptions import ConfigurationError, EventsError
from airflow_provider_events.frames import name_connection
from airflow_provider_events.shown import TEXT_LENGTH, shown

if TYPE_CHECKING:
    from airflow_provider_events._compat import Connection

__all__ = ["add_command", "stored_connection"]


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `replay` to the command line."""
    command = commands.add_parser("replay", help="send the events of a .jsonl file of rejected events again")
    command.add_argument("file", help="local path or object-storage URI of the file")
    command.add_argument("--conn-id", required=True, help="Airflow connection of the vendor that rejected them")
    command.add_argument("--mapping", help="JSON, or a file of it, that makes events of rows that never became one")
    command.add_argument("--rejected-path", help="where those go that are rejected again")
    command.add_argument("--max-rejected", type=int, default=0, help="how many may be rejected again (default: 0)")
    command.add_argument("--dry-run", action="store_true", help="validate and encode, but send nothing")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Replay; prints the report as JSON. Returns 0 after a success, 1 otherwise."""
    from airflow_provider_events.delivery.options import DeliveryOptions
    from airflow_provider_events.hooks.base import EventsHook
    from airflow_provider_events.sources.jsonl import LineRecords
    from airflow_provider_events.sources.mapping import EventMapping

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        with redirect_stdout(sys.stderr):  # where Airflow logs to the standard output, which is the report's here
            mapping = None if arguments.mapping is None else EventMapping.of(_mapping(arguments.mapping))
            hook = asyncio.run(EventsHook.afor_connection(arguments.conn_id, stored_connection(arguments.conn_id)))
            report = hook.deliver_source(
                LineRecords(arguments.file, hook.conn_type, mapping),
                DeliveryOptions(max_rejected=arguments.max_rejected, dry_run=arguments.dry_run),
                rejected_path=arguments.rejected_path,
            )
    except EventsError as error:
        name_connection(error, f"connection {arguments.conn_id!r}")
        print(error, file=sys.stderr)
        if error.report is not None:
            print(json.dumps(error.report.to_dict(), indent=2))
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was in flight has been waited for", file=sys.stderr)
        return 1
    except Exception as error:  # Airflow's own, of its database and its secrets backends
        print(f"{type(error).__name__}: {shown(str(error), TEXT_LENGTH)}", file=sys.stderr)
        return 1
    print(json.dumps(report.to_dict(), indent=2))
    return 0


def _mapping(text: str) -> Mapping[str, Any]:
    """The mapping that an argument gives, or the file that it names.

    :raises ConfigurationError: neither.
    """
    try:
        value = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--mapping: neither JSON nor a file of it ({type(error).__name__})") from None
    if not isinstance(value, Mapping):
        raise ConfigurationError("--mapping: has to be a JSON object")
    return value


def stored_connection(conn_id: str) -> Connection:
    """As `airflow connections get` finds it: outside a task Airflow 3's hooks do not see those in its database.

    :raises ConfigurationError: it is nowhere.
    """
    from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]  # of Airflow itself
    from airflow.models.connection import Connection

    try:
        found: Any = Connection.get_connection_from_secrets(conn_id)
    except AirflowNotFoundException:
        raise ConfigurationError(
            f"connection {conn_id!r} is not there: neither in the environment, nor in a secrets backend, nor in "
            "Airflow's database (`airflow connections list` shows those in the database)"
        ) from None
    return cast("Connection", found)
