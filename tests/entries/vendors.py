"""What the tests of entries know of the four vendors."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from airflow_provider_events.sandbox import Sandbox
from tests.conftest import IDENTITY_KEYS

VENDORS = list(IDENTITY_KEYS)
PROFILE = "PROFILE-3f1c"  # in every profile, and nowhere else: what must never be seen again

# Look-ups through WebEngage are 0.6 s apart: 100 GDPR requests per minute.


def identity(vendor: str, name: str) -> dict[str, str]:
    """The customer `name` in the vendor's own key."""
    return {IDENTITY_KEYS[vendor]: f"{name}@example.com"}


def entry(vendor: str, name: str) -> dict[str, Any]:
    """The customer with a profile that must not be seen."""
    if vendor == "bloomreach":  # the sandbox takes ids only; they are all part of what is exported
        return {**identity(vendor, name), "cookie": f"{PROFILE}-{name}"}
    return {**identity(vendor, name), "city": PROFILE}


def add(sandbox: Sandbox, vendor: str, names: Iterable[str], *, appears_after: float = 0.0) -> None:
    """Make customers known."""
    sandbox.add_entries(vendor, [entry(vendor, name) for name in names], appears_after=appears_after)


def connection(sandbox: Sandbox, vendor: str, **changes: Any) -> str:
    """The connection in which look-ups are allowed, as an environment variable holds it."""
    values = sandbox.connection(vendor)
    if vendor == "webengage":
        values["extra"]["existence_check"] = "portability"
    values["extra"] |= changes.pop("extra", {})
    return json.dumps({**values, **changes})


def lookups(sandbox: Sandbox, vendor: str) -> int:
    """How many look-ups arrived."""
    return len(sandbox.requests(vendor))
