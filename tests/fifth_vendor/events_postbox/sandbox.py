"""Postbox on loopback, for `Sandbox(vendors=[PostboxApi])`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import orjson
from starlette.routing import Route

from airflow_provider_events.sandbox.api import Answer, Call, VendorApi
from airflow_provider_events.sandbox.state import Settings

__all__ = ["PostboxApi"]


class PostboxApi(VendorApi):
    """One box, `/postbox/main`."""

    name = "postbox"
    prefixes = ("/postbox",)
    credentials: ClassVar[Mapping[str, str]] = {"api_key": "pb_sandbox_key"}

    def __init__(self, settings: Settings) -> None:
        """Start with nobody."""
        super().__init__(settings)
        self._people: dict[str, float] = {}

    def build_routes(self) -> Sequence[Route]:
        """Notes, people, and the box itself."""
        return [
            Route("/postbox/main/notes", self.take, methods=["POST"]),
            Route("/postbox/main/people/{person}", self.person, methods=["GET"]),
            Route("/postbox/main", self.box, methods=["GET"]),
        ]

    def authenticate(self, call: Call) -> str:
        """`X-Postbox-Key`."""
        key = call.headers.get("x-postbox-key")
        return "missing" if key is None else "ok" if key == self.credentials["api_key"] else "wrong"

    def refusal(self, status: int, message: str) -> Answer:
        """`{"error": message}`."""
        return Answer.json(status, {"error": message})

    def connection(self, url: str) -> dict[str, Any]:
        """Key as password, box in the extra."""
        key = self.credentials["api_key"]
        return {"conn_type": self.name, "host": url, "login": None, "password": key, "extra": {"box": "main"}}

    def add_entry(self, entry: Mapping[str, Any], visible_at: float) -> None:
        """Add a `person`."""
        self._people[str(entry["person"])] = visible_at

    def count_entries(self) -> int:
        """People."""
        return len(self._people)

    def take(self, call: Call) -> Answer:
        """`POST …/notes`."""
        self._authorize(call)
        notes = orjson.loads(call.body)
        call.events = len(notes)
        if len(notes) > 10:
            raise self.refuse(400, "more than ten notes")
        return Answer.json(200, {"results": [self._taken(call, note) for note in notes]})

    def person(self, call: Call) -> Answer:
        """`GET …/people/{person}`."""
        self._authorize(call)
        if not self._knows(call, call.params["person"]):
            raise self.refuse(404, "nobody")
        return Answer.json(200, {"person": call.params["person"]})

    def box(self, call: Call) -> Answer:
        """`GET /postbox/main`."""
        self._authorize(call)
        return Answer.json(200, {"box": "main"})

    def _authorize(self, call: Call) -> None:
        if call.auth != "ok":
            raise self.refuse(401, "who are you?")

    def _knows(self, call: Call, person: str) -> bool:
        return self._people.get(person, call.at + 1) <= call.at

    def _taken(self, call: Call, note: dict[str, Any]) -> str:
        known = self._knows(call, note["person"])
        self.memory.record(call.number, orjson.dumps(note), "accepted" if known else "refused")
        return "ok" if known else "nobody"
