"""Sends the rejected events of an earlier delivery again."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout

from airflow_provider_events.exceptions import DeliveryError, EventsError

__all__ = ["add_command"]


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `replay` to the command line."""
    command = commands.add_parser("replay", help="send the events of a .jsonl file of rejected events again")
    command.add_argument("file", help="local path or object-storage URI of the file")
    command.add_argument("--conn-id", required=True, help="Airflow connection of the vendor that rejected them")
    command.add_argument("--rejected-path", help="where those go that are rejected again")
    command.add_argument("--max-rejected", type=int, default=0, help="how many may be rejected again (default: 0)")
    command.add_argument("--dry-run", action="store_true", help="validate and encode, but send nothing")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Replay; prints the report as JSON. Returns 0 after a success, 1 otherwise."""
    from airflow_provider_events.hooks.base import EventsHook
    from airflow_provider_events.sources.lines import LineRecords

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        with redirect_stdout(sys.stderr):  # where Airflow logs to the standard output, which is the report's here
            hook = EventsHook.for_connection(arguments.conn_id)
            report = hook.deliver_source(
                LineRecords(arguments.file, hook.conn_type),
                rejected_path=arguments.rejected_path,
                max_rejected=arguments.max_rejected,
                dry_run=arguments.dry_run,
            )
    except EventsError as error:
        print(error, file=sys.stderr)
        if isinstance(error, DeliveryError) and error.report is not None:
            print(json.dumps(error.report.to_dict(), indent=2))
        return 1
    print(json.dumps(report.to_dict(), indent=2))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of this package."""
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_events", description=__doc__)
    add_command(parser.add_subparsers(required=True, metavar="command"))
    parsed = parser.parse_args(arguments)
    code: int = parsed.run(parsed)
    return code
