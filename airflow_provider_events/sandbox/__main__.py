"""`python -m airflow_provider_events.sandbox`: serve the vendors' APIs until interrupted."""

from __future__ import annotations

import argparse
from contextlib import suppress

from airflow_provider_events.sandbox.app import SandboxApp
from airflow_provider_events.sandbox.control import airflow_connections
from airflow_provider_events.sandbox.server import LOOPBACK, make_server
from airflow_provider_events.sandbox.state import Settings


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, say how to connect, serve."""
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_events.sandbox", description=__doc__)
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=8099, help="port to listen on (default %(default)s)")
    parser.add_argument("--no-quota", action="store_true", help="don't enforce the vendors' rate limits")
    parser.add_argument("--no-bodies", action="store_true", help="don't keep raw request bodies")
    options = parser.parse_args(arguments)

    app = SandboxApp(Settings(quotas=not options.no_quota, keep_bodies=not options.no_bodies))
    url = f"http://{options.host}:{options.port}"

    def say_how_to_connect() -> None:
        print(f"The sandbox listens on {url} (its index page says more). Connections for Airflow:\n")
        for name, value in airflow_connections(app, url).items():
            print(f"export {name}='{value}'")
        print(flush=True)

    with suppress(KeyboardInterrupt):
        make_server(app, host=options.host, port=options.port, on_started=say_how_to_connect).run()


if __name__ == "__main__":
    main()
