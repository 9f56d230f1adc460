"""Our commands on Airflow's own command line, from Airflow 3.2 on: `airflow events …`."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_events.cli.cursor import Command

__all__ = ["get_commands", "run_cursor"]


def get_commands() -> list[Any]:
    """What Airflow's parser takes; nothing heavy is imported for it."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    from airflow_provider_events.cli.cursor import COMMANDS

    cursor = [
        ActionCommand(
            name=command.name,
            help=command.help,
            func=partial(run_cursor, command),
            args=[Arg(flags=argument.flags, **argument.options) for argument in command.arguments],
        )
        for command in COMMANDS
    ]
    group = GroupCommand(name="cursor", help="Show and set the cursors of scheduled syncs", subcommands=cursor)
    return [GroupCommand(name="events", help="Delivery of customer events", subcommands=[group])]


def run_cursor(command: Command, arguments: Any) -> None:
    """Run one of them, and end the process as it ended."""
    from airflow_provider_events.cli.cursor import run

    sys.exit(run(arguments, command))
