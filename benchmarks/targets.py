"""What was aimed at, and what was measured, in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from benchmarks.results import Figure, Results, number
from benchmarks.tables import SHOWN_MODULES, VENDORS, find, share_of_ideal, share_of_quota, table
from benchmarks.wires import WIRES

__all__ = ["targets"]

BATCHES = [vendor for vendor, wire in WIRES.items() if not wire.single]
SINGLES = [vendor for vendor, wire in WIRES.items() if wire.single]
PYTHON_PEERS = ("aiohttp", "aiohttp-uvloop", "httpx", "httpx-async", "requests", "segment", "dlt")

# What was measured, in words, and whether that is enough.
Verdict = tuple[str, bool]


def targets(all_results: Mapping[str, Results]) -> list[str]:
    """The table; a line whose scenario has no results is left out."""
    rows = []
    for scenario, target, measured in TARGETS:
        results = all_results.get(scenario)
        said = measured(results) if results else None
        if said:
            rows.append([target, said[0], "yes" if said[1] else "**no**"])
    lines = table(["target", "measured", "met"], rows)
    return [lines[0], "| --- | --- | --- |", *lines[2:]]


def by_vendor(figures: Mapping[str, Figure | None], unit: str, good: Callable[[float], bool]) -> Verdict | None:
    """One number per vendor; all of them have to be good."""
    known = {vendor: figure.median for vendor, figure in figures.items() if figure}
    if not known:
        return None
    said = ", ".join(f"{VENDORS[vendor]} {number(value)}{unit}" for vendor, value in known.items())
    return said, len(known) == len(figures) and all(map(good, known.values()))


def at_most(limit: float, unit: str, value: str, vendors: Sequence[str]) -> Callable[[Results], Verdict | None]:
    """A value of our client."""

    def measured(results: Results) -> Verdict | None:
        keys = {vendor: find(results, vendor=vendor, client="ours") for vendor in vendors}
        figures = {vendor: results.figure(key, value) if key else None for vendor, key in keys.items()}
        return by_vendor(figures, f" {unit}", lambda figure: figure <= limit)

    return measured


def ratios(results: Results, vendors: Sequence[str], ours: str, theirs: str) -> dict[str, Figure | None]:
    """Cost of one client over that of another."""
    found: dict[str, Figure | None] = {}
    for vendor in vendors:
        one, other = find(results, vendor=vendor, client=ours), find(results, vendor=vendor, client=theirs)
        found[vendor] = results.ratio(one, other, "cpu_us") if one and other else None
    return found


def to_limit(vendors: Sequence[str], client: str, most: float) -> Callable[[Results], Verdict | None]:
    """Ours may cost so many times as much."""
    return lambda results: by_vendor(ratios(results, vendors, "ours", client), "x", lambda value: value <= most)


def best_peer(results: Results) -> Verdict | None:
    """The cheapest Python peer of each vendor over ours."""
    best: dict[str, Figure | None] = {}
    for vendor in BATCHES:
        found = [ratios(results, [vendor], peer, "ours")[vendor] for peer in PYTHON_PEERS]
        best[vendor] = min((figure for figure in found if figure), key=lambda figure: figure.median, default=None)
    return by_vendor(best, "x", lambda value: value >= 8)


def httpx_loop(results: Results) -> Verdict | None:
    """The loop that people write, over ours."""
    return by_vendor(ratios(results, SINGLES, "httpx", "ours"), "x", lambda value: value >= 20)


def medians(results: Results, value: str) -> dict[str, list[tuple[int, float]]]:
    """A value by rows, for each way of reading that was measured with several numbers of rows."""
    series: dict[str, list[tuple[int, float]]] = {}
    for key in results.keys:
        figure = results.figure(key, value)
        if figure and key["reading"] == "cursor":
            name = f"{VENDORS[key['vendor']]} from {'SQLite' if key['database'] == 'sqlite' else 'PostgreSQL'}"
            series.setdefault(name, []).append((key["rows"], figure.median))
    return series


def constant(value: str) -> Callable[[Results], Verdict | None]:
    """Most rows against fewest."""

    def measured(results: Results) -> Verdict | None:
        changes = {}
        for name, points in medians(results, value).items():
            if len(points) > 1:
                changes[name] = max(points)[1] / min(points)[1] * 100 - 100
        said = ", ".join(f"{name} {change:+.0f} %" for name, change in changes.items())
        return (said, all(abs(change) <= 10 for change in changes.values())) if changes else None

    return measured


def quota(results: Results) -> Verdict | None:
    """The share of it that was used, and never more."""
    shares: list[float] = []
    for key in results.keys:
        figure = results.figure(key, partial(share_of_quota, key))
        shares += [figure.low, figure.high] if figure else []
    return (f"{min(shares):.1f} %", min(shares) >= 98 and max(shares) <= 100) if shares else None


def latency(results: Results) -> Verdict | None:
    """The share of the ideal pace."""
    key = find(results, client="ours", latency_ms=50, in_flight=64)
    figure = results.figure(key, share_of_ideal(key)) if key else None
    return (f"{figure.median:.1f} %", figure.median >= 95) if figure else None


def parsing(results: Results) -> Verdict | None:
    """The slowest public module."""
    figures = {key["module"].partition(".")[2]: results.figure(key, "ms") for key in results.keys}
    known = {name: figure.median for name, figure in figures.items() if figure and name in SHOWN_MODULES}
    if not known:
        return None
    worst = max(known, key=lambda name: known[name])
    info = known.get("get_provider_info", 0.0)
    return f"at most {number(known[worst])} ms (`{worst}`); provider info {number(info)} ms", known[worst] <= 50


TARGETS: Iterable[tuple[str, str, Callable[[Results], Verdict | None]]] = (
    ("cpu", "many events per request: at most 6 µs CPU per event", at_most(6, "µs", "cpu_us", BATCHES)),
    ("cpu", "… at most 3.5x what C needs for the same work", to_limit(BATCHES, "c-sql", 3.5)),
    ("cpu", "… the best Python peer costs at least 8x", best_peer),
    ("cpu", "one event per request: at most 40 µs CPU per event", at_most(40, "µs", "cpu_us", SINGLES)),
    ("cpu", "… no more than Go's `net/http`", to_limit(SINGLES, "go", 1)),
    ("cpu", "… an `httpx.Client` loop costs at least 20x", httpx_loop),
    ("cpu", "peak memory at most 60 MiB above importing the package", at_most(60, "MiB", "peak_mib", list(WIRES))),
    ("scaling", "… the same (±10 %) for few rows and for many", constant("peak_mib")),
    ("scaling", "CPU per event the same (±10 %) for few rows and for many", constant("cpu_us")),
    ("quota", "at least 98 % of a quota used, never more than it", quota),
    ("latency", "50 ms per answer, 64 in flight: at least 95 % of `in flight / latency`", latency),
    ("imports", "importing a public module adds at most 50 ms to Airflow's SDK", parsing),
)
