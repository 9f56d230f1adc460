"""Markdown tables from raw results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.results import Figure, Results, number
from benchmarks.sources import SOURCES
from benchmarks.wires import WIRES

__all__ = ["LABELS", "TABLES", "facts"]

NONE = "\N{EN DASH}"
LABELS = {
    "ours": "**this package**",
    "c": "C, prepared bytes",
    "c-sql": "C, the same work",
    "go": "Go `net/http`",
    "aiohttp": "aiohttp",
    "aiohttp-uvloop": "aiohttp on uvloop",
    "httpx": "`httpx.Client` loop",
    "httpx-async": "`httpx.AsyncClient`",
    "requests": "`requests` loop",
    "http-hook": "`HttpHook.run` loop",
    "segment": "Segment SDK",
    "dlt": "dlt custom destination",
}
VENDORS = {
    "embeddables": "Embeddables",
    "vibetrace": "Vibetrace",
    "webengage": "WebEngage",
    "bloomreach": "Bloomreach",
}


def shown(figure: Figure | None, spread: bool = True, unit: str = "") -> str:
    """A figure's cell."""
    return NONE if figure is None else figure.text(spread) + unit


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of Markdown; the first column is text, the others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def find(results: Results, **wanted: Any) -> dict[str, Any] | None:
    """The first case with these values."""
    return next((key for key in results.keys if wanted.items() <= key.items()), None)


CPU_HEAD = ("client", "CPU µs/event", "events/s", "CPU : C", "CPU : ours", "peak MiB", "bytes/event", "connections",
    "rows")  # fmt: skip


def cpu(results: Results) -> list[str]:
    """One table per vendor, the cheapest client first."""
    lines: list[str] = []
    for vendor, label in VENDORS.items():
        keys = [key for key in results.keys if key["vendor"] == vendor]
        if not keys:
            continue
        limit, own = find(results, vendor=vendor, client="c"), find(results, vendor=vendor, client="ours")
        rows = []
        for key in sorted(keys, key=lambda key: cost(results, key)):
            name, failure = LABELS[key["client"]], results.failure(key)
            if failure:
                rows.append([name, failure, *[NONE] * 7])
                continue
            peak = results.figure(key, lambda result: result.get("peak_mib", 0.0))
            rows.append(
                [
                    name,
                    shown(results.figure(key, "cpu_us")),
                    shown(results.figure(key, "events_per_second"), spread=False),
                    shown(results.ratio(key, limit, "cpu_us"), spread=False, unit="x"),
                    shown(results.ratio(key, own, "cpu_us"), spread=False, unit="x"),
                    shown(peak, spread=False) if peak and peak.median else NONE,
                    shown(results.figure(key, body_bytes), spread=False),
                    str(max(result["stub"]["connections_max"] for result in results.of(key).values())),
                    f"{key['rows']:,}",
                ]
            )
        wire = WIRES[vendor]
        many = f"{wire.batch} events per request" if wire.batch > 1 else "one event per request"
        lines += [f"**{label}**: {many}, {keys[0]['in_flight']} requests in flight", ""]
        lines += [*table(CPU_HEAD, rows), ""]
    return lines


def body_bytes(result: Mapping[str, Any]) -> float:
    """What travelled for each event, without HTTP's heads: shows that all clients say the same."""
    stats = result["stub"]
    return float(stats["body_bytes"] / stats["events"])


def cost(results: Results, key: Mapping[str, Any]) -> float:
    """For sorting; what failed comes last."""
    figure = results.figure(key, "cpu_us")
    return figure.median if figure else float("inf")


def line(results: Results, key: Mapping[str, Any], names: Sequence[str], cells: Sequence[str]) -> list[str]:
    """A row of a table, or why there is none."""
    failure = results.failure(key)
    return [*names, failure, *[NONE] * (len(cells) - 1)] if failure else [*names, *cells]


def stubs(results: Results) -> list[str]:
    """What each stub can answer, and what an answer costs it."""
    rows = []
    for key in results.keys:
        speed = results.figure(key, lambda result: result["requests"] / result["seconds"])
        busy = results.figure(key, lambda result: result["stub"]["cpu_seconds"] / result["requests"] * 1e6)
        cells = [shown(speed), shown(busy)]
        rows.append(line(results, key, [f"{key['stub']}, {VENDORS[key['vendor']]}"], cells))
    return table(["stub", "requests/s", "CPU µs/request of the stub"], rows)


def floor(results: Results) -> list[str]:
    """Without a network."""
    rows = []
    for key in results.keys:
        cells = [shown(results.figure(key, value)) for value in ("cpu_us", "events_per_second")]
        rows.append(line(results, key, [VENDORS[key["vendor"]]], cells))
    return table(["vendor", "CPU µs/event", "events/s"], rows)


def instructions(results: Results) -> list[str]:
    """Counts of one run."""
    rows = []
    for key in results.keys:
        figures = [results.figure(key, name) for name in ("row", "request", "http", "row_blocks")]
        rows.append(line(results, key, [VENDORS[key["vendor"]]], [shown(figure, spread=False) for figure in figures]))
    return table(["vendor", "a row", "a request", "HTTP client, a request", "memory blocks of a row"], rows)


def sources(results: Results) -> list[str]:
    """By what is read, without a network."""
    query = find(results, source="sql")
    rows = []
    for key in results.keys:
        cells = [
            shown(results.figure(key, "cpu_us")),
            shown(results.ratio(key, query, "cpu_us"), spread=False, unit="x"),
            f"{key['rows']:,}",
        ]
        rows.append(line(results, key, [SOURCES[key["source"]]], cells))
    return table(["source", "CPU µs/event", "to a query", "rows"], rows)


def scaling(results: Results) -> list[str]:
    """Cost and memory by number of rows."""
    rows = []
    for key in results.keys:
        cells = [
            shown(results.figure(key, "cpu_us")),
            shown(results.figure(key, "events_per_second"), spread=False),
            shown(results.figure(key, "peak_mib")),
            str(len(results.of(key))),
        ]
        database = {"sqlite": "SQLite", "postgres": "PostgreSQL"}[key["database"]]
        reading = "by `key_column`" if key["reading"] == "key_column" else "server-side cursor"
        reading = "cursor" if reading == "server-side cursor" and key["database"] == "sqlite" else reading
        name = f"{VENDORS[key['vendor']]}, {database}, {reading}"
        rows.append(line(results, key, [name, f"{key['rows']:,}"], cells))
    return table(["delivery", "rows", "CPU µs/event", "events/s", "peak MiB", "runs"], rows)


def share_of_ideal(key: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], float]:
    """How near a run came to `in flight / latency`, in percent."""
    ideal = key["in_flight"] / key["latency_ms"] * 1000
    return lambda result: float(result["events_per_second"]) / ideal * 100


def latency(results: Results) -> list[str]:
    """Pace by latency and requests in flight."""
    rows = []
    for key in results.keys:
        ideal = f"{key['in_flight'] / key['latency_ms'] * 1000:,.0f}" if key["latency_ms"] else NONE
        share = shown(results.figure(key, share_of_ideal(key)), unit=" %") if key["latency_ms"] else NONE
        cells = [
            ideal,
            shown(results.figure(key, "events_per_second"), spread=False),
            share,
            shown(results.figure(key, "cpu_us"), spread=False),
            f"{key['rows']:,}",
        ]
        names = [f"{key['latency_ms']} ms", str(key["in_flight"]), LABELS[key["client"]]]
        rows.append(line(results, key, names, cells))
    head = ["latency", "in flight", "client", "ideal/s", "events/s", "of ideal", "CPU µs/event", "rows"]
    return table(head, rows)


def bad_rows(results: Results) -> list[str]:
    """With and without rows to reject."""
    rows = []
    for key in results.keys:
        without = find(results, vendor=key["vendor"], bad_percent=0)
        counted = next(iter(results.of(key).values()), {})
        delivered = counted.get("delivered", 0)
        cells = [
            shown(results.figure(key, "cpu_us")),
            shown(results.ratio(key, without, "cpu_us"), spread=False, unit="x"),
            f"{key['rows']:,} = {delivered:,} + {counted.get('rejected_lines', 0):,}",
        ]
        rows.append(line(results, key, [VENDORS[key["vendor"]], f"{key['bad_percent']} %"], cells))
    return table(["vendor", "bad rows", "CPU µs/event", "to 0 %", "rows = delivered + rejected file"], rows)


def quota(results: Results) -> list[str]:
    """How much of a quota is used."""
    rows = []
    for key in results.keys:
        share = results.figure(key, partial(share_of_quota, key))
        cells = [
            shown(results.figure(key, pace), spread=False),
            shown(share, unit=" %"),
            shown(results.figure(key, "cpu_us"), spread=False),
            f"{key['rows']:,}",
        ]
        rows.append(line(results, key, [VENDORS[key["vendor"]], f"{key['requests_per_minute']:,}"], cells))
    return table(["vendor", "quota per minute", "requests per minute", "used", "CPU µs/event", "rows"], rows)


def share_of_quota(key: Mapping[str, Any], result: Mapping[str, Any]) -> float:
    """In percent."""
    return pace(result) / float(key["requests_per_minute"]) * 100


def pace(result: Mapping[str, Any]) -> float:
    """Requests per minute as the vendor sees them, between the first and the last."""
    stats = result["stub"]
    return float((stats["requests"] - 1) / (stats["last_ns"] - stats["first_ns"]) * 60e9)


SHOWN_MODULES = ("operators.events", "operators.entries", "transfers.sql_to_events", "transfers.sql_to_entries",
    "sensors.entry", "triggers.entry", "hooks.base", "hooks.embeddables", "hooks.vibetrace", "hooks.webengage",
    "hooks.bloomreach", "events", "exceptions", "get_provider_info")  # fmt: skip


def imports(results: Results) -> list[str]:
    """The modules that DAG files name, and the worst of the others."""
    figures = {key["module"]: (results.figure(key, "ms"), results.figure(key, "modules")) for key in results.keys}
    rows = []
    for name, (milliseconds, added) in figures.items():
        if name.partition(".")[2] in SHOWN_MODULES:
            rows.append([f"`{name.partition('.')[2]}`", shown(milliseconds), f"{added.median:.0f}" if added else NONE])
    rows.sort(key=lambda row: SHOWN_MODULES.index(row[0].strip("`")))
    others = {
        name: ms.median for name, (ms, _) in figures.items() if ms and name.partition(".")[2] not in SHOWN_MODULES
    }
    worst = max(others, key=lambda name: others[name], default="")
    said = f"The slowest of the {len(others)} others is `{worst}` with {number(others[worst])} ms." if others else ""
    return [*table(["module", "ms", "modules added"], rows), "", said]


def profile(results: Results) -> list[str]:
    """Functions by their own time."""
    lines: list[str] = []
    for key in results.keys:
        result = next(iter(results.of(key).values()), None)
        lines += [f"**{VENDORS[key['vendor']]}**", ""]
        if result is None:
            lines += [results.failure(key), ""]
            continue
        rows = []
        for name, samples in result["functions"][:12]:
            function, _, path = name.rpartition(" (")
            rows.append([f"`{function}`", f"`{path.rstrip(')')}`", f"{samples / result['samples'] * 100:.1f} %"])
        rest = 100 - sum(samples for _, samples in result["functions"][:12]) / result["samples"] * 100
        rows.append(["all others", "", f"{rest:.1f} %"])
        head = ["function", "in", "own time"]
        lines += [f"| {' | '.join(row)} |" for row in [head, ["---", "---", "---:"], *rows]]
        lines += ["", f"{result['samples']:,} samples of a delivery of {key['rows']:,} rows.", ""]
    return lines


def facts(results: Results) -> list[str]:
    """Machine and versions, in a line."""
    machine = results.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    return [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}; "
        f"Python {machine['python']}, SQLite {machine['sqlite']}, gcc {machine['gcc'] or 'none'}, "
        f"Go {machine['go'] or 'none'}; {packages}."
    ]


TABLES: dict[str, Callable[[Results], list[str]]] = {
    "stubs": stubs,
    "cpu": cpu,
    "floor": floor,
    "sources": sources,
    "instructions": instructions,
    "latency": latency,
    "bad_rows": bad_rows,
    "quota": quota,
    "imports": imports,
    "scaling": scaling,
    "profile": profile,
}
