"""PostgreSQL: cursors of psycopg and psycopg2 that give tuples, and the same values for the same column."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["postgres_cursor"]

# What one of the drivers makes an object of that no vendor takes, and what PostgreSQL's own text says as well:
# addresses, networks, records, ranges and multiranges.
AS_TEXT = (869, 650, 2249, 3904, 3906, 3908, 3910, 3912, 3926, 4451, 4532, 4533, 4534, 4535, 4536)
# Arrays that psycopg2 leaves as one text: of UUIDs, amounts of money, bits, XML, points and what stands above.
AS_LIST = (2951, 791, 1561, 1563, 143, 1017, 2287, 3905, 3907, 3909, 3911, 3913, 3927)


def postgres_cursor(connection: Any, driver: str, **options: str) -> Any:
    """A cursor that gives tuples, also where the connection's extra asks for dictionaries.

    :param driver: `psycopg` or `psycopg2`.
    :param options: of the cursor, as its `name`.
    """
    if driver == "psycopg":
        cursor = connection.cursor(row_factory=import_module("psycopg.rows").tuple_row, **options)
        loader = import_module("psycopg.types.string").TextLoader
        for oid in AS_TEXT:
            cursor.adapters.register_loader(oid, loader)
        return cursor
    extensions = import_module("psycopg2.extensions")
    cursor = connection.cursor(cursor_factory=extensions.cursor, **options)
    text = extensions.new_type(AS_TEXT, "TEXT", extensions.UNICODE)
    extensions.register_type(text, cursor)
    extensions.register_type(extensions.new_array_type(AS_LIST, "LIST", text), cursor)
    read_time = extensions.PYTIME

    def time_of_day(value: str | None, of: Any) -> Any:
        """Midnight at the end of a day is none at its beginning."""
        if value is not None and value.startswith("24:"):
            raise ValueError("24:00")
        return read_time(value, of)

    extensions.register_type(extensions.new_type(read_time.values, "TIME", time_of_day), cursor)
    return cursor
