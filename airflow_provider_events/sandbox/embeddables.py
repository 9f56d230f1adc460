"""Embeddables on loopback.

Where its documents don't say what a refusal looks like:

| case | here |
| --- | --- |
| malformed or missing fields, `custom_event_props` too | 400, the documented envelope, code `bad_request` |
| identifier value not JSON, or JSON twice | 404 `entry_not_found`, as the guide says, and a violation |
| `embeddable_id` unknown | 404 `entry_not_found` (the guide lists it among the causes) |
| several entries match | the latest one |
| unknown path, wrong method | 404 `not_found`, 405 `method_not_allowed` |
| two posts of one event | two events: no de-duplication is documented |
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import attrgetter, itemgetter
from typing import Any, ClassVar

import orjson
from starlette.routing import Route

from airflow_provider_events.sandbox.api import Answer, Call, Refused, VendorApi
from airflow_provider_events.sandbox.state import Settings

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_SNAKE_CASE = re.compile(r"[a-z][a-z0-9_]*")
_GROUP = "group_sandbox"
_CODES = {400: "bad_request", 401: "unauthorized", 404: "not_found", 405: "method_not_allowed"}
_DEFAULT_LIMIT = 10


@dataclass(slots=True)
class Entry:
    """One end-user in one embeddable.

    `visible_at`: seconds since the epoch. `events`: their positions in the memory.
    """

    entry_id: str
    contact_id: str
    embeddable_id: str
    data: Mapping[str, Any]
    visible_at: float
    events: list[int] = field(default_factory=list)

    def as_dict(self, project: str) -> dict[str, Any]:
        """The documented Entry object."""
        at = _iso(datetime.fromtimestamp(self.visible_at, UTC))
        return {
            "entry_id": self.entry_id,
            "group_id": _GROUP,
            "project_id": project,
            "embeddable_id": self.embeddable_id,
            "contact_id": self.contact_id,
            "created_at": at,
            "updated_at": at,
            "entry_data": orjson.dumps(self.data).decode(),
        }

    def event(self, project: str, wire: Mapping[str, Any]) -> dict[str, Any]:
        """The documented Event object of what was posted."""
        return {
            "group_id": _GROUP,
            "project_id": project,
            "embeddable_id": self.embeddable_id,
            "embeddable_version_number": 1,
            "contact_id": self.contact_id,
            "entry_id": self.entry_id,
            "timestamp": _iso(datetime.fromisoformat(wire["timestamp"])),
            "event_type": "custom_event:triggered",
            "custom_event_name": wire["custom_event_name"],
            "custom_event_props": wire["custom_event_props"],
        }


class Embeddables(VendorApi):
    """`/projects/{project}/…`: custom events for entries that exist, and reading of entries."""

    name = "embeddables"
    prefixes = ("/projects",)
    credentials: ClassVar[Mapping[str, str]] = {
        "project_id": "pr_sandbox",
        "embeddable_id": "flow_sandbox",
        "api_key": "rk_sandbox_key",
    }

    def __init__(self, settings: Settings) -> None:
        """Start with one embeddable and no entry."""
        super().__init__(settings)
        self._embeddables = {self.credentials["embeddable_id"]: "Sandbox embeddable"}
        self._entries: dict[str, Entry] = {}
        self._by_identifier: dict[tuple[str, str, bytes], Entry] = {}

    def build_routes(self) -> Sequence[Route]:
        """The documented resources that senders of events need."""
        project = "/projects/{project}"
        return [
            Route(f"{project}/events", self.create_event, methods=["POST"]),
            Route(f"{project}/entries", self.list_entries, methods=["GET"]),
            Route(f"{project}/entries/{{entry}}", self.get_entry, methods=["GET"]),
            Route(f"{project}/entries/{{entry}}/events", self.list_entry_events, methods=["GET"]),
            Route(f"{project}/embeddables", self.list_embeddables, methods=["GET"]),
            Route(f"{project}/embeddables/{{embeddable}}", self.get_embeddable, methods=["GET"]),
        ]

    def authenticate(self, call: Call) -> str:
        """The key is the whole value of `X-Api-Key`."""
        key = call.headers.get("x-api-key")
        return "missing" if key is None else "ok" if key == self.credentials["api_key"] else "wrong"

    def refusal(self, status: int, message: str) -> Answer:
        """`{"error": {"code", "message"}}`."""
        return Answer.json(status, {"error": {"code": _CODES.get(status, "error"), "message": message}})

    def connection(self, url: str) -> dict[str, Any]:
        """Key as password, project and embeddable in the extra."""
        extra = {name: self.credentials[name] for name in ("project_id", "embeddable_id")}
        key = self.credentials["api_key"]
        return {"conn_type": self.name, "host": url, "login": None, "password": key, "extra": extra}

    def add_entry(self, entry: Mapping[str, Any], visible_at: float) -> None:
        """Add User Data as it is; `embeddable_id` and `entry_id` may stand beside it."""
        data = dict(entry)
        number = len(self._entries) + 1
        embeddable = data.pop("embeddable_id", self.credentials["embeddable_id"])
        entry_id = data.pop("entry_id", f"entry_sandbox_{number}")
        added = Entry(entry_id, f"contact_sandbox_{number}", embeddable, data, visible_at)
        self._embeddables.setdefault(embeddable, embeddable)
        self._entries[entry_id] = added
        for key, value in data.items():
            self._by_identifier[embeddable, key, orjson.dumps(value)] = added

    def count_entries(self) -> int:
        """Entries of all embeddables."""
        return len(self._entries)

    def create_event(self, call: Call) -> Answer:
        """`POST /projects/{project}/events`."""
        self._authorize(call)
        event = self.json_object(call)
        for name in ("embeddable_id", "timestamp", "custom_event_name", "custom_event_props"):
            if not isinstance(event.get(name), str):
                raise self.refuse(400, f"{name} must be a string")
        try:
            if not _TIME.fullmatch(event["timestamp"]):
                raise ValueError("not ISO 8601 with a zone")
            datetime.fromisoformat(event["timestamp"])
        except ValueError as error:
            raise self.refuse(400, f"timestamp: {error}") from error
        if not _SNAKE_CASE.fullmatch(event["custom_event_name"]):
            raise self.refuse(400, "custom_event_name must be snake_case")
        if not _is_json(event["custom_event_props"]):
            raise self.refuse(400, "custom_event_props must be a valid JSON string")
        entry = self._identified(event, call)
        entry.events.append(self.memory.record(call.number, call.body))
        call.events = 1
        return Answer.json(200, entry.event(call.params["project"], event))

    def list_entries(self, call: Call) -> Answer:
        """`GET /projects/{project}/entries`: a bare list, the latest update first."""
        self._authorize(call)
        limit, newest_first = self._paging(call)
        if call.query.get("sort", "updated_at") not in ("updated_at", "created_at"):
            raise self.refuse(400, "sort must be updated_at or created_at")
        after, before = (self._time(call, name) for name in ("updated_after", "updated_before"))
        found = [
            entry
            for entry in self._entries.values()
            if entry.visible_at <= call.at
            and (after is None or entry.visible_at > after)
            and (before is None or entry.visible_at < before)
        ]
        found.sort(key=attrgetter("visible_at"), reverse=newest_first)
        return Answer.json(200, [entry.as_dict(call.params["project"]) for entry in found[:limit]])

    def get_entry(self, call: Call) -> Answer:
        """`GET /projects/{project}/entries/{entry}`."""
        self._authorize(call)
        return Answer.json(200, self._existing(call).as_dict(call.params["project"]))

    def list_entry_events(self, call: Call) -> Answer:
        """`GET /projects/{project}/entries/{entry}/events`: a bare list, the latest event first."""
        self._authorize(call)
        limit, newest_first = self._paging(call)
        entry, project = self._existing(call), call.params["project"]
        events = [entry.event(project, self.memory.events[position].wire) for position in entry.events]
        events.sort(key=itemgetter("timestamp"), reverse=newest_first)
        return Answer.json(200, events[:limit])

    def list_embeddables(self, call: Call) -> Answer:
        """`GET /projects/{project}/embeddables`."""
        self._authorize(call)
        return Answer.json(200, [self._embeddable(call, name) for name in self._embeddables])

    def get_embeddable(self, call: Call) -> Answer:
        """`GET /projects/{project}/embeddables/{embeddable}`."""
        self._authorize(call)
        embeddable = call.params["embeddable"]
        if embeddable in self._embeddables:
            return Answer.json(200, self._embeddable(call, embeddable))
        error = {"code": "embeddable_does_not_exist", "message": "The embeddable does not exist"}
        project = call.params["project"]
        raise Refused(Answer.json(404, {"error": error, "projectId": project, "embeddableId": embeddable}))

    def _authorize(self, call: Call) -> None:
        project = call.params["project"]
        if call.auth == "ok" and project == self.credentials["project_id"]:
            return
        message = "You are not authorized to access this project with the API key provided."
        error = {"code": "unauthorized", "message": message}
        raise Refused(Answer.json(401, {"error": error, "projectId": project}))

    def _identified(self, event: dict[str, Any], call: Call) -> Entry:
        identifiers = event.get("identifiers")
        if not isinstance(identifiers, list) or len(identifiers) != 1:
            raise self.refuse(400, "identifiers must hold exactly one key-value pair")
        pair = identifiers[0]
        if not isinstance(pair, dict) or not all(isinstance(pair.get(k), str) for k in ("key", "value")):
            raise self.refuse(400, "an identifier's key and value must be strings")
        entry = None
        if not _is_json(pair["value"]):
            self.memory.violation(call.number, "identifier value is not JSON-stringified")
        else:
            value = orjson.loads(pair["value"])
            if isinstance(value, str) and value.startswith('"') and _is_json(value):
                self.memory.violation(call.number, "identifier value is JSON-stringified twice")
            entry = self._by_identifier.get((event["embeddable_id"], pair["key"], orjson.dumps(value)))
        if entry is None or entry.visible_at > call.at:
            self.memory.record(call.number, call.body, "refused", notes=("entry_not_found",))
            call.events = 1
            raise self._no_entry(None)
        return entry

    def _existing(self, call: Call) -> Entry:
        entry = self._entries.get(call.params["entry"])
        if entry is None or entry.visible_at > call.at:
            raise self._no_entry(call.params["entry"])
        return entry

    def _no_entry(self, entry_id: str | None) -> Refused:
        message = "The entry with the specified ID does not exist or you don't have permission to access it."
        error = {"code": "entry_not_found", "message": message}
        return Refused(Answer.json(404, {"error": error, "entryId": entry_id}))

    def _embeddable(self, call: Call, embeddable: str) -> dict[str, str]:
        title = self._embeddables[embeddable]
        project = call.params["project"]
        return {"embeddable_id": embeddable, "title": title, "group_id": _GROUP, "project_id": project}

    def _paging(self, call: Call) -> tuple[int, bool]:
        limit = call.query.get("limit", str(_DEFAULT_LIMIT))
        direction = call.query.get("direction", "DESC")
        if not (limit.isascii() and limit.isdigit()) or direction not in ("ASC", "DESC"):
            raise self.refuse(400, "limit must be a number, direction ASC or DESC")
        return int(limit), direction == "DESC"

    def _time(self, call: Call, name: str) -> float | None:
        text = call.query.get(name)
        if text is None:
            return None
        try:
            return datetime.fromisoformat(text).timestamp()
        except ValueError as error:
            raise self.refuse(400, f"{name} must be an ISO 8601 time") from error


def _iso(at: datetime) -> str:
    precision = "milliseconds" if at.microsecond else "seconds"
    return at.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
