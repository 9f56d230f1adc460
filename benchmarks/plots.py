"""Plots from raw results, as SVG that comes out the same for the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, NullLocator

from benchmarks.measure import COMPILED
from benchmarks.results import Results, number
from benchmarks.tables import LABELS, VENDORS, cost, share_of_ideal

__all__ = ["PLOTS", "draw"]

# Okabe and Ito: told apart with any kind of colour vision; marks and line styles differ as well.
BLUE, ORANGE, GREEN, RED, GREY, PALE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#7F7F7F", "#BBBBBB"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "benchmarks",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
    "legend.frameon": False,
}


def plain(client: str) -> str:
    """A client's label without Markdown."""
    return LABELS[client].replace("`", "").replace("*", "")


def cpu(results: Results) -> Any:
    """CPU per event: ours against the limits and the peers."""
    vendors = [vendor for vendor in VENDORS if any(key["vendor"] == vendor for key in results.keys)]
    height = 0.8 + 0.24 * len({key["client"] for key in results.keys})
    figure, grid = pyplot.subplots(
        (len(vendors) + 1) // 2, min(len(vendors), 2), figsize=(10, height * ((len(vendors) + 1) // 2)), squeeze=False
    )
    for axes in grid.flat[len(vendors) :]:
        axes.remove()
    for axes, vendor in zip(grid.flat, vendors, strict=False):
        keys = [key for key in results.keys if key["vendor"] == vendor and results.figure(key, "cpu_us")]
        keys.sort(key=lambda key: cost(results, key), reverse=True)
        values = [cost(results, key) for key in keys]
        colours = [BLUE if key["client"] == "ours" else GREY if key["client"] in COMPILED else PALE
                   for key in keys]  # fmt: skip
        places = range(len(keys))
        axes.barh(places, values, color=colours, height=0.7)
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 2, max(values) * 5)
        axes.set_yticks(places, [plain(key["client"]) for key in keys])
        axes.tick_params(axis="y", length=0)
        for place, value, key in zip(places, values, keys, strict=True):
            weight = "bold" if key["client"] == "ours" else "normal"
            axes.text(value * 1.12, place, number(value), va="center", fontsize=8, fontweight=weight)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        batch = "one event per request" if keys[0]["in_flight"] == 64 else f"{BATCHES[vendor]} events per request"
        axes.set_title(f"{VENDORS[vendor]}, {batch}")
        axes.set_xlabel("CPU per event, µs (log scale)")
    figure.tight_layout()
    return figure


BATCHES = {"webengage": 25, "bloomreach": 50}
LINES = {
    ("bloomreach", "sqlite"): ("Bloomreach, SQLite", BLUE, "o", "-"),
    ("webengage", "sqlite"): ("WebEngage, SQLite", ORANGE, "s", "--"),
    ("bloomreach", "postgres"): ("Bloomreach, PostgreSQL", GREEN, "^", "-."),
}


def scaling(results: Results) -> Any:
    """Cost and memory by the number of rows."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6))
    for (vendor, database), (label, colour, marker, style) in LINES.items():
        keys = [
            key
            for key in results.keys
            if (key["vendor"], key["database"], key["reading"]) == (vendor, database, "cursor")
            and results.figure(key, "cpu_us")
        ]
        for axes, value in ((left, "cpu_us"), (right, "peak_mib")):
            figures = [(key["rows"], results.figure(key, value)) for key in keys]
            points = [(rows, found.median) for rows, found in figures if found]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, marker=marker, linestyle=style, label=label)
    for axes, title in ((left, "CPU per event, µs"), (right, "Peak memory above import, MiB")):
        axes.set_xscale("log")
        axes.set_ylim(bottom=0, top=axes.get_ylim()[1] * 1.25)
        axes.set_title(title)
        axes.set_xlabel("rows delivered")
        axes.xaxis.set_major_formatter(FuncFormatter(rows_text))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(axis="y", color="#E5E5E5")
        axes.set_axisbelow(True)
    left.legend(loc="lower left")
    figure.tight_layout()
    return figure


def rows_text(value: float, position: int | None = None) -> str:
    """10 k, 5 M."""
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"


def latency(results: Results) -> Any:
    """How near each client comes to the ideal pace."""
    figure, axes = pyplot.subplots(figsize=(7, 3.6))
    styles = {"ours": (BLUE, "o", "-"), "aiohttp": (ORANGE, "s", "--"), "httpx-async": (RED, "^", "-.")}
    found = set()
    for client, (colour, marker, style) in styles.items():
        points = []
        for key in results.keys:
            if key["client"] == client and key["latency_ms"] == 50:
                figure_of = results.figure(key, share_of_ideal(key))
                points += [(key["in_flight"], figure_of.median)] if figure_of else []
        if points:
            found |= {in_flight for in_flight, _ in points}
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, linestyle=style, label=plain(client))
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(found), [str(in_flight) for in_flight in sorted(found)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, 105)
    axes.set_title("Share of the ideal pace at 50 ms per answer, %")
    axes.set_xlabel("requests in flight")
    axes.grid(axis="y", color="#E5E5E5")
    axes.set_axisbelow(True)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    return figure


PLOTS: dict[str, Callable[[Results], Any]] = {"cpu": cpu, "scaling": scaling, "latency": latency}


def draw(results: Results, folder: Path, form: str = "svg") -> Path | None:
    """The scenario's plot, if it has one."""
    if results.scenario not in PLOTS:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"benchmark-{results.scenario}.{form}"
    with matplotlib.rc_context(STYLE):
        figure = PLOTS[results.scenario](results)
        figure.savefig(path, metadata={"Date": None} if form == "svg" else None, dpi=110)
        pyplot.close(figure)
    return path
