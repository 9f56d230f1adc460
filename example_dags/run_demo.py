"""The demo, in one command: a shop's orders reach four vendors, and every one of them is accounted for.

    make demo                                   or, in an environment that has this package:
    python -m example_dags.run_demo [--orders 3000] [--verbose]

It fills a SQLite shop, serves the four vendors' APIs on this machine (the sandbox), runs the DAG `events_demo` in real
Airflow, and compares what arrived with what was to be sent. All it makes is in `.airflow/demo` of this checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from airflow_provider_events.sandbox import Sandbox
from airflow_provider_events.sandbox.shop import fill_shop, known_emails, read_orders
from example_dags.demo_support.check import problems

EXAMPLE_DAGS = Path(__file__).resolve().parent
CHECKOUT = EXAMPLE_DAGS.parent
VENDORS = ("embeddables", "vibetrace", "webengage", "bloomreach")
SANDBOX_PORT = 8099
ORDERS = 3000  # WebEngage's quota, 500 bulks of 25 a minute, makes this a quarter of a minute
COUNTS = ("read", "delivered", "rejected", "skipped", "requests")

console = Console(highlight=False, soft_wrap=True)


class DemoFailed(Exception):
    """The demo cannot go on; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; 0 if everything adds up."""
    options = _options(arguments)
    started = time.monotonic()
    try:
        home = _make_home(options.home)
        shop = home / "shop.db"
        with _running_sandbox() as sandbox:
            fill_shop(shop, options.orders)
            _introduce_customers(sandbox, known_emails(shop))
            console.print(
                f"The shop has {options.orders} orders ({_shown(shop)}); the vendors answer at {sandbox.url}."
            )
            environment = _environment(home, sandbox)
            _write_environment(home, environment)
            outcome = _run_in_airflow(home, environment, options.verbose)
            reports = {vendor: outcome["tasks"][vendor]["report"] for vendor in VENDORS}
            _print_reports(reports)
            orders = read_orders(shop)
            wrong = [text for vendor in VENDORS for text in problems(vendor, reports[vendor], orders, sandbox)]
    except DemoFailed as error:
        console.print(f"[bold red]The demo failed.[/] {error}")
        return 1
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    if outcome["state"] != "success":
        wrong.append(f"the DAG run ended as {outcome['state']}")
    _print_verdict(wrong, time.monotonic() - started)
    _print_next_steps(home, sandbox.port)
    return 1 if wrong else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m example_dags.run_demo", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--orders", type=int, default=ORDERS, help="how many orders the shop has (default %(default)s)")
    parser.add_argument("--verbose", action="store_true", help="show Airflow's own logs")
    parser.add_argument("--home", type=Path, default=CHECKOUT / ".airflow" / "demo", help="where everything is kept")
    options = parser.parse_args(arguments)
    if options.orders < 50:
        parser.error("--orders has to be at least 50: among fewer, the bad ones would be too many")
    return options


def _make_home(home: Path) -> Path:
    """The demo's own folder. Airflow's database in it is kept from run to run, rejected events are not."""
    home = home.resolve()
    try:
        home.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(home / "rejected", ignore_errors=True)
        (home / "demo.log").write_text("")
    except OSError as error:
        raise DemoFailed(f"{home} cannot be written ({error.strerror}); name another folder with --home.") from None
    return home


@contextmanager
def _running_sandbox() -> Iterator[Sandbox]:
    """On the port that the documentation names, or on another if that is taken."""
    try:
        sandbox = Sandbox(port=SANDBOX_PORT).start()
    except OSError:
        sandbox = Sandbox().start()
    try:
        yield sandbox
    finally:
        sandbox.stop()


def _introduce_customers(sandbox: Sandbox, emails: Sequence[str]) -> None:
    """Embeddables and Vibetrace take events of known customers only; the other two take any."""
    for vendor in ("embeddables", "vibetrace"):
        sandbox.add_entries(vendor, [{"email": email} for email in emails])


def _environment(home: Path, sandbox: Sandbox) -> dict[str, str]:
    """Airflow's settings and connections: nothing of the user's own Airflow is read or changed."""
    connections = {vendor: sandbox.connection(vendor) for vendor in VENDORS}
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLE_DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__EVENTS__REJECTED_PATH": str(home / "rejected"),
        "AIRFLOW_CONN_SHOP": json.dumps({"conn_type": "sqlite", "host": str(home / "shop.db")}),
        **{f"AIRFLOW_CONN_{vendor.upper()}_DEFAULT": json.dumps(connections[vendor]) for vendor in VENDORS},
    }


def _write_environment(home: Path, environment: Mapping[str, str]) -> None:
    """The same for a shell, to look around with afterwards; `airflow` and `python` are then those of the demo."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    (home / "env.sh").write_text("\n".join(lines) + "\n")


def _run_in_airflow(home: Path, environment: Mapping[str, str], verbose: bool) -> dict[str, Any]:
    """The outcome of the DAG run: its state, and each task's state and report."""
    outcome = home / "outcome.json"
    outcome.unlink(missing_ok=True)
    console.print("Making Airflow's database …")
    _run(["-m", "airflow", "db", "migrate"], home, environment, verbose)
    console.print("Running the DAG events_demo in Airflow …")
    _run(["-m", "example_dags.demo_support.in_airflow", str(outcome)], home, environment, verbose)
    ended: dict[str, Any] = json.loads(outcome.read_text())
    unreported = [task for task, ending in ended["tasks"].items() if not ending["report"]]
    if unreported:
        raise DemoFailed(f"These tasks ended without a report: {', '.join(unreported)}. See {home / 'demo.log'}.")
    return ended


def _run(command: Sequence[str], home: Path, environment: Mapping[str, str], verbose: bool) -> None:
    """Run Python in Airflow's environment; what it says goes into the log unless it is asked for."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    log = home / "demo.log"
    with log.open("a") as file:
        ended = subprocess.run(
            [sys.executable, *command],
            cwd=CHECKOUT,
            env={**inherited, **environment},
            stdout=None if verbose else file,
            stderr=None if verbose else file,
            check=False,
        )
    if ended.returncode:
        said = "" if verbose else "\n".join(["", *log.read_text().splitlines()[-20:]])
        raise DemoFailed(f"`python {' '.join(command)}` ended with {ended.returncode}; its log: {log}{said}")


def _print_reports(reports: Mapping[str, Mapping[str, Any]]) -> None:
    table = Table("vendor", box=SIMPLE, padding=(0, 1, 0, 0))
    for name in (*COUNTS, "seconds", "events/s"):
        table.add_column(name, justify="right")
    for vendor, report in reports.items():
        rate = report["delivered"] / max(report["seconds"], 0.001)
        table.add_row(vendor, *[str(report[name]) for name in COUNTS], f"{report['seconds']:.1f}", f"{rate:.0f}")
    console.print(table)
    console.print("Rejected, and why:")
    for vendor, report in reports.items():
        where = f"{report['rejected']}, in {_shown(report['rejected_path'])}" if report["rejected_path"] else "none"
        console.print(f"\n  {vendor}: {where}", markup=False)
        for reason, count in report["reasons"].items():
            console.print(f"    {count:>5} x {reason}", markup=False)


def _print_verdict(wrong: Sequence[str], seconds: float) -> None:
    console.print()
    for text in wrong:
        console.print(f"WRONG: {text}", style="bold red", markup=False)
    if not wrong:
        console.print(
            "[bold green]OK[/] Every order read was delivered, rejected or skipped, and the vendors hold exactly the "
            f"delivered events, body by body ({seconds:.0f} s in all)."
        )


def _print_next_steps(home: Path, port: int) -> None:
    console.print(
        f"""
Where to look further:
  the DAG                   example_dags/demo.py
  each vendor: connection, rules, promises
                            docs/vendors/
  what a delivery is        docs/delivery.md
  Airflow's logs            {_shown(home / "demo.log")}

In a shell, after `. {_shown(home / "env.sh")}`:
  Airflow's web page        airflow standalone
  the vendors' sandbox      python -m airflow_provider_events.sandbox --port {port}
""",
        markup=False,
    )


def _shown(path: Path | str) -> str:
    """A path as short as it can be from here."""
    text = str(path).removeprefix("file://")
    return os.path.relpath(text) if text.startswith(str(Path.cwd()) + os.sep) else text


if __name__ == "__main__":
    sys.exit(main())
