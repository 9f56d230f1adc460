"""`python -m tests.reliability`: runs the reliability matrix, and writes it into docs/reliability.md."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tests.conftest import HOME
from tests.reliability import scenarios
from tests.reliability.matrix import row, run, table
from tests.reliability.trial import Result
from tests.servers import ServerUnavailable, postgres_server

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these scenarios; the page is not touched then")
    parser.add_argument("--at-once", type=int, default=3, help="scenarios at the same time (default %(default)s)")
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the two long ones (default %(default)s)")
    parser.add_argument("--keep-logs", type=Path, help="folder for the logs of what did not end as promised")
    options = parser.parse_args()
    started = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that an end by `kill` cleans up as well
    with ExitStack() as stack:
        try:
            server = stack.enter_context(postgres_server()).airflow_connection()
        except ServerUnavailable as error:
            print(f"without PostgreSQL ({error})", file=sys.stderr)
            server = None
        wanted = [*scenarios.long(options.rows), *scenarios.full(server)]
        if options.names:
            wanted = [scenario for scenario in wanted if scenario.name in options.names]
        results = run(wanted, options.at_once, tell, options.keep_logs)
    lines = table(results)
    wrong = [result for result in results if result.problems]
    print("", *lines, "", sep="\n")
    print(f"{len(results)} scenarios, {len(wrong)} not as promised, {time.monotonic() - started:.0f} s")
    if not options.names and not wrong:
        write(lines)
    return 1 if wrong else 0


def tell(result: Result) -> None:
    """A result as it comes."""
    said = "; ".join(result.problems) or "as promised"
    print(f"{result.scenario.name} ({result.seconds:.0f} s): {said}\n  {row(result)}", flush=True)


def write(lines: list[str]) -> None:
    """Put the table into the page."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text("\n".join([before + BEGIN, *lines, END]) + after)


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        shutil.rmtree(HOME, ignore_errors=True)
