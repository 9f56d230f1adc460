"""Shows cursors, and sets them: one table of commands, for our own command line and for Airflow's."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_events.exceptions import ConfigurationError, CursorError, EventsError, SourceError
from airflow_provider_events.shown import TEXT_LENGTH, shown

if TYPE_CHECKING:
    from airflow_provider_events.sources.cursor_state import CursorRecord, CursorStore

__all__ = ["COMMANDS", "Argument", "Command", "add_command", "run"]

DONE, NOT_DONE, NO_ANSWER = 0, 1, 3


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument, as argparse takes it."""

    flags: tuple[str, ...]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    :param run: does it; returns what the process ends with.
    """

    name: str
    help: str
    arguments: tuple[Argument, ...]
    run: Callable[[argparse.Namespace], int]


def run(arguments: argparse.Namespace, command: Command) -> int:
    """Run a command; errors are one line on the standard error."""
    try:
        return command.run(arguments)
    except (CursorError, ConfigurationError) as error:
        print(error, file=sys.stderr)
        return NOT_DONE
    except SourceError as error:
        print(error, file=sys.stderr)
        return NO_ANSWER if error.retryable else NOT_DONE
    except EventsError as error:
        print(error, file=sys.stderr)
        return NOT_DONE
    except Exception as error:  # of Airflow's database, or of a folder
        print(f"{type(error).__name__}: {shown(str(error), TEXT_LENGTH)}", file=sys.stderr)
        return NO_ANSWER


def _list(arguments: argparse.Namespace) -> int:
    from airflow_provider_events.cli.cursor_admin import cursor_names, database_store

    with redirect_stdout(sys.stderr):  # where Airflow logs to the standard output
        store = database_store()
        found = [_shown(name, _record(store, name)) for name in cursor_names()]
    if arguments.output == "json":
        print(json.dumps(found, indent=2))
    elif not found:
        print("no cursor is stored")
    else:
        width = max(len(each["name"]) for each in found)
        for each in found:
            print(f"{each['name']:{width}}  {each['value']}  (moved {each['age']} ago by {each['run']})")
    return DONE


def _show(arguments: argparse.Namespace) -> int:
    from airflow_provider_events.cli.cursor_admin import database_store

    with redirect_stdout(sys.stderr):
        store = database_store()
        found = _shown(arguments.name, _record(store, arguments.name))
    if arguments.output == "json":
        print(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            print(f"{name:12} {value}")
    return DONE


def _set(arguments: argparse.Namespace) -> int:
    return _move(arguments, "set")


def _reset(arguments: argparse.Namespace) -> int:
    return _move(arguments, "reset")


def _move(arguments: argparse.Namespace, how: Any) -> int:
    from airflow_provider_events.cli.cursor_admin import database_store, load_record, moved, task_of, trial
    from airflow_provider_events.sources.cursor_state import Position
    from airflow_provider_events.sources.kept_cursor import AS_GIVEN, cursor_key

    name, to = arguments.name, arguments.to
    with redirect_stdout(sys.stderr):
        store = database_store()
        record = load_record(store, name)
        task = task_of(name, arguments.dags_folder)
        kind, of = AS_GIVEN, {}
        position = Position({"earliest": None, "now": datetime.now(UTC).isoformat()}.get(to, to))
        words = "its task is in no DAG here, so the rows of the next run cannot be counted"
        if task is not None:
            bounds, rows = trial(task, name, to, record.sent if record and how == "set" else b"")
            words = f"the next run will read {rows:,} rows"
            if bounds.axis is not None:
                position, kind, of = bounds.lower, bounds.axis.kind.value, task.cursor_parts()
    before = "nothing is stored" if record is None else f"it stands at {_text(record.position.value)}"
    print(f"cursor {name}: {before}; {how} to {_text(position.value)}: {words}")
    if not arguments.yes and not _agreed():
        print("nothing was changed", file=sys.stderr)
        return NOT_DONE
    with redirect_stdout(sys.stderr):
        store.set(cursor_key(name), moved(record, how, position, kind, of).to_dict())
    print(f"cursor {name} was {'set' if how == 'set' else 'reset'}")
    return DONE


def _adopt(arguments: argparse.Namespace) -> int:
    from airflow_provider_events.cli.cursor_admin import database_store
    from airflow_provider_events.sources.kept_cursor import cursor_key

    with redirect_stdout(sys.stderr):
        store = database_store()
        record = _record(store, arguments.name)
        store.set(cursor_key(arguments.name), replace(record, of={}, at=datetime.now(UTC)).to_dict())
    print(f"cursor {arguments.name}: the next run takes it over, at {_text(record.position.value)}")
    return DONE


def _agreed() -> bool:
    if not sys.stdin.isatty():
        print("not asked, as nobody can answer: --yes", file=sys.stderr)
        return False
    return input("go on? [y/N] ").strip().lower() in ("y", "yes")


def _record(store: CursorStore, name: str) -> CursorRecord:
    from airflow_provider_events.cli.cursor_admin import load_record

    record = load_record(store, name)
    if record is None:
        raise CursorError(f"no cursor is stored for {shown(name)!r}; `cursor list` shows those that are")
    return record


def _shown(name: str, record: CursorRecord) -> dict[str, Any]:
    from airflow_provider_events.sources.cursor_state import DIGEST_BYTES

    age = datetime.now(UTC) - record.at
    return {
        "name": name,
        "value": _text(record.position.value),
        "key": _text(record.position.key) if record.position.key is not None else None,
        "type": record.kind,
        "at": record.at.isoformat(timespec="seconds"),
        "age": str(age).partition(".")[0],
        "run": record.run,
        "generation": record.generation,
        "known_rows": record.file or len(record.sent) // DIGEST_BYTES,
    }


def _text(value: Any) -> str:
    return "the first row" if value is None else str(value)


_NAME = Argument(("name",), {"help": "of the cursor: <dag_id>.<task_id>, or the task's cursor_name"})
_OUTPUT = Argument(("--output",), {"choices": ("table", "json"), "default": "table", "help": "default: table"})
_MOVING = (
    _NAME,
    Argument(("--to",), {"required": True, "help": "a value of the cursor column, `now`, or `earliest`"}),
    Argument(("--yes",), {"action": "store_true", "help": "do not ask"}),
    Argument(("--dags-folder",), {"help": "folder or file with the task's DAG (default: Airflow's)"}),
)
COMMANDS = (
    Command("list", "the cursors that are stored", (_OUTPUT,), _list),
    Command("show", "one cursor", (_NAME, _OUTPUT), _show),
    Command("set", "go on from a value; what is known as sent is not sent again", _MOVING, _set),
    Command("reset", "go on from a value, and send again what is read again", _MOVING, _reset),
    Command("adopt", "let the next run take over a cursor of a query that was changed", (_NAME,), _adopt),
)


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds `cursor` to our own command line."""
    parser = commands.add_parser("cursor", help="show and set the cursors of scheduled syncs")
    subcommands = parser.add_subparsers(required=True, metavar="command")
    for command in COMMANDS:
        sub = subcommands.add_parser(command.name, help=command.help)
        for argument in command.arguments:
            sub.add_argument(*argument.flags, **argument.options)
        sub.set_defaults(run=lambda parsed, command=command: run(parsed, command))
