"""Who may ask the sandbox: its keys are well known, so no web page may lead a browser to it.

A page does so under a name of its own that resolves to this machine (DNS rebinding), which the browser says in `Host`;
or from where it is, which the browser says in `Origin`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address

from starlette.types import Scope

from airflow_provider_events.sandbox.api import Answer

__all__ = ["Hosts"]

MISDIRECTED = 421
FORBIDDEN = 403
LONGEST_SHOWN = 100

log = logging.getLogger("airflow_provider_events.sandbox")

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::\d{0,5})?", re.IGNORECASE)
_ORIGIN = re.compile(r"https?://(.+)", re.IGNORECASE)


class Hosts:
    """The names that requests may be for: those of loopback, the address they came in by, and the given ones.

    :param bound: the name or address that the sandbox listens on.
    :param allowed: further names, without a port.
    """

    def __init__(self, bound: str, allowed: Iterable[str] = ()) -> None:
        self._bound = _plain(bound)
        self._names = frozenset({self._bound, *map(_plain, allowed)})
        self._is_known = lru_cache(256)(self._known)

    @property
    def is_local(self) -> bool:
        """Whether nothing but this machine can reach it."""
        return _is_loopback(self._bound)

    @property
    def reachable(self) -> str:
        """The host part of the URL under which this machine reaches it."""
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._bound, self._bound)
        return f"[{host}]" if ":" in host else host

    def warn(self) -> None:
        """Say so where others than this machine can reach it."""
        if not self.is_local:
            log.warning(
                "The sandbox listens beyond this machine, on %s: whoever reaches it reads all that was sent to it and "
                "gives it orders, for its keys are the same everywhere. Send it no real customers, or let it listen on "
                "127.0.0.1, as it does by default.",
                self._bound or "every address",
            )

    def refusal(self, scope: Scope) -> Answer | None:
        """The answer to a request that is not for this sandbox, or that a page from elsewhere sends; else None."""
        said: dict[bytes, list[str]] = {b"host": [], b"origin": []}
        for name, value in scope["headers"]:
            if name in said:
                said[name].append(value.decode("latin-1"))
        server = scope["server"][0]
        host = ", ".join(said[b"host"])
        if not self._is_known(host, server):
            return _refusal(
                MISDIRECTED,
                f"The sandbox does not answer to the host {host[:LONGEST_SHOWN]!r}, but to localhost, to the address "
                "that it listens on, and to names that it was started with: --allowed-host NAME, or "
                'Sandbox(allowed_hosts=["NAME"]).',
            )
        pages = map(_ORIGIN.fullmatch, said[b"origin"])
        if not all(page is not None and self._is_known(page[1], server) for page in pages):
            return _refusal(FORBIDDEN, "The sandbox takes no requests from web pages of other hosts.")
        return None

    def _known(self, header: str, server: str) -> bool:
        match = _HOST.fullmatch(header)
        if match is None:
            return False
        name = _plain(match[1])
        return _is_loopback(name) or name in self._names or name == _plain(server)


def _refusal(status: int, words: str) -> Answer:
    headers = {"x-content-type-options": "nosniff"}
    return Answer(status, f"{words}\n".encode(), media_type="text/plain; charset=utf-8", headers=headers)


def _plain(name: str) -> str:
    """A name in one spelling: addresses in their shortest one."""
    name = name.strip("[]").removesuffix(".").lower()
    try:
        address = ip_address(name)
    except ValueError:
        return name
    return str(getattr(address, "ipv4_mapped", None) or address)


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
