"""The rows that all clients deliver: events of a shop, some 290 bytes each on a vendor's wire."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.build import FOLDER

__all__ = ["COLUMNS", "MAPPING", "chunks", "export", "postgres_statements", "query", "sqlite_file"]

COLUMNS = ("event_id", "email", "event", "happened_at", "page", "plan", "amount", "quantity", "first_order")
MAPPING = {
    "name_column": "event",
    "timestamp": "happened_at",
    "id": "event_id",
    "properties": ["page", "plan", "amount", "quantity", "first_order"],
}
CHUNK_SIZE = 1000

_SQLITE = """
insert into events
with recursive n(i) as (values (1) union all select i + 1 from n where i < {rows})
select i, printf('customer%06d@example.com', i * 7919 % 100003), 'order_completed',
       strftime('%Y-%m-%dT%H:%M:%S', 1772358600 + i, 'unixepoch') || printf('.%03dZ', i * 37 % 1000),
       printf('https://shop.example.com/orders/%d/thank-you', i), printf('annual plan %d', i % 12),
       (i * 31 % 100000) / 100.0, i % 9 + 1, i % 5 = 0
from n
"""
_POSTGRES = """
insert into events
select i, 'customer' || lpad((i * 7919 % 100003)::text, 6, '0') || '@example.com', 'order_completed',
       to_timestamp(1772358600 + i + (i * 37 % 1000) / 1000.0),
       'https://shop.example.com/orders/' || i || '/thank-you', 'annual plan ' || i % 12,
       (i * 31 % 100000) / 100.0::float8, i % 9 + 1, i % 5 = 0
from generate_series(1::bigint, {rows}) as i
"""


def sqlite_file(rows: int) -> Path:
    """A database of at least so many rows; made when it is not there yet."""
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("rows-*.sqlite"):
        if int(path.stem.partition("-")[2]) >= rows:
            return path
    path = FOLDER / f"rows-{rows}.sqlite"
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    connection = sqlite3.connect(unfinished)
    connection.execute("pragma journal_mode = off")
    connection.execute("pragma synchronous = off")
    types = ["integer primary key", "text", "text", "text", "text", "text", "real", "integer", "boolean"]
    columns = ", ".join(f"{column} {kind}" for column, kind in zip(COLUMNS, types, strict=True))
    connection.execute(f"create table events ({columns})")
    connection.execute(_SQLITE.format(rows=rows))
    connection.commit()
    connection.close()
    return unfinished.rename(path)


def postgres_statements(rows: int) -> list[str]:
    """What makes the same rows in PostgreSQL, with its own types of times and truth."""
    types = ["bigint primary key", "text", "text", "timestamptz", "text", "text", "float8", "bigint", "boolean"]
    columns = ", ".join(f"{column} {kind}" for column, kind in zip(COLUMNS, types, strict=True))
    return [f"create table events ({columns})", _POSTGRES.format(rows=rows), "analyze events"]


def query(rows: int, bad_percent: int = 0) -> str:
    """The first so many rows; that percentage of them without an identity, spread evenly."""
    email = f"case when event_id % 100 < {bad_percent} then '' else email end as email"
    columns = ", ".join(email if column == "email" else column for column in COLUMNS)
    return f"select {columns} from events where event_id <= {rows}"


def chunks(path: str, rows: int) -> Iterator[list[Any]]:
    """The rows as plain `sqlite3` reads them, a thousand at a time."""
    connection = sqlite3.connect(path)
    try:
        cursor = connection.execute(query(rows))
        while chunk := cursor.fetchmany(CHUNK_SIZE):
            yield chunk
    finally:
        connection.close()


def export(path: Path, rows: int) -> Path:
    """The rows as a text file, their columns separated by tabs: for clients that read no SQL."""
    text = FOLDER / f"rows-{rows}.tsv"
    if not text.exists():
        unfinished = text.with_suffix(".new")
        with unfinished.open("w") as file:
            for chunk in chunks(str(path), rows):
                file.writelines("\t".join(map(str, row)) + "\n" for row in chunk)
        unfinished.rename(text)
    return text
