"""The way to the vendor: which proxy, and which certificates are trusted. One rule for everything a hook sends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.vendors.connection import is_loopback, proxy_url

if TYPE_CHECKING:
    from airflow_provider_events.vendors.base import Vendor

__all__ = ["proxy_of", "secrets_of", "verify_of"]

_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def proxy_of(vendor: Vendor) -> str | None:
    """URL of the proxy: the connection's, else the environment's, as `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say.

    :raises ConfigurationError: the environment names a proxy that is none.
    """
    if vendor.extra["proxy"]:
        return str(vendor.extra["proxy"])
    from urllib.request import (  # type: ignore[attr-defined]  # all of them are as old as Python 3
        getproxies_environment,
        proxy_bypass_environment,
    )

    url, known = urlsplit(vendor.base_url), getproxies_environment()
    name = url.scheme if known.get(url.scheme) else "all"
    proxy = known.get(name)
    if not proxy or is_loopback(url.hostname or "") or proxy_bypass_environment(url.netloc, known):
        return None
    try:
        return proxy_url(proxy if "://" in proxy else f"http://{proxy}")
    except ValueError:
        raise ConfigurationError(
            f"connection {vendor.conn_id!r}: the environment variable {name.upper()}_PROXY (or {name}_proxy) has to be "
            "the URL of an HTTP proxy, such as http://proxy.example.com:3128; or fill in 'Proxy URL' of the "
            "connection, or name the host in NO_PROXY"
        ) from None


def secrets_of(vendor: Vendor) -> list[str]:
    """All that no log may show: of the connection, and the password for the proxy as it is written and is meant."""
    password = urlsplit(proxy_of(vendor) or "").password or ""
    return [*vendor.secrets(), *(form for form in dict.fromkeys((password, unquote(password))) if form)]


def verify_of(vendor: Vendor) -> bool | str:
    """Whether certificates are checked; a path names the only authorities that are trusted.

    The connection's, else the environment's `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE` or `CURL_CA_BUNDLE`, else True.

    :raises ConfigurationError: there are no authorities at the path.
    """
    from airflow_provider_events.http.tls import tls_context

    verify, where = vendor.verify, "'Verify TLS' (extra key 'verify') has to be true, false or"
    if verify is True:
        for variable in _CA_VARIABLES:
            if path := os.environ.get(variable):
                verify, where = path, f"the environment variable {variable} has to be"
                break
    try:
        if isinstance(verify, str):
            tls_context(verify)
    except OSError as error:
        raise ConfigurationError(
            f"connection {vendor.conn_id!r}: {where} the path of a CA bundle, "
            f"and {verify} is not ({type(error).__name__})"
        ) from None
    return verify
