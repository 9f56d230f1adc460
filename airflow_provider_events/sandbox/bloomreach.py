"""Bloomreach Engagement on loopback.

Where its documents are silent or disagree:

| case | here |
| --- | --- |
| status of a refused single call | 200 with `success: false` (the older page; a newer one says 4xx) |
| other faults of an event or a customer | as above, a plain message in `errors` |
| unknown project token, wrong public token | 400 `Could not authenticate` |
| no `Authorization` at all | 401 `access key not found` |
| reading with public access | 403 `No permission` |
| a compressed body | 400, the documented text as `message` |
| more than 50 commands | 400 `Too many commands` |
| a command that isn't an object with a name | 400 `Invalid JSON` for the whole batch |
| an unknown command name | that command fails |
| 405, 429 | `{"success": false, "error": …}` |
| duplicate | same ids, type, explicit timestamp, properties and their types, for 90 days: `success`, but kept once |
| a repeated `consent` event | kept each time, as documented |
| timestamp in milliseconds, or else more than a year ahead | accepted as documented, and a violation |
| rate limit of the reading calls | none |
"""

from __future__ import annotations

import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from starlette.routing import Route

from airflow_provider_events.sandbox import bloomreach_tracking as tracking
from airflow_provider_events.sandbox.api import Answer, Call, Refused, VendorApi
from airflow_provider_events.sandbox.bloomreach_tracking import CommandRefused
from airflow_provider_events.sandbox.state import Settings, compact_json

MAX_COMMANDS = 50
FAR_FUTURE_SECONDS = 366 * 86_400
DEDUPLICATION_SECONDS = 90 * 86_400

_PROJECT = re.compile(r"[0-9A-Za-z-]+")
_NO_CUSTOMER = {"errors": {"_global": ["Customer does not exist"]}, "success": False}
_COMPRESSED = "BadRequest: The browser (or proxy) sent a request that this server could not understand"


@dataclass(slots=True)
class Customer:
    """One customer. `visible_at`: seconds since the epoch; `events`: (timestamp, position in the memory)."""

    ids: dict[str, Any]
    visible_at: float
    properties: dict[str, Any] = field(default_factory=dict)
    events: list[tuple[float, int]] = field(default_factory=list)


class Bloomreach(VendorApi):
    """`/track/v2/projects/{project}/…` for writing, `/data/v2/projects/{project}/…` for reading."""

    name = "bloomreach"
    prefixes = ("/track/v2", "/data/v2")
    credentials: ClassVar[Mapping[str, str]] = {
        "project_token": "project-token-sandbox",
        "api_key_id": "key-id-sandbox",
        "api_secret": "secret-sandbox",
        "public_token": "public-token-sandbox",
    }
    quotas: ClassVar[Mapping[str, int]] = {"track": 6000}

    def __init__(self, settings: Settings) -> None:
        """Start with no customer."""
        super().__init__(settings)
        self._customers: list[Customer] = []
        self._by_id: dict[tuple[str, str], Customer] = {}
        self._received: dict[bytes, float] = {}
        keys = self.credentials
        self._private = "Basic " + b64encode(f"{keys['api_key_id']}:{keys['api_secret']}".encode()).decode()
        self._public = f"Token {keys['public_token']}"

    def build_routes(self) -> Sequence[Route]:
        """Tracking first: it is what clients do most."""
        track, data = "/track/v2/projects/{project}", "/data/v2/projects/{project}"
        return [
            Route(f"{track}/customers/events", self.add_event, methods=["POST"]),
            Route(f"{track}/batch", self.batch, methods=["POST"]),
            Route(f"{track}/customers", self.update_customer, methods=["POST"]),
            Route(f"{track}/system/time", self.system_time, methods=["GET"]),
            Route(f"{data}/customers/export-one", self.export_one, methods=["POST"]),
            Route(f"{data}/customers/events", self.export_events, methods=["POST"]),
            Route(f"{data}/customers/attributes", self.attributes, methods=["POST"]),
        ]

    def authenticate(self, call: Call) -> str:
        """Private (`Basic`), public (`Token`, or `access_token` in the query), wrong or missing."""
        key = call.headers.get("authorization")
        if key is None and "access_token" in call.query:
            key = f"Token {call.query['access_token']}"
        known = {self._private: "private", self._public: "public", None: "missing"}
        return known.get(key, "wrong")

    def refusal(self, status: int, message: str) -> Answer:
        """The envelope that goes with the status: the documents have several."""
        match status:
            case 200:
                return Answer.json(200, {"success": False, "errors": [message]})
            case 404:
                return Answer.json(404, {"errors": {"code": 404, "description": message}})
            case 400:
                return Answer.json(400, {"success": False, "message": message})
            case _:
                return Answer.json(status, {"success": False, "error": message})

    def connection(self, url: str) -> dict[str, Any]:
        """Private access: key id as login, secret as password; project token in the extra."""
        keys = self.credentials
        extra = {"project_token": keys["project_token"]}
        login, password = keys["api_key_id"], keys["api_secret"]
        return {"conn_type": self.name, "host": url, "login": login, "password": password, "extra": extra}

    def add_entry(self, entry: Mapping[str, Any], visible_at: float) -> None:
        """Add a customer by ids, such as `{"registered": "c-1"}`."""
        self._add_customer(dict(entry), visible_at)

    def count_entries(self) -> int:
        """Customers, strays among them."""
        return len(self._customers)

    def quota_bucket(self, call: Call) -> tuple[str, str] | None:
        """Tracking is counted by client address."""
        return ("track", call.client) if call.path.startswith("/track/") else None

    def extra_headers(self, call: Call) -> dict[str, str]:
        """An `x-request-id` of the vendor's own."""
        return {"x-request-id": f"sandbox-{call.number}"}

    def add_event(self, call: Call) -> Answer:
        """`POST …/customers/events` (tracking)."""
        return self._single(call, "customers/events")

    def update_customer(self, call: Call) -> Answer:
        """`POST …/customers` (tracking)."""
        return self._single(call, "customers")

    def batch(self, call: Call) -> Answer:
        """`POST …/batch`: each command has its own result, and `success` at the top says nothing of them."""
        commands = self._authorized(call).get("commands")
        if not isinstance(commands, list) or not commands:
            raise self.refuse(400, "No commands")
        if len(commands) > MAX_COMMANDS:
            raise self.refuse(400, "Too many commands")
        if not all(isinstance(c, dict) and isinstance(c.get("name"), str) for c in commands):
            raise self.refuse(400, "Invalid JSON")
        ids = [c["command_id"] for c in commands if isinstance(c.get("command_id"), str)]
        if len(set(ids)) < len(ids):
            self.memory.violation(call.number, "two commands of a batch have the same command_id")
        started = self.clock()
        results = [self._command(call, command) for command in commands]
        times = {"start_time": started, "end_time": self.clock()}
        return Answer.json(200, {"results": results, **times, "success": True})

    def system_time(self, call: Call) -> Answer:
        """`GET …/system/time`."""
        self._check_access(call)
        return Answer.json(200, {"errors": [], "success": True, "time": self.clock()})

    def export_one(self, call: Call) -> Answer:
        """`POST …/customers/export-one`: all of one customer."""
        _, customer = self._read(call, "No permission to export customer")
        events = [self._exported(event) for event in customer.events]
        body = {"ids": customer.ids, "properties": customer.properties, "events": events, "success": True}
        return Answer.json(200, body)

    def export_events(self, call: Call) -> Answer:
        """`POST …/customers/events` (reading): events of the listed types."""
        body, customer = self._read(call, "No permission")
        types = body.get("event_types")
        order, skip, limit = body.get("order", "asc"), body.get("skip", 0), body.get("limit", sys.maxsize)
        if not isinstance(types, list) or not types or order not in ("asc", "desc"):
            raise self.refuse(400, "event_types and order must be as documented")
        if not all(isinstance(number, int) and number >= 0 for number in (skip, limit)):
            raise self.refuse(400, "skip and limit must be whole numbers")
        events = [self._exported(event) for event in sorted(customer.events, reverse=order == "desc")]
        found = [event for event in events if event["type"] in types]
        return Answer.json(200, {"success": True, "data": found[skip : skip + limit]})

    def attributes(self, call: Call) -> Answer:
        """`POST …/customers/attributes`: ids and properties; other kinds have no permission here."""
        body, customer = self._read(call, "No permission")
        wanted = body.get("attributes")
        if not isinstance(wanted, list) or not all(isinstance(a, dict) for a in wanted):
            raise self.refuse(400, "attributes must be a list of objects")
        stores = {"id": ("id", customer.ids), "property": ("property", customer.properties)}
        results: list[dict[str, Any]] = []
        for attribute in wanted:
            if attribute.get("type") in stores:
                key, values = stores[attribute["type"]]
                results.append({"success": True, "value": values.get(attribute.get(key))})
            else:
                results.append({"success": False, "error": "No permission"})
        return Answer.json(200, {"results": results, "success": True})

    def _check_access(self, call: Call) -> None:
        project = call.params["project"]
        if not _PROJECT.fullmatch(project):
            raise _no_access(400, "Invalid project id")
        if project != self.credentials["project_token"]:
            raise _no_access(400, "Could not authenticate")
        if call.auth in ("private", "public"):
            return
        given = call.headers.get("authorization", "")
        if given.startswith("Basic ") and _key_id(given) == self.credentials["api_key_id"]:
            raise _no_access(403, "invalid secret")
        if call.auth == "missing" or given.startswith("Basic "):
            raise _no_access(401, "access key not found")
        raise _no_access(400, "Could not authenticate")

    def _authorized(self, call: Call) -> dict[str, Any]:
        self._check_access(call)
        if call.headers.get("content-encoding", "identity") != "identity":
            raise self.refuse(400, _COMPRESSED)
        return self.json_object(call)

    def _single(self, call: Call, name: str) -> Answer:
        data = self._authorized(call)
        try:
            self._track(call, name, data, call.body, None)
        except CommandRefused as error:
            raise self.refuse(200, str(error)) from error
        return Answer.json(200, {"errors": [], "success": True})

    def _command(self, call: Call, command: dict[str, Any]) -> dict[str, Any]:
        name, data, command_id = command["name"], command.get("data"), command.get("command_id")
        result: dict[str, Any] = {} if command_id is None else {"command_id": command_id}
        if name == "system/time":
            return {**result, "success": True, "time": self.clock()}
        try:
            if command_id is not None and not isinstance(command_id, str):
                raise CommandRefused("command_id must be a string")
            self._track(call, name, data, compact_json(data), command_id)
        except CommandRefused as error:
            return {**result, "success": False, "errors": [str(error)]}
        return {**result, "success": True}

    def _track(self, call: Call, name: str, data: Any, blob: bytes, command_id: str | None) -> None:
        """Take an event or a customer's properties; a refused one is kept, with the reason."""
        if name == "customers/events":
            call.events += 1
        try:
            if name == "customers/events":
                message = tracking.read_event(data, len(blob))
            elif name == "customers":
                message = tracking.read_customer(data, len(blob))
            else:
                raise CommandRefused(f"Unknown command {name}")
        except CommandRefused as error:
            self.memory.record(call.number, blob, "refused", key=command_id, notes=(str(error),))
            raise
        if name == "customers":
            customer = self._find(message.ids, call) or self._add_customer(message.ids, call.at)
            customer.properties.update(message.properties)
        else:
            self._keep_event(call, blob, message, command_id)

    def _keep_event(self, call: Call, blob: bytes, event: tracking.Message, command_id: str | None) -> None:
        if event.digest is not None:
            before = self._received.get(event.digest)
            self._received[event.digest] = call.at
            if before is not None and call.at - before < DEDUPLICATION_SECONDS:
                self.memory.record(call.number, blob, "duplicate", key=command_id)
                return
        notes: tuple[str, ...] = ()
        timestamp = call.at if event.timestamp is None else event.timestamp
        if timestamp > call.at + FAR_FUTURE_SECONDS:
            note = f"timestamp {timestamp:.0f} s is far in the future: milliseconds?"
            notes = (self.memory.violation(call.number, note),)
        customer = self._find(event.ids, call)
        if customer is None:
            self.memory.counts["strays"] += 1
            notes = (*notes, "stray customer created")
            customer = self._add_customer(event.ids, call.at)
        position = self.memory.record(call.number, blob, key=command_id, notes=notes)
        customer.events.append((timestamp, position))

    def _read(self, call: Call, no_permission: str) -> tuple[dict[str, Any], Customer]:
        body = self._authorized(call)
        if call.auth != "private":
            raise Refused(Answer.json(403, {"errors": {"_global": [no_permission]}, "success": False}))
        try:
            ids = tracking.read_ids(body.get("customer_ids"))
        except CommandRefused as error:
            raise self.refuse(200, str(error)) from error
        customer = self._find(ids, call)
        if customer is None:
            raise Refused(Answer.json(404, _NO_CUSTOMER))
        return body, customer

    def _find(self, ids: dict[str, Any], call: Call) -> Customer | None:
        for identifier in tracking.each_id(ids):
            customer = self._by_id.get(identifier)
            if customer is not None and customer.visible_at <= call.at:
                return customer
        return None

    def _add_customer(self, ids: dict[str, Any], visible_at: float) -> Customer:
        customer = Customer(ids, visible_at)
        self._customers.append(customer)
        self._by_id.update(dict.fromkeys(tracking.each_id(ids), customer))
        return customer

    def _exported(self, event: tuple[float, int]) -> dict[str, Any]:
        timestamp, position = event
        wire = self.memory.events[position].wire
        return {"properties": wire.get("properties", {}), "timestamp": timestamp, "type": wire["event_type"]}


def _no_access(status: int, error: str) -> Refused:
    return Refused(Answer.json(status, {"success": False, "error": error}))


def _key_id(authorization: str) -> str:
    try:
        return b64decode(authorization.removeprefix("Basic ")).partition(b":")[0].decode("utf-8", "replace")
    except ValueError:
        return ""
