"""`python -m benchmarks`: builds, runs, writes raw results, and makes tables and plots of docs/performance.md.

A whole scenario is written to benchmarks/results and into the page. What is narrowed down (--vendors, --clients,
--rows, --rounds, --quick) is only printed; its raw results are in benchmarks/build.
"""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks.build import FOLDER, Missing, program
from benchmarks.clients import CLIENTS
from benchmarks.measure import COMPILED, ROOT, Failed
from benchmarks.page import PAGE, rewrite
from benchmarks.results import RESULTS, Results, machine
from benchmarks.scenarios import SCENARIOS, Case, Scenario, Selection
from benchmarks.tables import TABLES
from benchmarks.wires import WIRES


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", metavar="A,B", type=listed, default=tuple(SCENARIOS), help=f"of {', '.join(SCENARIOS)}"
    )
    parser.add_argument("--vendors", metavar="A,B", type=listed, default=tuple(WIRES), help=f"of {', '.join(WIRES)}")
    known = ", ".join([*CLIENTS, *COMPILED])
    parser.add_argument("--clients", metavar="A,B", type=listed, default=(), help=f"of {known}")
    parser.add_argument("--rows", type=int, help="rows per run, for all clients")
    parser.add_argument("--rounds", type=int, help="runs of each case")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the rows, one round")
    parser.add_argument("--draw", action="store_true", help="run nothing; make tables and plots anew from the results")
    options = parser.parse_args()
    unknown = [name for name in options.only if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    if options.draw:
        rewrite()
        return 0
    leave_out()
    rounds = options.rounds or (1 if options.quick else None)
    selection = Selection(options.vendors, options.clients, options.rows, rounds, options.quick)
    whole = selection == Selection()
    failed = False
    for name in options.only:
        results = run(SCENARIOS[name], selection)
        path = results.write(RESULTS if whole else FOLDER)
        failed |= any(str(one.get("failed", "")).startswith("failed") for one in results.runs)
        print("", *TABLES[name](results), f"raw results: {path.relative_to(ROOT)}", "", sep="\n", flush=True)
    if whole:
        rewrite()
        print(f"tables and plots: {PAGE.relative_to(ROOT)}")
    return 1 if failed else 0


def listed(text: str) -> tuple[str, ...]:
    """`a,b` as a tuple."""
    return tuple(text.split(","))


def leave_out() -> None:
    """Say at once what cannot be measured on this machine."""
    program("stub.c")  # without it, nothing can be
    for source, what in (("limit_sql.c", "C, the same work"), ("peer.go", "Go")):
        try:
            program(source)
        except Missing as error:
            print(f"left out: {what}; {error}", flush=True)


def run(scenario: Scenario, selection: Selection) -> Results:
    """All cases of a scenario, round by round: first, second, … case, then all again."""
    cases = list(scenario.cases(selection))
    wanted = {id(case): min(case.rounds, selection.rounds or case.rounds) for case in cases}
    runs: list[dict[str, object]] = []
    total = sum(wanted.values())
    for number in range(max(wanted.values(), default=0)):
        for case in cases:
            if number >= wanted[id(case)]:
                continue
            outcome = attempt(case)
            runs.append({"key": case.key, "round": number, **outcome})
            tell(scenario.name, f"{len(runs)}/{total}", case, outcome)
    return Results(scenario.name, machine(), runs)


def attempt(case: Case) -> dict[str, object]:
    """One run: its result, or why there is none."""
    try:
        return {"result": case.run()}
    except Failed as error:
        return {"failed": f"failed: {error}"}
    except Missing as error:
        return {"failed": f"left out: {error}"}


def tell(scenario: str, progress: str, case: Case, outcome: dict[str, object]) -> None:
    """A line while it runs."""
    result = outcome.get("result")
    said = outcome.get("failed") or ""
    if isinstance(result, dict):
        said = ", ".join(f"{name} {result[name]:,.2f}" for name in ("cpu_us", "events_per_second") if name in result)
    key = " ".join(f"{value}" for value in case.key.values())
    print(f"{time.strftime('%H:%M:%S')} {scenario} {progress} {key}: {said}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Missing as error:
        sys.exit(f"nothing can be measured here: {error}")
