"""Vibetrace on loopback.

Where its documents don't say what a refusal looks like:

| case | here |
| --- | --- |
| wrong or missing key | 401 in the documented `errors` envelope |
| unknown user in an event | 404 `User not found`, the answer documented for `/user/{email}` |
| unknown path, such as one with a slash at its end | 404 in the `errors` envelope |
| several types in one event, a type outside the catalogue, a type's required field missing | 400 |
| `POST /user` for an e-mail that exists | 400 |
| an `orderId` seen before | 200 as if created; the event is discarded |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from starlette.routing import Route

from airflow_provider_events.sandbox.api import Answer, Call, Refused, VendorApi
from airflow_provider_events.sandbox.state import Settings

_REQUIRED_FIELDS: Mapping[str, tuple[str, ...]] = {
    "update": (),
    "login": ("email",),
    "generic": ("generic",),
    "confirmation": ("generic",),
    "viewitem": ("itemId",),
    "viewcategory": ("category",),
    "addtocart": ("itemId",),
    "addtowishlist": ("itemId",),
    "search": ("query",),
    "checkout": (),
}
_REQUIRED_INSIDE_GENERIC = {"generic": "event_name", "confirmation": "orderId"}


@dataclass(slots=True)
class User:
    """One user. `visible_at`: seconds since the epoch."""

    attributes: dict[str, Any]
    visible_at: float


class Vibetrace(VendorApi):
    """`/event` and `/user`, with and without `/v1` before them."""

    name = "vibetrace"
    prefixes = ("/event", "/user", "/v1")
    credentials: ClassVar[Mapping[str, str]] = {"api_key": "vt_sandbox_key"}

    def __init__(self, settings: Settings) -> None:
        """Start with no user."""
        super().__init__(settings)
        self._users: list[User] = []
        self._by_identifier: dict[tuple[str, str], User] = {}
        self._orders: set[str] = set()

    def build_routes(self) -> Sequence[Route]:
        """The REST API, version 1."""
        return [
            route
            for base in ("", "/v1")
            for route in (
                Route(f"{base}/event", self.create_event, methods=["POST"]),
                Route(f"{base}/user", self.create_user, methods=["POST"]),
                Route(f"{base}/user/{{email}}", self.get_user, methods=["GET"]),
                Route(f"{base}/user/{{email}}", self.update_user, methods=["PUT"]),
            )
        ]

    def authenticate(self, call: Call) -> str:
        """The key is the whole value of `Authorization`, with no word before it."""
        key = call.headers.get("authorization")
        return "missing" if key is None else "ok" if key == self.credentials["api_key"] else "wrong"

    def refusal(self, status: int, message: str) -> Answer:
        """`{"errors": [{"message", "description"}]}`."""
        return _errors(status, message, message)

    def connection(self, url: str) -> dict[str, Any]:
        """Key as password."""
        key = self.credentials["api_key"]
        return {"conn_type": self.name, "host": url, "login": None, "password": key, "extra": {}}

    def add_entry(self, entry: Mapping[str, Any], visible_at: float) -> None:
        """Add a user by attributes, among them `email`, `_id` or both."""
        user = User({"_id": f"sandbox{len(self._users) + 1:017d}", **entry}, visible_at)
        self._users.append(user)
        for key in ("email", "_id"):
            if key in user.attributes:
                self._by_identifier[key, str(user.attributes[key])] = user

    def count_entries(self) -> int:
        """Users."""
        return len(self._users)

    def create_event(self, call: Call) -> Answer:
        """`POST /event`."""
        self._authorize(call)
        body = self.json_object(call)
        user, event = body.get("user"), body.get("event")
        if not isinstance(user, dict) or not isinstance(event, dict) or not event:
            hint = "Please send event information along with user"
            raise Refused(_errors(400, "Missing event information", hint))
        order = self._checked(event)
        if ("email" in user) == ("_id" in user):
            raise self.refuse(400, "user must be identified by email or by _id")
        key = "email" if "email" in user else "_id"
        call.events = 1
        if not isinstance(user[key], str) or self._find(call, key, user[key]) is None:
            self.memory.record(call.number, call.body, "refused", key=order, notes=("User not found",))
            raise _user_not_found()
        discarded = order is not None and order in self._orders
        if order is not None:
            self._orders.add(order)
        self.memory.record(call.number, call.body, "duplicate" if discarded else "accepted", key=order)
        created = {"message": "Event created", "email": "Event was created for the specified user"}
        return Answer.json(200, {"results": created})

    def get_user(self, call: Call) -> Answer:
        """`GET /user/{email}`."""
        self._authorize(call)
        return Answer.json(200, self._existing(call).attributes)

    def create_user(self, call: Call) -> Answer:
        """`POST /user`."""
        self._authorize(call)
        attributes = self.json_object(call)
        email = attributes.get("email")
        if not isinstance(email, str) or not email:
            raise Refused(_errors(400, "Invalid data format/type", "Error validating user attributes"))
        if self._find(call, "email", email) is not None:
            raise self.refuse(400, "User already exists")
        self.add_entry(attributes, call.at)
        return self._saved("Successfully added new user.", email)

    def update_user(self, call: Call) -> Answer:
        """`PUT /user/{email}`, with `?upsert=true` also for a user who isn't there yet."""
        self._authorize(call)
        attributes = self.json_object(call)
        email = call.params["email"]
        if self._find(call, "email", email) is None and call.query.get("upsert") == "true":
            self.add_entry({**attributes, "email": email}, call.at)
            return self._saved("Successfully added new user.", email)
        self._existing(call).attributes.update(attributes)
        return self._saved("Successfully updated user.", email)

    def _authorize(self, call: Call) -> None:
        if call.auth != "ok":
            raise self.refuse(401, "Unauthorized")

    def _checked(self, event: dict[str, Any]) -> str | None:
        """Refuse an event that isn't of the catalogue's form; returns the `orderId` of a confirmation."""
        if len(event) != 1:
            raise self.refuse(400, "event must have exactly one key, its type")
        ((kind, value),) = event.items()
        if kind not in _REQUIRED_FIELDS or not isinstance(value, dict):
            raise self.refuse(400, f"{kind} is not an event type with an object of attributes")
        for name in _REQUIRED_FIELDS[kind]:
            if not value.get(name):
                raise self.refuse(400, f"{kind}.{name} is missing")
        inside = _REQUIRED_INSIDE_GENERIC.get(kind)
        if inside is None:
            return None
        generic = value["generic"]
        if not isinstance(generic, dict) or not isinstance(generic.get(inside), str) or not generic[inside]:
            raise self.refuse(400, f"{kind}.generic.{inside} must be a string")
        return str(generic["orderId"]) if kind == "confirmation" else None

    def _find(self, call: Call, key: str, value: str) -> User | None:
        user = self._by_identifier.get((key, value))
        return None if user is None or user.visible_at > call.at else user

    def _existing(self, call: Call) -> User:
        user = self._find(call, "email", call.params["email"])
        if user is None:
            raise _user_not_found()
        return user

    def _saved(self, message: str, email: str) -> Answer:
        state = self._by_identifier["email", email].attributes
        return Answer.json(200, {"results": [{"message": message, "email": email}], "object": state})


def _errors(status: int, message: str, description: str) -> Answer:
    return Answer.json(status, {"errors": [{"message": message, "description": description}]})


def _user_not_found() -> Refused:
    return Refused(_errors(404, "User not found", "This email does not exist in our database."))
