"""Serves the vendors' APIs on this machine until interrupted."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from airflow_provider_events.sandbox.server import LOOPBACK, make_server
from airflow_provider_events.sandbox.shop import fill_shop, known_emails, opening_until_now

SHOP_ORDERS = 600  # three days of them
PEOPLE = ("ada@example.com", "grace@example.com")  # whom the example DAGs name


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the sandbox's options to a command line."""
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on (default %(default)s)")
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name to answer to, beside those of loopback and the address it listens on; may be repeated",
    )
    parser.add_argument("--port", type=int, default=8099, help="port to listen on (default %(default)s)")
    parser.add_argument("--no-quota", action="store_true", help="don't enforce the vendors' rate limits")
    parser.add_argument("--no-bodies", action="store_true", help="don't keep raw request bodies")
    parser.add_argument(
        "--with-shop",
        nargs="?",
        type=Path,
        const=Path("shop.db"),
        metavar="PATH",
        help="make a shop's SQLite database for the example DAGs, anew (default ./shop.db); its customers are known",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Say how to connect, serve. Returns 1 if the shop cannot be made, 0 after an interrupt."""
    from airflow_provider_events.sandbox.hosts import Hosts
    from airflow_provider_events.sandbox.state import Settings
    from airflow_provider_events.sandbox.vendors import Vendors

    hosts = Hosts(options.host, options.allowed_host)
    vendors = Vendors(hosts, Settings(quotas=not options.no_quota, keep_bodies=not options.no_bodies))
    url = f"http://{hosts.reachable}:{options.port}"
    connections = vendors.connections(url)
    if options.with_shop is not None:
        shop = options.with_shop.resolve()
        try:
            fill_shop(shop, SHOP_ORDERS, opening_until_now(SHOP_ORDERS))
        except OSError as error:
            print(f"The shop cannot be made: {error}", file=sys.stderr)
            return 1
        for vendor in ("embeddables", "vibetrace"):
            vendors.add_entries(vendor, [{"email": email} for email in (*known_emails(shop), *PEOPLE)], 0)
        connections["AIRFLOW_CONN_SHOP"] = json.dumps({"conn_type": "sqlite", "host": str(shop)})

    def say_how_to_connect() -> None:
        print(f"The sandbox listens on {url} (its index page says more). Connections for Airflow:\n")
        for name, value in connections.items():
            print(f"export {name}={shlex.quote(value)}")
        print(flush=True)

    hosts.warn()
    with suppress(KeyboardInterrupt):
        make_server(vendors, host=options.host, port=options.port, on_started=say_how_to_connect).run()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, serve."""
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_events.sandbox", description=__doc__)
    add_options(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
