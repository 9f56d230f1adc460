"""What a driver's error becomes: whether a retry helps, and why in words that hold no parameter and no row."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Literal

from airflow_provider_events.exceptions import QueryError, SourceError
from airflow_provider_events.shown import TEXT_LENGTH, shown

__all__ = ["connecting_failed", "reading_failed"]

# Classes of SQLSTATE that speak of the statement, of the values that it makes, and of what passes by itself.
STATEMENT_CLASSES = ("0A", "26", "2F", "3D", "3F", "42", "54")
VALUE_CLASSES = ("20", "21", "22", "23", "44")
PASSING_CLASSES = ("08", "25", "40", "53", "55", "57", "58", "70", "HY")

# MySQL's numbers. The first are quotas that others use up, under 42000 all the same; the others come without a class.
MYSQL_QUOTAS = {1203, 1226, 1461}
MYSQL_STATEMENTS = {1052, 1096, 1111, 1128, 1193, 1210, 1221, 1267, 1270, 1271, 1273, 1349, 1356, 4078, 4079}
MYSQL_VALUES = {1300, 1366, 1411, 1525, 3140, 3141, 3143, 3144, 3146, 3147, 3156, 3157, 3158}
MYSQL_SIGNAL = 1644  # a text of the database's own programs

# A change in a transaction, or on a connection, that only reads.
READ_ONLY = {"25006", 1792, "SQLITE_READONLY"}

SQLITE_STATEMENTS = {"SQLITE_ERROR", "SQLITE_RANGE", "SQLITE_AUTH"}
SQLITE_VALUES = {"SQLITE_MISMATCH", "SQLITE_TOOBIG"}

VALUE_WORDS: dict[str | int | None, str] = {
    "21000": "a subquery with more than one row",
    "22003": "a number out of range",
    "22007": "a text that is no date or time",
    "22008": "a date or time out of range",
    "22012": "a division by zero",
    "22021": "bytes that are no text",
    "22032": "a text that is no JSON",
    "22P02": "a text that is not of the type it is cast to",
    "22P05": "a character that the client's encoding lacks",
    1411: "a text that is no date or time",
    1525: "a text that is no date or time",
}
CASTS = {
    "psycopg": "CAST(… AS text), or NULLIF(…, 'infinity')",
    "psycopg2": "CAST(… AS text), or NULLIF(…, 'infinity')",
    "MySQLdb": "CAST(… AS CHAR)",
    "mysql": "CAST(… AS CHAR)",
    "sqlite3": "CAST(… AS BLOB)",
}

_QUOTE = re.compile(r"['\"`]")
_APOSTROPHE = re.compile(r"n't\b")
_SQLITE_TEXT = re.compile(r"Could not decode to UTF-8 column '(?P<column>.*?)' with text '", re.DOTALL)
_SQLSTATE = re.compile(r"[0-9A-Z]{5}").fullmatch


def connecting_failed(error: Exception) -> SourceError | None:
    """The error for one that came from the database or the network; None for any other."""
    if isinstance(error, OSError) or {"Error", "SQLAlchemyError"} & _bases(error):
        return SourceError(f"No connection to the database: {_name(error)}: {_first_line(error)}")
    return None


def reading_failed(
    error: Exception, connection: Any, sql: str = "", *, doing: Literal["executing", "fetching"]
) -> SourceError:
    """The error for one that the driver raised.

    The driver is quoted with what stands in the statement itself, for drivers put parameters and values of rows into
    their messages, too.

    :param connection: where it happened; some drivers keep the SQLSTATE there.
    :param sql: the statement, without its parameters.
    """
    cause = getattr(error, "orig", None) or error
    code = _code(cause)
    state = _sqlstate(cause, code, connection)
    message = f"The database could not be read: {_name(cause)}" + (f" ({code})" if code else "")
    broken_text = _SQLITE_TEXT.match(str(cause))
    if broken_text or _is_conversion(cause, state, code, doing):
        column = f" in column {shown(broken_text['column'])!r}" if broken_text else ""
        cast = CASTS.get(type(connection).__module__.partition(".")[0], "to text")
        return QueryError(
            f"{message}: a value{column} that Python cannot hold, as a time that is infinite or outside of the years 1 "
            f"to 9999, or a text that is not UTF-8; cast the column in SQL ({cast}), or leave such rows out"
        )
    if code in READ_ONLY:
        return QueryError(f"{message}: the SQL changes tables; a source needs one SELECT", in_rows=False)
    if _is_about_values(state, code):
        words = VALUE_WORDS.get(state) or VALUE_WORDS.get(code) or "a value that the database refuses"
        return QueryError(f"{message}: {words}, made by the query of a row; mend it there, or leave such rows out")
    words = _quoted(cause, sql)
    if _is_about_statement(cause, state, code, doing):
        return QueryError(f"{message}: {words}", in_rows=False)
    passing = state.startswith(PASSING_CLASSES) if state else {"OperationalError", "InterfaceError"} & _bases(cause)
    return SourceError(f"{message}: {words}" if passing and code != MYSQL_SIGNAL else message)


def _is_conversion(error: Exception, state: str | None, code: str | int | None, doing: str) -> bool:
    """Whether the driver could not make a Python value of what the database sent."""
    if state or code:
        return False
    if doing == "executing":  # mysqlclient fetches there, too
        return isinstance(error, UnicodeDecodeError)
    return isinstance(error, ValueError | ArithmeticError | TypeError | LookupError) or "DataError" in _bases(error)


def _is_about_values(state: str | None, code: str | int | None) -> bool:
    if code == 1052:  # an ambiguous column, which MySQL files under the violated constraints
        return False
    return bool(state and state.startswith(VALUE_CLASSES)) or code in MYSQL_VALUES or code in SQLITE_VALUES


def _is_about_statement(error: Exception, state: str | None, code: str | int | None, doing: str) -> bool:
    """Whether the fault is in the statement, or in how the parameters fit it."""
    if code in MYSQL_QUOTAS:
        return False
    if code in MYSQL_STATEMENTS or code in SQLITE_STATEMENTS:
        return True
    if state:
        return state.startswith(STATEMENT_CLASSES) and "cached plan" not in str(error)  # a table changed meanwhile
    if code is not None:
        return False
    if {"ProgrammingError", "NotSupportedError", "DataError"} & _bases(error):
        return True
    return doing == "executing" and isinstance(error, ValueError | ArithmeticError | TypeError | LookupError)


def _code(error: Exception) -> str | int | None:
    """What names the kind of error most exactly: a SQLSTATE, a number of MySQL's, a name of SQLite's."""
    first = error.args[0] if error.args else None
    if isinstance(first, int):
        return first if first > 0 else None
    for attribute in ("pgcode", "sqlstate", "sqlite_errorname"):
        if value := getattr(error, attribute, None):
            return str(value)
    return first if isinstance(first, str) and len(error.args) > 1 and _SQLSTATE(first) else None


def _sqlstate(error: Exception, code: str | int | None, connection: Any) -> str | None:
    """The SQLSTATE, where it says anything."""
    state: Any = getattr(error, "sqlstate", None) or code
    if isinstance(code, int) and not isinstance(state, str):
        with suppress(Exception):  # mysqlclient keeps that of the last error at the connection
            state = connection.sqlstate()
    return state if isinstance(state, str) and _SQLSTATE(state) and state not in ("00000", "HY000") else None


def _quoted(error: Exception, sql: str) -> str:
    """The first line of a driver's message; what it quotes stands in the statement, or is left out."""
    line = _APOSTROPHE.sub(" not", _first_line(error).replace("can't", "cannot"))
    before, *pieces = _QUOTE.split(line)
    known = sql.casefold()
    if all(_is_in(quoted.casefold(), known) for quoted in pieces[::2]) and len(pieces) % 2 == 0:
        return shown(line, TEXT_LENGTH)
    return shown(f"{before}'…'{pieces[-1] if len(pieces) % 2 == 0 else ''}", TEXT_LENGTH)


def _is_in(quoted: str, sql: str) -> bool:
    """Whether the statement holds it; databases put their schema before a name."""
    return quoted in sql or (quoted.isprintable() and quoted.rpartition(".")[2] in sql)


def _name(error: Exception) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _bases(error: Exception) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def _first_line(error: Exception) -> str:
    """The driver's own words; MySQL's come behind a number."""
    words = getattr(error, "msg", None)
    if not isinstance(words, str):
        words = str(error.args[1] if len(error.args) > 1 and isinstance(error.args[0], int) else error)
    return words.partition("\n")[0]
