"""The command line's commands."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from airflow_provider_events.cli import cursor, replay
from airflow_provider_events.sandbox.__main__ import add_options as add_sandbox_options

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns what the process ends with."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_events", description="Airflow provider that delivers customer events."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    replay.add_command(commands)
    cursor.add_command(commands)
    add_sandbox_options(commands.add_parser("sandbox", help="serve the vendors' APIs on this machine"))
    parsed = parser.parse_args(arguments)
    code: int = parsed.run(parsed)
    return code
