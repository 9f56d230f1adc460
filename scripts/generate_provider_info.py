"""Writes what the vendors' classes say into `airflow_provider_events/get_provider_info.py`.

    python scripts/generate_provider_info.py            bring the module up to date
    python scripts/generate_provider_info.py --check    only say whether it is

Airflow reads that module in each of its processes, so that it is a literal which imports nothing.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

from airflow_provider_events import get_provider_info
from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.hooks.form import connection_type
from airflow_provider_events.vendors.base import registry

MODULE = Path(get_provider_info.__file__)


def main(arguments: list[str]) -> int:
    """Write the module, or compare it; 1 if `--check` finds it outdated."""
    said = sections()
    written = get_provider_info.get_provider_info()
    if all(written[name] == section for name, section in said.items()):
        return 0
    if "--check" in arguments:
        print(f"{MODULE.name} is outdated: python scripts/generate_provider_info.py")
        return 1
    MODULE.write_text(replaced(MODULE.read_text(), said))
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", str(MODULE)], check=True)
    return 0


def sections() -> dict[str, list[dict[str, Any]]]:
    """Of the provider info, by name; vendors in the order in which they stand there, and new ones behind them."""
    written: Any = get_provider_info.get_provider_info()["connection-types"]
    order = [entry["connection-type"] for entry in written]
    known = registry()
    vendors = [known[name] for name in (*order, *sorted(set(known).difference(order))) if name in known]
    return {
        "integrations": [
            {"integration-name": vendor.label, "external-doc-url": vendor.docs_url, "tags": ["service"]}
            for vendor in vendors
        ],
        "connection-types": [connection_type(hook_of(vendor.conn_type)) for vendor in vendors],
    }


def hook_of(conn_type: str) -> type[EventsHook]:
    """The hook in the module that is called as its vendor."""
    module = vars(importlib.import_module(f"airflow_provider_events.hooks.{conn_type}"))
    hooks = [value for value in module.values() if isinstance(value, type) and issubclass(value, EventsHook)]
    return next(hook for hook in hooks if hook is not EventsHook)


def replaced(source: str, said: dict[str, Any]) -> str:
    """The module's source with these values of the dictionary that it returns."""
    lines = source.splitlines(keepends=True)
    [info] = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Return)]
    assert isinstance(info, ast.Dict)
    values = {ast.literal_eval(key): value for key, value in zip(info.keys, info.values, strict=True) if key}
    for name, section in reversed(said.items()):  # from the end, so that what is before keeps its place
        value = values[name]
        assert value.end_lineno is not None
        head, tail = lines[value.lineno - 1][: value.col_offset], lines[value.end_lineno - 1][value.end_col_offset :]
        lines[value.lineno - 1 : value.end_lineno] = [f"{head}{section!r}{tail}"]
    return "".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
