"""Reading changes nothing: sessions that refuse to, and a look at the statement where a database has none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

from airflow_provider_events.exceptions import QueryError

__all__ = ["mysql_session", "plain_session", "postgres_session", "refuse_changes", "sqlite_session"]

READING = {"SELECT", "WITH", "VALUES", "TABLE", "FROM", "SHOW", "DESCRIBE", "DESC"}
CHANGING = {"INSERT", "UPDATE", "DELETE", "MERGE", "UPSERT", "REPLACE", "TRUNCATE", "CREATE", "ALTER", "DROP"}
OBJECTS = {"FROM", "TABLE", "VIEW", "INDEX", "SCHEMA", "DATABASE"}


def postgres_session(connection: Any, driver: str) -> bool:
    """Transactions that read only, all their statements from one moment.

    :param driver: `psycopg` or `psycopg2`.
    """
    connection.commit()  # what the hook itself has set stays
    connection.autocommit = False
    if driver == "psycopg":
        connection.isolation_level = import_module("psycopg").IsolationLevel.REPEATABLE_READ
        connection.read_only = True
    else:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
    return True


def mysql_session(connection: Any) -> bool:
    """The same, where the server can."""
    cursor = connection.cursor()
    try:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    except Exception:  # as servers that only speak MySQL's protocol
        return False
    finally:
        with suppress(Exception):
            cursor.close()
    return True


def sqlite_session(connection: Any) -> bool:
    """A connection that refuses changes."""
    connection.execute("PRAGMA query_only = ON")
    return True


def plain_session(connection: Any) -> bool:
    """Whatever the driver opens: not known to refuse changes."""
    return False


def refuse_changes(sql: str) -> None:
    """Make sure that a statement only reads, where the database does not.

    :raises QueryError: it does not begin as one that reads, or holds another one that changes tables.
    """
    words = list(_words(sql))
    first = next((word for word in words if word != "("), "")
    if first not in READING or any(_changes(*words[max(at - 1, 0) : at + 2]) for at in range(1, len(words))):
        raise QueryError(
            "The SQL is not one that only reads, and this database cannot be kept from changing its tables by it: a "
            "source needs one SELECT.",
            in_rows=False,
        )


def _changes(before: str, word: str, behind: str = "") -> bool:
    """Whether a word is a verb that changes tables: where a statement begins, or with what it is done to."""
    if word == "INTO":
        return True
    return word in CHANGING and (behind in OBJECTS or (before in ("(", ")", ";") and behind not in (")", ",", "(")))


def _words(sql: str) -> Iterator[str]:
    """The words and signs of a statement, in capitals; names as `?`."""
    from sqlparse import tokens
    from sqlparse.lexer import tokenize

    for token, text in tokenize(sql):
        if token in tokens.Whitespace or token in tokens.Comment:
            continue
        yield text.upper() if token in tokens.Keyword or token in tokens.Punctuation else "?"
