"""PostgreSQL for the rows: one server per run of the command, on the stub's core, gone with it."""

from __future__ import annotations

import atexit
import os
from contextlib import ExitStack, closing
from functools import cache

from benchmarks.build import Missing
from benchmarks.measure import STUB_CORE
from benchmarks.rows import postgres_statements
from tests.servers import Server, ServerUnavailable, postgres_server

__all__ = ["postgres"]


@cache
def postgres(rows: int) -> str:
    """The JSON of an Airflow connection to so many rows.

    :raises Missing: there is no PostgreSQL here.
    """
    import psycopg2

    server = _server()
    where = f"host={server.host} port={server.port} user={server.user} dbname={server.database}"
    with closing(psycopg2.connect(where)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("drop table if exists events")
        for statement in postgres_statements(rows):
            cursor.execute(statement)
    return server.airflow_connection()


@cache
def _server() -> Server:
    running = ExitStack()
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {STUB_CORE})  # the server inherits it
    try:
        server = running.enter_context(postgres_server())
    except ServerUnavailable as error:
        raise Missing(str(error)) from None
    finally:
        os.sched_setaffinity(0, allowed)
    atexit.register(running.close)
    return server
