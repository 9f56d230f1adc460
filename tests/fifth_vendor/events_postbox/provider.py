"""What Airflow reads of this package. A literal, as `airflow_provider_events.hooks.form.connection_type` gives it."""

from __future__ import annotations

from typing import Any


def get_provider_info() -> dict[str, Any]:
    """The provider's metadata."""
    return {
        "package-name": "events-postbox",
        "name": "Postbox",
        "description": "Delivers customer events to Postbox.",
        "versions": ["1.0.0"],
        "connection-types": [
            {
                "connection-type": "postbox",
                "hook-class-name": "events_postbox.hook.PostboxHook",
                "hook-name": "Postbox",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login"],
                    "relabeling": {"host": "API base URL", "password": "API key *", "port": "Port"},
                    "placeholders": {"host": "https://api.postbox.example", "password": "pb_…", "port": "443"},
                },
                "conn-fields": {
                    "box": {
                        "label": "Box",
                        "description": "Name of the box that the notes go into",
                        "schema": {"type": "string"},
                    },
                    "requests_per_minute": {
                        "label": "Requests per minute",
                        "description": "Upper bound on the request rate; blank: the vendor's published quota",
                        "schema": {"type": ["number", "null"], "minimum": 0.1},
                    },
                    "max_in_flight": {
                        "label": "Requests in flight",
                        "description": "How many requests may wait for an answer at once",
                        "schema": {"type": ["integer", "null"], "minimum": 1},
                    },
                    "batch_size": {
                        "label": "Events per request",
                        "description": "At most; blank: what the vendor takes in one request",
                        "schema": {"type": ["integer", "null"], "minimum": 1},
                    },
                    "timeout": {
                        "label": "Timeout (s)",
                        "description": "Seconds to wait for an answer",
                        "schema": {"type": ["number", "null"], "default": 30, "minimum": 0.1},
                    },
                    "verify": {
                        "label": "Verify TLS",
                        "description": "true (as blank), false, or the path of a CA bundle",
                        "schema": {"type": ["string", "null"]},
                    },
                    "proxy": {
                        "label": "Proxy URL",
                        "description": "HTTP proxy for this connection, e.g. http://proxy.example.com:3128",
                        "schema": {"type": ["string", "null"]},
                    },
                    "allow_http": {
                        "label": "Allow plain HTTP",
                        "description": "Send key and customers unencrypted, to http:// hosts other than this machine",
                        "schema": {"type": ["boolean", "null"], "default": False},
                    },
                },
            }
        ],
    }
