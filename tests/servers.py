"""Real databases for the tests. A test module asks for them with `pytest_plugins = ["tests.servers"]`.

`postgres` and `mariadb` are servers of the session: in a temporary directory, on a free port of 127.0.0.1 and
on a Unix socket, gone when the session ends. `database` is an empty database behind an Airflow connection and
hook; a test that asks for it runs once for each of `DRIVERS`, or for those it names with `@databases(...)`.

A machine without a server's binaries or driver skips such tests; `EVENTS_REQUIRE_SERVERS=1` makes them fail
instead, so that a CI job cannot skip them unnoticed.

PYTEST_DONT_REWRITE: test modules import from here before pytest sees it as a plugin; it asserts nothing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

__all__ = [
    "DRIVERS",
    "Database",
    "Server",
    "database",
    "databases",
    "mariadb",
    "mariadb_server",
    "postgres",
    "postgres_server",
]

START_SECONDS = 60.0
USER = PASSWORD = DATABASE = "events"
CONN_ID = "warehouse"

# driver -> the module it is imported as
DRIVERS = {
    "sqlite": "sqlite3",
    "psycopg2": "psycopg2",
    "psycopg": "psycopg",
    "mysqlclient": "MySQLdb",
    "mysql-connector-python": "mysql.connector",
}


@dataclass(frozen=True, slots=True)
class Server:
    """Where a running server listens, and who may log in.

    :param conn_type: the Airflow connection type: `postgres` or `mysql`.
    :param socket: the Unix socket: a directory for PostgreSQL, a file for MariaDB.
    """

    conn_type: str
    port: int
    socket: Path
    host: str = "127.0.0.1"
    user: str = USER
    password: str = PASSWORD
    database: str = DATABASE

    def airflow_connection(self, **extra: Any) -> str:
        """The JSON for an `AIRFLOW_CONN_…` environment variable."""
        return json.dumps(
            {
                "conn_type": self.conn_type,
                "host": self.host,
                "port": self.port,
                "login": self.user,
                "password": self.password,
                "schema": self.database,
                "extra": extra,
            }
        )


@dataclass(frozen=True, slots=True)
class Database:
    """An empty database of one test.

    :param driver: one of `DRIVERS`.
    :param conn_id: the Airflow connection to it.
    :param hook: a hook on that connection.
    """

    driver: str
    conn_id: str
    hook: DbApiHook

    def run(self, *statements: str) -> None:
        """Execute and commit."""
        self.hook.run(list(statements), autocommit=True)

    def positional(self, sql: str) -> str:
        """`sql`, written with `%s`, in the style of the driver."""
        return sql.replace("%s", "?") if self.driver == "sqlite" else sql

    def named(self, sql: str, *names: str) -> str:
        """`sql`, written with `:name`, in the style of the driver."""
        if self.driver != "sqlite":
            for name in names:
                sql = sql.replace(f":{name}", f"%({name})s")
        return sql


class ServerUnavailable(Exception):
    """This machine cannot run the server; the message says why."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A running PostgreSQL with an empty database `events`."""
    yield from _for_session(postgres_server)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    """A running MariaDB with an empty database `events`."""
    yield from _for_session(mariadb_server)


def with_database(driver: str, *values: Any) -> Any:
    """A case of a test whose parameter `database` is indirect, and of what else it takes."""
    return pytest.param(driver, *values, marks=[] if driver == "sqlite" else [pytest.mark.slow])


def _cases(drivers: Iterable[str]) -> list[Any]:
    return list(map(with_database, drivers))


def databases(*drivers: str) -> pytest.MarkDecorator:
    """Run a test with these drivers only."""
    return pytest.mark.parametrize("database", _cases(drivers), indirect=True)


@pytest.fixture(params=_cases(DRIVERS))
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Database:
    """An empty database behind an Airflow connection."""
    driver: str = request.param
    provider = "mysql" if driver.startswith("mysql") else "postgres" if driver.startswith("psycopg") else "sqlite"
    if not _importable(DRIVERS[driver], f"airflow.providers.{provider}"):
        _give_up(f"{driver} or Airflow's {provider} provider is not installed here")

    empty: list[str] = []
    if provider == "sqlite":
        connection = json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "events.db")})
    elif provider == "postgres":
        connection = request.getfixturevalue("postgres").airflow_connection()
        empty = ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"]
        # What the hook does where psycopg 3 is not installed.
        monkeypatch.setattr("airflow.providers.postgres.hooks.postgres.USE_PSYCOPG3", driver == "psycopg")
    else:
        connection = request.getfixturevalue("mariadb").airflow_connection(client=driver)
        empty = [f"CREATE OR REPLACE DATABASE {DATABASE}"]
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", connection)

    from airflow.providers.common.compat.sdk import BaseHook

    made = Database(driver, CONN_ID, BaseHook.get_connection(CONN_ID).get_hook())
    if empty:
        made.run(*empty)
    return made


def _importable(*modules: str) -> bool:
    try:
        return all(importlib.util.find_spec(module) for module in modules)
    except ModuleNotFoundError:
        return False


def _for_session(start: Callable[[], AbstractContextManager[Server]]) -> Iterator[Server]:
    with ExitStack() as running:
        try:
            server = running.enter_context(start())
        except ServerUnavailable as error:
            reason = str(error)
        else:
            yield server
            return
    _give_up(reason)


def _give_up(reason: str) -> NoReturn:
    if os.environ.get("EVENTS_REQUIRE_SERVERS") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@contextmanager
def postgres_server() -> Iterator[Server]:
    """Run PostgreSQL until the block ends.

    :raises ServerUnavailable: there are no binaries, or they do not start.
    """
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    initdb = _binary("PostgreSQL", "initdb", installed[-1:])
    with _home("events-pg-", "postgres") as (home, account):
        data, port = home / "data", _free_port()
        _run(
            [initdb, "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
            account,
            home,
        )
        server = Server(conn_type="postgres", port=port, socket=home)
        command: list[str | Path] = [
            initdb.with_name("postgres"), "-D", data, "-k", home, "-p", str(port),
            "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "full_page_writes=off",
        ]  # fmt: skip
        create: list[str | Path] = [
            initdb.with_name("createdb"),
            "-h",
            home,
            "-p",
            str(port),
            "-U",
            USER,
            DATABASE,
        ]
        with _daemon(command, account, home, ready=create):
            yield server


@contextmanager
def mariadb_server() -> Iterator[Server]:
    """Run MariaDB until the block ends.

    :raises ServerUnavailable: there are no binaries, or they do not start.
    """
    sbin = [Path("/usr/sbin"), Path("/usr/local/sbin")]
    mariadbd = _binary("MariaDB", "mariadbd", sbin)
    install = _binary("MariaDB", "mariadb-install-db", sbin)
    client = _binary("MariaDB", "mariadb", sbin)
    with _home("events-maria-", "mysql") as (home, account):
        data, port, sock = home / "data", _free_port(), home / "sock"
        _run(
            [install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
             "--skip-test-db"],
            account,
            home,
        )  # fmt: skip
        server = Server(conn_type="mysql", port=port, socket=sock)
        command: list[str | Path] = [
            mariadbd, "--no-defaults", f"--datadir={data}", f"--socket={sock}", f"--port={port}",
            "--bind-address=127.0.0.1", f"--pid-file={home / 'pid'}", "--character-set-server=utf8mb4",
            "--innodb-flush-log-at-trx-commit=0",
        ]  # fmt: skip
        setup = (
            f"CREATE OR REPLACE DATABASE {DATABASE}; "
            f"CREATE OR REPLACE USER {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'; "
            f"CREATE OR REPLACE USER {USER}@localhost IDENTIFIED BY '{PASSWORD}'; "
            f"GRANT ALL ON *.* TO {USER}@'127.0.0.1'; GRANT ALL ON *.* TO {USER}@localhost;"
        )
        create: list[str | Path] = [client, "--no-defaults", f"--socket={sock}", "-uroot", "-e", setup]
        with _daemon(command, account, home, ready=create):
            yield server


def _binary(product: str, name: str, directories: Sequence[Path]) -> Path:
    """A program of the server, from the given directories or from `PATH`."""
    path = os.pathsep.join([*map(str, directories), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        raise ServerUnavailable(f"{product} is not installed here: no {name}")
    return Path(found)


@contextmanager
def _home(prefix: str, preferred: str) -> Iterator[tuple[Path, str | None]]:
    """A directory with a path short enough for a socket, and an account to run as: servers refuse root."""
    home = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        account = None
        if os.geteuid() == 0:
            known = {entry.pw_name for entry in pwd.getpwall()}
            account = preferred if preferred in known else "nobody"
            shutil.chown(home, account)
        yield home, account
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _run(command: Sequence[str | Path], account: str | None, home: Path) -> None:
    done = subprocess.run(command, user=account, cwd=home, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = (done.stderr or done.stdout).strip()[-500:]
        raise ServerUnavailable(f"{Path(command[0]).name} failed: {tail}")


@contextmanager
def _daemon(
    command: Sequence[str | Path], account: str | None, home: Path, *, ready: Sequence[str | Path]
) -> Iterator[None]:
    """Run `command` until the block ends; the block starts once the command `ready` succeeds."""
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, user=account, cwd=home, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(ready, user=account, cwd=home, capture_output=True, check=False).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace").strip()[-500:]
                raise ServerUnavailable(f"{Path(command[0]).name} did not start: {tail}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
