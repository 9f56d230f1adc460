"""What Airflow reads of this provider. A literal that imports nothing: one bad key here would stop all of Airflow.

`scripts/generate_provider_info.py` writes integrations and connection types, as the vendors' classes say them.
"""


def get_provider_info() -> dict[str, object]:
    """The provider's metadata, in the form that Airflow's provider manager validates."""
    return {
        "package-name": "airflow-provider-events",
        "name": "Customer events",
        "description": "Delivers customer events to Embeddables, Vibetrace, WebEngage and Bloomreach Engagement.",
        "versions": ["0.1.0"],
        "integrations": [
            {
                "integration-name": "Embeddables",
                "external-doc-url": "https://docs.embeddables.com/how-to/send-data-to-embeddables",
                "tags": ["service"],
            },
            {
                "integration-name": "Vibetrace",
                "external-doc-url": "https://help.vtcdn.net/kb/how-to-send-events-via-api/",
                "tags": ["service"],
            },
            {
                "integration-name": "WebEngage",
                "external-doc-url": "https://docs.webengage.com/docs/rest-api-tracking-events",
                "tags": ["service"],
            },
            {
                "integration-name": "Bloomreach Engagement",
                "external-doc-url": "https://documentation.bloomreach.com/engagement/docs/add-event",
                "tags": ["service"],
            },
        ],
        "connection-types": [
            {
                "connection-type": "embeddables",
                "hook-class-name": "airflow_provider_events.hooks.embeddables.EmbeddablesHook",
                "hook-name": "Embeddables",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login"],
                    "relabeling": {"host": "API base URL", "password": "API key *", "port": "Port"},
                    "placeholders": {"host": "https://api.embeddables.com", "password": "rk_…", "port": "443"},
                },
                "conn-fields": {
                    "project_id": {
                        "label": "Project ID",
                        "description": "Starts with pr_; Settings > Credentials and Endpoints",
                        "schema": {"type": "string"},
                    },
                    "embeddable_id": {
                        "label": "Embeddable ID",
                        "description": "Starts with flow_; for events whose identity names none",
                        "schema": {"type": ["string", "null"]},
                    },
                    "lookup_days": {
                        "label": "Look-up window (days)",
                        "description": "How many days back entries are searched, by their last update",
                        "schema": {"type": ["number", "null"], "default": 30, "minimum": 0.001},
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
            },
            {
                "connection-type": "vibetrace",
                "hook-class-name": "airflow_provider_events.hooks.vibetrace.VibetraceHook",
                "hook-name": "Vibetrace",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login"],
                    "relabeling": {"host": "API base URL", "password": "API key *", "port": "Port"},
                    "placeholders": {
                        "host": "https://api.vtcdn.net/v1",
                        "password": "found under your account profile",
                        "port": "443",
                    },
                },
                "conn-fields": {
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
            },
            {
                "connection-type": "webengage",
                "hook-class-name": "airflow_provider_events.hooks.webengage.WebEngageHook",
                "hook-name": "WebEngage",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login"],
                    "relabeling": {"host": "API base URL", "password": "API key *", "port": "Port"},
                    "placeholders": {
                        "host": "blank: the host of the region",
                        "password": "a service account's key with the role Data Ingestion",
                        "port": "443",
                    },
                },
                "conn-fields": {
                    "license_code": {
                        "label": "License code",
                        "description": "As in the dashboard; may start with ~",
                        "schema": {"type": "string"},
                    },
                    "region": {
                        "label": "Region",
                        "description": "Data centre of the account; eug (Europe) is not in the REST documentation",
                        "schema": {
                            "type": ["string", "null"],
                            "enum": ["global", "in", "ksa", "eug"],
                            "default": "global",
                        },
                    },
                    "existence_check": {
                        "label": "Existence check",
                        "description": "portability: look users up by registering a GDPR portability request",
                        "schema": {"type": ["string", "null"], "enum": ["none", "portability"], "default": "none"},
                    },
                    "allow_system_events": {
                        "label": "Allow system events",
                        "description": "Send events that are named like WebEngage's own, such as email_open, instead of rejecting them",
                        "schema": {"type": ["boolean", "null"], "default": False},
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
            },
            {
                "connection-type": "bloomreach",
                "hook-class-name": "airflow_provider_events.hooks.bloomreach.BloomreachHook",
                "hook-name": "Bloomreach Engagement",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema"],
                    "relabeling": {
                        "host": "API base URL",
                        "login": "API key ID",
                        "password": "API secret or public token *",
                        "port": "Port",
                    },
                    "placeholders": {
                        "host": "https://api.exponea.com",
                        "login": "blank: public access",
                        "password": "Project settings > API",
                        "port": "443",
                    },
                },
                "conn-fields": {
                    "project_token": {
                        "label": "Project token",
                        "description": "Project settings > Access management > API",
                        "schema": {"type": "string"},
                    },
                    "lookup_event_type": {
                        "label": "Look-up event type",
                        "description": "Look customers up by one event of this type (needs Events > Get); blank: by export",
                        "schema": {"type": ["string", "null"]},
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
            },
        ],
        "hooks": [
            {
                "integration-name": "Embeddables",
                "python-modules": ["airflow_provider_events.hooks.embeddables"],
            },
            {"integration-name": "Vibetrace", "python-modules": ["airflow_provider_events.hooks.vibetrace"]},
            {"integration-name": "WebEngage", "python-modules": ["airflow_provider_events.hooks.webengage"]},
            {
                "integration-name": "Bloomreach Engagement",
                "python-modules": ["airflow_provider_events.hooks.bloomreach"],
            },
        ],
        "operators": [
            {
                "integration-name": "Customer events",
                "python-modules": [
                    "airflow_provider_events.operators.events",
                    "airflow_provider_events.operators.entries",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": "Customer events",
                "python-modules": ["airflow_provider_events.sensors.entry"],
            }
        ],
        "triggers": [
            {
                "integration-name": "Customer events",
                "python-modules": ["airflow_provider_events.triggers.entry"],
            }
        ],
        "transfers": [
            {
                "source-integration-name": "SQL",
                "target-integration-name": "Customer events",
                "python-module": "airflow_provider_events.transfers.sql_to_events",
            },
            {
                "source-integration-name": "SQL",
                "target-integration-name": "Customer events",
                "python-module": "airflow_provider_events.transfers.sql_to_entries",
            },
        ],
        "cli": ["airflow_provider_events.cli.airflow_commands.get_commands"],
        "config": {
            "events": {
                "description": "Delivery of customer events.",
                "options": {
                    "rejected_path": {
                        "description": (
                            "Folder for rejected events as JSON Lines, one file per task try: a local path or any "
                            "URI of Airflow's object storage. For operators without a rejected_path of their own. "
                            "Blank: none are written."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://company-airflow/rejected-events",
                        "default": "",
                    },
                    "checkpoint_path": {
                        "description": (
                            "Folder for checkpoints on Airflow before 3.3, which has no task state store: a local "
                            "path that all workers share or any URI of Airflow's object storage. Blank: a retry "
                            "starts over. On every version: what deferred sensors wait for, where that is a list; "
                            "triggerers have to reach it as well."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://company-airflow/event-checkpoints",
                        "default": "",
                    },
                    "cursor_path": {
                        "description": (
                            "Folder for the cursors of scheduled syncs on Airflow before 3.3, which keeps them in the "
                            "state of an asset later: a local path that all workers share or any URI of Airflow's "
                            "object storage. Blank: Airflow's Variables. On every version: what was sent near a "
                            "cursor, where that is too much for a store and there is no checkpoint_path."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://company-airflow/event-cursors",
                        "default": "",
                    },
                    "allowed_paths": {
                        "description": (
                            "Folders, separated by commas, in which the paths have to lie that templates give to "
                            "rejected_path, checkpoint_path and events; local paths or URIs. Blank: templates of "
                            "params and dag_run.conf are refused there, others are not restricted."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/var/airflow/events,s3://company-airflow/rejected-events",
                        "default": "",
                    },
                    "file_permissions": {
                        "description": (
                            "Who may read local files of rejected events, checkpoints and waiting lists: 0600 their "
                            "owner alone, 0640 the group as well, 0660 the group may write too, where workers and "
                            "triggerers are different users of one group."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "0660",
                        "default": "0600",
                    },
                },
            }
        },
    }
