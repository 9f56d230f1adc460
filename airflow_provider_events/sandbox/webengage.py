"""WebEngage on loopback.

Where its documents are silent or disagree:

| case | here |
| --- | --- |
| status of a success | 201 (the documents show the body only; clients must take any 2xx) |
| wrong licence code | 404 (its text; its table says 400) |
| bodies of 401, 404, 405, 429, other 400 | the documented `response` envelope with a plain message |
| one bad event in a bulk, or more than 25 | 400 for the whole request; nothing is accepted |
| `eventTime` in any other form than the documented one | 400 |
| names over 50, ids over 100, strings over 1000 characters | 400; exactly 50 or 1000: a violation |
| names that begin with `we_`, a changed data type, a 26th attribute of a type | accepted, noted as ignored |
| an event named like one of WebEngage's own | accepted, noted as ignored, and a violation |
| `x-request-id` on a bulk | not used: de-duplication is documented for single calls only |
| `x-request-id` that isn't hexadecimal | 400 |
| an `x-request-id` used again for another body | discarded as a duplicate, and a violation |
| an `erasure` request | answered as documented, recorded as a violation; nothing is erased |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

from starlette.routing import Route

from airflow_provider_events.sandbox.api import Answer, Call, VendorApi
from airflow_provider_events.sandbox.state import Outcome, Settings, compact_json
from airflow_provider_events.sandbox.webengage_names import SYSTEM_EVENTS

MAX_BULK = 25
MAX_ID_CHARS = 100
MAX_NAME_CHARS = 50
MAX_TEXT_CHARS = 1000
MAX_ATTRIBUTES_OF_A_TYPE = 25
DEDUPLICATION_SECONDS = 4 * 3600

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}")
_HEX = re.compile(r"[0-9a-fA-F]+")
_GENDERS = ("male", "female", "other")
_OPT_INS = ("emailOptIn", "smsOptIn", "whatsappOptIn", "rcsOptIn")


class WebEngage(VendorApi):
    """`/v1/accounts/{licence}/…`: events, users, their bulks, and the GDPR endpoint."""

    name = "webengage"
    prefixes = ("/v1/accounts",)
    credentials: ClassVar[Mapping[str, str]] = {"license_code": "~sandbox", "api_key": "we-sandbox-key"}
    quotas: ClassVar[Mapping[str, int]] = {
        "events": 5000,
        "users": 5000,
        "bulk-events": 500,
        "bulk-users": 500,
        "opengdpr_requests": 100,
    }

    def __init__(self, settings: Settings) -> None:
        """Start with no user."""
        super().__init__(settings)
        self._users: dict[str, tuple[dict[str, Any], float]] = {}
        self._seen_ids: dict[tuple[str, str], tuple[float, int]] = {}
        self._gdpr_ids: set[str] = set()
        self._types: dict[str, dict[str, str]] = {}

    def build_routes(self) -> Sequence[Route]:
        """The resources of an account."""
        account = "/v1/accounts/{license_code}"
        endpoints: dict[str, Callable[[Call], Answer]] = {
            "events": self.track_event,
            "bulk-events": self.track_events,
            "users": self.track_user,
            "bulk-users": self.track_users,
            "opengdpr_requests": self.gdpr_request,
        }
        return [Route(f"{account}/{name}", handle, methods=["POST"]) for name, handle in endpoints.items()]

    def authenticate(self, call: Call) -> str:
        """`Authorization: Bearer <key>`."""
        key = call.headers.get("authorization")
        expected = f"Bearer {self.credentials['api_key']}"
        return "missing" if key is None else "ok" if key == expected else "wrong"

    def refusal(self, status: int, message: str) -> Answer:
        """`{"response": {"message", "status": "error"}}`."""
        return Answer.json(status, {"response": {"message": message, "status": "error"}})

    def connection(self, url: str) -> dict[str, Any]:
        """Key as password, licence code in the extra."""
        extra = {"license_code": self.credentials["license_code"]}
        key = self.credentials["api_key"]
        return {"conn_type": self.name, "host": url, "login": None, "password": key, "extra": extra}

    def add_entry(self, entry: Mapping[str, Any], visible_at: float) -> None:
        """Add a user by attributes, among them `userId`."""
        self._users[entry["userId"]] = (dict(entry), visible_at)

    def count_entries(self) -> int:
        """Known users."""
        return len(self._users)

    def quota_bucket(self, call: Call) -> tuple[str, str]:
        """Each resource has its own."""
        return call.path.rpartition("/")[2], ""

    def extra_headers(self, call: Call) -> dict[str, str]:
        """How many requests of the minute are left."""
        if call.quota is None:
            return {}
        limit, remaining = call.quota
        return {"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": str(max(remaining, 0))}

    def track_event(self, call: Call) -> Answer:
        """`POST …/events`."""
        event = self._authorized(call)
        self._check_event(event)
        key, repeated = self._request_id(call)
        self._record(call, event, call.body, key, repeated)
        return _queued()

    def track_events(self, call: Call) -> Answer:
        """`POST …/bulk-events`."""
        events = self._bulk(call, "events")
        for position, event in enumerate(events):
            self._check_event(event, f"events[{position}]: ")
        for event in events:
            self._record(call, event, compact_json(event), None, repeated=False)
        return _queued()

    def track_user(self, call: Call) -> Answer:
        """`POST …/users`."""
        user = self._authorized(call)
        self._check_user(user)
        _, repeated = self._request_id(call)
        if not repeated:
            self._save_user(call, user)
        return _queued()

    def track_users(self, call: Call) -> Answer:
        """`POST …/bulk-users`."""
        users = self._bulk(call, "users")
        for position, user in enumerate(users):
            self._check_user(user, f"users[{position}]: ")
        for user in users:
            self._save_user(call, user)
        return _queued()

    def gdpr_request(self, call: Call) -> Answer:
        """`POST …/opengdpr_requests`: `portability` reads a profile; `erasure` would destroy it."""
        body = self._authorized(call)
        request_id, kind = body.get("subject_request_id"), body.get("subject_request_type")
        if not isinstance(request_id, str) or not request_id or request_id in self._gdpr_ids:
            raise self.refuse(400, "Bad request: subject_request_id must be unique")
        identities = body.get("subject_identities")
        identity = identities[0] if isinstance(identities, list) and len(identities) == 1 else None
        if not isinstance(identity, dict) or identity.get("identity_type") != "cuid":
            raise self.refuse(400, "Bad request: exactly one identity of type cuid is needed")
        user = identity.get("identity_value")
        profile, visible_at = self._users.get(user, ({}, 0.0)) if isinstance(user, str) else ({}, 0.0)
        if not profile or visible_at > call.at:
            raise self.refuse(400, "Bad request: identity_value is not a known user")
        self._gdpr_ids.add(request_id)
        answer = {"subject_request_id": request_id, "subject_request_type": kind}
        if kind == "portability":
            return Answer.json(201, {**answer, "userProfile": profile})
        if kind == "erasure":
            self.memory.violation(call.number, f"erasure of user {user} was requested")
            return Answer.json(201, {**answer, "message": "erasure request registered"})
        raise self.refuse(400, "Bad request: unknown subject_request_type")

    def _authorized(self, call: Call) -> dict[str, Any]:
        if call.params["license_code"] != self.credentials["license_code"]:
            raise self.refuse(404, "Invalid license code")
        if call.auth != "ok":
            raise self.refuse(401, "Unauthorized access")
        return self.json_object(call)

    def _bulk(self, call: Call, name: str) -> list[dict[str, Any]]:
        records = self._authorized(call).get(name)
        if not isinstance(records, list) or not 1 <= len(records) <= MAX_BULK:
            raise self.refuse(400, f"Error: {name} must be a list of 1 to {MAX_BULK} objects.")
        if not all(isinstance(record, dict) for record in records):
            raise self.refuse(400, f"Error: {name} must hold objects only.")
        return records

    def _check_identity(self, record: dict[str, Any], where: str) -> None:
        for name in ("userId", "anonymousId"):
            value = record.get(name)
            if value is not None and not isinstance(value, str):
                raise self.refuse(400, f"Error: {where}{name} must be a string.")
            if value and len(value) > MAX_ID_CHARS:
                raise self.refuse(400, f"Error: {where}{name} is longer than {MAX_ID_CHARS} characters.")
        if not record.get("userId") and not record.get("anonymousId"):
            raise self.refuse(400, f"Error: {where}userId and anonymousId cannot be empty.")

    def _check_event(self, event: dict[str, Any], where: str = "") -> None:
        self._check_identity(event, where)
        name, data = event.get("eventName"), event.get("eventData", {})
        if not isinstance(name, str) or not name:
            raise self.refuse(400, f"Error: {where}eventName cannot be empty.")
        if len(name) > MAX_NAME_CHARS:
            raise self.refuse(400, f"Error: {where}eventName is longer than {MAX_NAME_CHARS} characters.")
        if "eventTime" in event:
            self._check_time(event, "eventTime", where)
        self._check_attributes(data, f"{where}eventData")

    def _check_user(self, user: dict[str, Any], where: str = "") -> None:
        self._check_identity(user, where)
        if "birthDate" in user:
            self._check_time(user, "birthDate", where)
        if user.get("gender", "other") not in _GENDERS:
            raise self.refuse(400, f"Error: {where}gender must be one of {', '.join(_GENDERS)}.")
        for name in _OPT_INS:
            if not isinstance(user.get(name, True), bool):
                raise self.refuse(400, f"Error: {where}{name} must be a boolean.")
        if not isinstance(user.get("attributes", {}), dict):
            raise self.refuse(400, f"Error: {where}attributes must be an object.")

    def _check_time(self, record: dict[str, Any], name: str, where: str) -> None:
        text = record[name]
        try:
            if not isinstance(text, str) or not _TIME.fullmatch(text):
                raise ValueError("not yyyy-MM-ddTHH:mm:ss±hhmm")
            datetime.fromisoformat(text)
        except ValueError as error:
            raise self.refuse(400, f"Error: {where}{name}: {error}.") from error

    def _check_attributes(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise self.refuse(400, f"Error: {where} must be an object.")
        for name, value in data.items():
            if len(name) > MAX_NAME_CHARS:
                raise self.refuse(400, f"Error: {where}: a name is longer than {MAX_NAME_CHARS} characters.")
            if isinstance(value, str) and len(value) > MAX_TEXT_CHARS:
                raise self.refuse(400, f"Error: {where}.{name} is longer than {MAX_TEXT_CHARS} characters.")

    def _request_id(self, call: Call) -> tuple[str | None, bool]:
        """The `x-request-id`, and whether it was seen within the window."""
        key = call.headers.get("x-request-id")
        if key is None:
            return None, False
        if not _HEX.fullmatch(key):
            raise self.refuse(400, "Error: x-request-id must be a hex string.")
        digest = hash(call.body)
        known = self._seen_ids.get((call.path, key))
        if known is None or known[0] <= call.at - DEDUPLICATION_SECONDS:
            self._seen_ids[call.path, key] = (call.at, digest)
            return key, False
        if known[1] != digest:
            self.memory.violation(call.number, f"x-request-id {key} was used before for another body")
        return key, True

    def _record(
        self,
        call: Call,
        event: dict[str, Any],
        blob: bytes,
        key: str | None,
        repeated: bool,
    ) -> None:
        call.events += 1
        outcome: Outcome = "accepted"
        notes: tuple[str, ...] = ()
        if repeated:
            outcome = "duplicate"
        elif event["eventName"].startswith("we_"):
            outcome, notes = "ignored", ("eventName begins with we_",)
        elif event["eventName"] in SYSTEM_EVENTS:
            outcome, notes = "ignored", (self.memory.violation(call.number, "eventName is a system event"),)
        else:
            notes = self._ignored_attributes(call, event["eventName"], event.get("eventData", {}))
            self._note_limits(call, event)
        self.memory.record(call.number, blob, outcome, key=key, notes=notes)

    def _ignored_attributes(self, call: Call, event_name: str, data: dict[str, Any]) -> tuple[str, ...]:
        """What the vendor drops without a word; each event name remembers its attributes' types."""
        types = self._types.setdefault(event_name, {})
        notes = []
        for name, value in data.items():
            if name.startswith("we_"):
                notes.append(f"attribute {name} ignored: begins with we_")
            elif value is not None and types.get(name) != (kind := _type_name(value)):
                if name in types:
                    notes.append(f"attribute {name} ignored: was {types[name]}, now {kind}")
                elif Counter(types.values())[kind] == MAX_ATTRIBUTES_OF_A_TYPE:
                    notes.append(f"attribute {name} ignored: {MAX_ATTRIBUTES_OF_A_TYPE} of type {kind} exist")
                else:
                    types[name] = kind
        return tuple(self.memory.violation(call.number, note) for note in notes)

    def _note_limits(self, call: Call, event: dict[str, Any]) -> None:
        data = event.get("eventData", {})
        for what, size, limit in (
            ("eventName", len(event["eventName"]), MAX_NAME_CHARS),
            ("attribute name", max(map(len, data), default=0), MAX_NAME_CHARS),
            ("text", max((len(v) for v in data.values() if isinstance(v, str)), default=0), MAX_TEXT_CHARS),
        ):
            if size == limit:
                self.memory.violation(call.number, f"{what} of {limit} characters: must be less than {limit}")

    def _save_user(self, call: Call, user: dict[str, Any]) -> None:
        if user.get("userId"):
            known, visible_at = self._users.get(user["userId"], ({}, call.at))
            self._users[user["userId"]] = ({**known, **user}, min(visible_at, call.at))


def _type_name(value: Any) -> str:
    names = {bool: "boolean", str: "string", int: "number", float: "number", list: "array", dict: "object"}
    return names[type(value)]


def _queued() -> Answer:
    return Answer.json(201, {"response": {"status": "queued"}})
