"""HTTP/1.1 to one endpoint: pooled connections, bounded answers, no redirects and no cookies."""

from airflow_provider_events.http.client import Http1Transport
from airflow_provider_events.http.contract import Endpoint, Transport

__all__ = ["open_transport"]


def open_transport(endpoint: Endpoint) -> Transport:
    """The transport for an endpoint, to be entered."""
    return Http1Transport(endpoint)
