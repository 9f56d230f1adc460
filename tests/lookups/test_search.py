"""How each vendor is asked whether an entry exists, and what its answers mean."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import airflow_provider_events
from airflow_provider_events.contract import Verdict
from airflow_provider_events.exceptions import (
    ConfigurationError,
    CredentialsRefused,
    EndpointRefused,
    EventsError,
    InvalidEvent,
    RateLimited,
    VendorUnavailable,
)
from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.lookups.listing import Place
from airflow_provider_events.lookups.search import Identity, Progress, Search
from airflow_provider_events.sandbox import Sandbox
from tests.entries.vendors import PROFILE, VENDORS, add, connection, identity, lookups
from tests.vendors.wires import HTML, answer, parsed, vendor

Connect = Callable[..., EventsHook]


@pytest.fixture
def connect(events_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """A hook of a vendor of the sandbox; connection fields may be changed."""

    def made(name: str, **changes: Any) -> EventsHook:
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}_DEFAULT", connection(events_sandbox, name, **changes))
        return EventsHook.for_connection(f"{name}_default")

    return made


# -- requests ----------------------------------------------------------------------------------------------------------


def test_vibetrace_percent_encodes_the_email() -> None:
    request = vendor("vibetrace").lookup({"email": "a+b/c?d@example.com"})
    assert request is not None
    assert (request.method, request.path, request.body) == ("GET", "/user/a%2Bb%2Fc%3Fd%40example.com", None)


def test_bloomreach_exports_one_customer_or_one_event() -> None:
    private = connected_bloomreach()
    exported = private.lookup({"registered": "c-1", "cookie": 7})
    assert exported.path.endswith("/data/v2/projects/given_project_token/customers/export-one")
    assert parsed(exported) == {"customer_ids": {"registered": "c-1", "cookie": "7"}}
    listed = connected_bloomreach(lookup_event_type="purchase").lookup({"registered": "c-1"})
    assert listed.path.endswith("/data/v2/projects/given_project_token/customers/events")
    assert parsed(listed)["event_types"] == ["purchase"]
    assert parsed(listed)["limit"] == 1


def connected_bloomreach(**extra: Any) -> Any:
    from airflow_provider_events.vendors.bloomreach import Bloomreach
    from tests.vendors.wires import values_for

    values = values_for(Bloomreach, login="key-id")
    return Bloomreach(values_for(Bloomreach, login="key-id", extra={**values.extra, **extra}))


def test_bloomreach_with_a_public_token_refuses_in_words() -> None:
    with pytest.raises(ConfigurationError, match=r"private access.*API key ID"):
        vendor("bloomreach").lookup({"registered": "c-1"})


def test_webengage_refuses_in_words() -> None:
    with pytest.raises(ConfigurationError, match=r"documents no way.*existence_check.*portability"):
        vendor("webengage").lookup({"userId": "u"})


@given(st.text(min_size=1, max_size=100))
def test_webengage_asks_for_portability_and_for_nothing_else(user: str) -> None:
    chosen = vendor("webengage", existence_check="portability")
    first, second = chosen.lookup({"userId": user}), chosen.lookup({"userId": user})
    assert first is not None
    assert second is not None
    body = parsed(first)
    assert body.pop("subject_request_id") != parsed(second)["subject_request_id"]
    assert body == {
        "subject_request_type": "portability",
        "subject_identities": [{"identity_type": "cuid", "identity_value": user}],
    }


def test_no_code_path_can_ask_for_an_erasure() -> None:
    """The word is in no string of the package but the sandbox's, and the request's kind is a constant."""
    package = Path(airflow_provider_events.__file__).parent
    kinds = []
    for path in package.rglob("*.py"):
        if "sandbox" in path.parts:
            continue
        tree = ast.parse(path.read_text())
        constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        texts = [constant for constant in constants if isinstance(constant, str)]
        assert not [text for text in texts if "erasure" in text.lower()], path
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                for name, value in zip(node.keys, node.values, strict=True):
                    if isinstance(name, ast.Constant) and name.value == "subject_request_type":
                        kinds.append(value)
        mentions = [text for text in texts if text == "subject_request_type"]
        assert len(mentions) == (path == package / "vendors" / "webengage.py"), path
    [only] = kinds
    assert isinstance(only, ast.Constant)
    assert only.value == "portability"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("embeddables", {"embeddable_id": "flow_1"}),
        ("embeddables", {"email": "a@b.c", "phone": "1", "embeddable_id": "flow_1"}),
        ("embeddables", {"email": "a@b.c"}),  # and no embeddable, neither here nor in the connection
        ("embeddables", {"entry_id": "entry_1", "email": "a@b.c"}),
        ("vibetrace", {"_id": "1"}),
        ("vibetrace", {"email": ".."}),
        ("vibetrace", {"email": "a@b.c", "_id": "1"}),
        ("webengage", {"anonymousId": "1"}),
        ("webengage", {"userId": "u" * 101}),
    ],
)
def test_identities_that_cannot_be_asked_for(name: str, wrong: dict[str, Any]) -> None:
    chosen = vendor(name, **({"existence_check": "portability"} if name == "webengage" else {}))
    with pytest.raises(InvalidEvent, match="identity"):
        chosen.lookup(wrong)


# -- answers -----------------------------------------------------------------------------------------------------------

FLAT = {"ids": {"registered": "test"}, "properties": {"first_name": PROFILE}, "events": [], "success": True}
MISSING_CUSTOMER = {"errors": {"_global": ["Customer does not exist"]}, "success": False}
NO_USER = {"errors": [{"message": "User not found", "description": "This email does not exist in our database."}]}
ENTRY = {"entry_id": "entry_1", "embeddable_id": "flow_1", "entry_data": json.dumps({"city": PROFILE})}
NO_ENTRY = {"error": {"code": "ENTRY_NOT_FOUND", "message": "The entry does not exist"}}
F, M, R, X = Verdict.FOUND, Verdict.MISSING, Verdict.RETRY, Verdict.FATAL


@pytest.mark.parametrize(
    ("name", "status", "body", "verdict"),
    [
        ("bloomreach", 200, FLAT, F),
        ("bloomreach", 200, {"success": True, "value": {"ids": {}, "properties": {}}}, F),
        ("bloomreach", 200, {"success": True, "data": []}, F),
        ("bloomreach", 404, MISSING_CUSTOMER, M),
        ("bloomreach", 200, MISSING_CUSTOMER, M),
        ("bloomreach", 404, {"errors": {"code": 404, "description": "The requested URL was not found"}}, X),
        ("bloomreach", 404, HTML, X),
        ("bloomreach", 403, {"errors": {"_global": ["No permission to export customer"]}, "success": False}, X),
        ("bloomreach", 400, {"success": False, "error": "Could not authenticate"}, X),
        ("bloomreach", 200, HTML, R),
        ("bloomreach", 200, b'{"ids": {}, "events": [' + b"1," * 500_000, F),  # cut off: only a profile is so long
        ("bloomreach", 200, b'"' + b"x" * 1_048_575, R),
        ("bloomreach", 500, FLAT, R),
        ("vibetrace", 200, {"email": "a@b.c", "city": PROFILE}, F),
        ("vibetrace", 404, NO_USER, M),
        ("vibetrace", 404, HTML, X),
        ("vibetrace", 200, {}, R),
        ("vibetrace", 200, [], R),
        ("vibetrace", 200, b"", R),
        ("vibetrace", 200, {"results": {"message": "Event created"}}, R),
        ("vibetrace", 200, {"message": "User not found"}, R),
        ("vibetrace", 200, {"success": False}, R),
        ("vibetrace", 200, {"email": None, "city": PROFILE}, R),
        ("vibetrace", 200, {"results": {"email": "Event was created for the specified user"}}, R),
        ("vibetrace", 401, {}, X),
        ("webengage", 201, {"subject_request_id": "1", "userProfile": {"city": PROFILE}}, F),
        ("webengage", 400, {"response": {"message": "not a known user", "status": "error"}}, M),
        ("webengage", 400, {"response": {"message": "Invalid license code", "status": "error"}}, X),
        ("webengage", 400, {"response": {"message": "Rate exceeded", "status": "error"}}, R),
        ("webengage", 400, {"response": {"message": "Malformed JSON", "status": "error"}}, Verdict.REJECTED),
        ("webengage", 400, {}, Verdict.REJECTED),
        ("webengage", 400, HTML, Verdict.REJECTED),
        ("webengage", 404, {"response": {"message": "Invalid URL", "status": "error"}}, X),
        ("webengage", 401, {}, X),
        ("webengage", 201, {}, R),
        ("embeddables", 200, ENTRY, F),
        ("embeddables", 404, NO_ENTRY, M),
        ("embeddables", 404, {"error": {"code": "not_found"}}, X),
        ("embeddables", 401, {"error": {"code": "unauthorized"}}, X),
        ("embeddables", 200, {}, R),
    ],
)
def test_answers(name: str, status: int, body: Any, verdict: Verdict) -> None:
    outcome = vendor(name).read_lookup(answer(status, body))
    assert outcome.verdict is verdict
    assert PROFILE not in repr(outcome)


# -- searching ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VENDORS)
def test_each_identity_gets_its_answer(name: str, events_sandbox: Sandbox, connect: Connect) -> None:
    add(events_sandbox, name, ["a", "b"])
    asked = [identity(name, who) for who in "axbya"]
    assert connect(name).lookup(asked) == [True, False, True, False, True]


@pytest.mark.parametrize("name", VENDORS)
def test_on_an_event_loop(name: str, events_sandbox: Sandbox, connect: Connect) -> None:
    import asyncio

    add(events_sandbox, name, ["a"])
    connect(name)

    async def ask() -> list[bool]:
        hook = await EventsHook.afor_connection(f"{name}_default")
        return [await hook.aentry_exists(identity(name, "a")), await hook.aentry_exists(identity(name, "b"))]

    assert asyncio.run(ask()) == [True, False]


@pytest.mark.parametrize("name", VENDORS)
def test_profiles_are_in_no_log_and_no_error(
    name: str, events_sandbox: Sandbox, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    add(events_sandbox, name, ["a"])
    hook = connect(name)
    assert hook.entry_exists(identity(name, "a"))
    events_sandbox.fault("status", vendor=name, status=401, body=json.dumps({"message": PROFILE, "city": PROFILE}))
    with pytest.raises(CredentialsRefused) as caught:
        hook.entry_exists(identity(name, "a"))
    assert PROFILE not in caplog.text
    if name != "bloomreach":  # whose own words are its `message`: they are told
        assert PROFILE not in str(caught.value)


def test_embeddables_by_entry_id(events_sandbox: Sandbox, connect: Connect) -> None:
    events_sandbox.add_entries("embeddables", [{"entry_id": "entry_7", "email": "a@b.c"}])
    hook = connect("embeddables")
    assert hook.lookup([{"entry_id": "entry_7"}, {"entry_id": "entry_8"}, {"email": "a@b.c"}]) == [True, False, True]


def test_embeddables_tells_embeddables_and_types_apart(events_sandbox: Sandbox, connect: Connect) -> None:
    events_sandbox.add_entries("embeddables", [{"embeddable_id": "flow_2", "phone": 123, "flag": True}])
    hook = connect("embeddables")
    other = {"embeddable_id": "flow_2"}
    asked: list[Identity] = [{"phone": 123}, {"phone": 123, **other}, {"phone": "123", **other}, {"flag": 1, **other}]
    assert hook.lookup(asked) == [False, True, False, False]


@pytest.mark.parametrize("count", [5, 99, 100, 101, 1000])
def test_embeddables_pages_through_all_entries(count: int, events_sandbox: Sandbox, connect: Connect) -> None:
    for n in range(count):
        add(events_sandbox, "embeddables", [f"c{n}"], appears_after=-600 + n / 2)
    hook = connect("embeddables")
    assert all(hook.lookup([identity("embeddables", f"c{n}") for n in range(count)]))
    assert not hook.entry_exists(identity("embeddables", "x"))
    paths = [request.path for request in events_sandbox.requests("embeddables")]
    assert len(paths) < 2 * (count / 95 + 4)


def test_embeddables_finds_entries_of_one_moment(events_sandbox: Sandbox, connect: Connect) -> None:
    add(events_sandbox, "embeddables", [f"c{n}" for n in range(1000)])
    assert all(connect("embeddables").lookup([identity("embeddables", f"c{n}") for n in range(1000)]))


def test_embeddables_pages_that_are_too_long_are_made_shorter(events_sandbox: Sandbox, connect: Connect) -> None:
    events_sandbox.add_entries("embeddables", [{"email": f"c{n}@example.com", "x": "x" * 40_000} for n in range(60)])
    api: Any = events_sandbox._vendors.apis["embeddables"]
    for n in range(60):
        api._entries[f"entry_sandbox_{n + 1}"].visible_at -= n
    assert all(connect("embeddables").lookup([identity("embeddables", f"c{n}") for n in range(60)]))


def test_embeddables_searches_no_further_than_its_window(events_sandbox: Sandbox, connect: Connect) -> None:
    add(events_sandbox, "embeddables", ["old"], appears_after=-3 * 86400)
    asked = identity("embeddables", "old")
    assert connect("embeddables").entry_exists(asked)
    assert not connect("embeddables", extra={"lookup_days": 2}).entry_exists(asked)


@pytest.mark.parametrize("error", [(401, CredentialsRefused), (404, EndpointRefused)])
def test_refusals_end_the_search_after_the_requests_in_flight(
    error: tuple[int, type[EventsError]], events_sandbox: Sandbox, connect: Connect
) -> None:
    events_sandbox.fault("html", vendor="vibetrace", status=error[0])
    with pytest.raises(error[1], match="vibetrace_default"):
        connect("vibetrace").lookup([identity("vibetrace", f"c{n}") for n in range(500)])
    assert lookups(events_sandbox, "vibetrace") <= 16


def test_a_long_pause_is_left_to_airflow(events_sandbox: Sandbox, connect: Connect) -> None:
    events_sandbox.fault("status", vendor="vibetrace", status=429, retry_after=3600)
    with pytest.raises(RateLimited) as caught:
        connect("vibetrace").entry_exists(identity("vibetrace", "a"))
    assert caught.value.retry_after == 3600


def test_the_quota_of_the_connection_is_kept(events_sandbox: Sandbox, connect: Connect) -> None:
    add(events_sandbox, "vibetrace", [f"c{n}" for n in range(10)])
    hook = connect("vibetrace", extra={"requests_per_minute": 600, "max_in_flight": 2})
    assert all(hook.lookup([identity("vibetrace", f"c{n}") for n in range(10)]))
    times = [request.at for request in events_sandbox.requests("vibetrace")]
    assert times[-1] - times[0] > 0.85


# -- progress ----------------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 2000)), st.booleans())
def test_progress_survives_packing(found: set[int], timed: bool) -> None:
    from datetime import UTC, datetime

    progress = Progress(2001, "f", found, Place(datetime(2026, 3, 1, tzinfo=UTC)) if timed else Place())
    packed = json.loads(json.dumps(progress.pack()))
    assert Progress.unpack(packed) == progress


def test_progress_is_small_and_holds_nobody() -> None:
    search = Search([{"email": f"customer{n}@example.com"} for n in range(100_000)])
    search.progress.found.update(range(0, 100_000, 3))
    packed = json.dumps(search.progress.pack())
    assert len(packed) < 20_000
    assert "example" not in packed


def test_progress_of_another_list_is_not_taken() -> None:
    search = Search([{"email": "a"}, {"email": "b"}])
    search.progress.found.add(0)
    assert Search([{"email": "a"}, {"email": "b"}], progress=search.progress.pack()).exist() == [True, False]
    assert Search([{"email": "b"}, {"email": "a"}], progress=search.progress.pack()).exist() == [False, False]


def test_an_outage_is_no_absence(events_sandbox: Sandbox, connect: Connect) -> None:
    from airflow_provider_events.delivery.pacing import RetryPolicy

    add(events_sandbox, "vibetrace", ["a"])
    for fault in ("status", "cut", "html", "empty", "truncated", "wrong_type"):
        events_sandbox.clear_faults()
        events_sandbox.fault(fault, vendor="vibetrace")
        hook = connect("vibetrace")
        hook.retry_policy = RetryPolicy(budget_seconds=0.2, base_seconds=0.05)
        with pytest.raises(VendorUnavailable):
            hook.entry_exists(identity("vibetrace", "a"))


def test_a_search_takes_little_memory_for_each_identity() -> None:
    import tracemalloc

    identities = [{"email": f"customer{n}@example.com"} for n in range(20_000)]
    tracemalloc.start()
    try:
        search = Search(identities)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert search.different == 20_000
    assert taken < 200 * 20_000


def test_resident_memory_for_each_identity_is_bounded() -> None:
    """In a process of its own: the buffers behind a serialized text are seen by no tracer."""
    import subprocess
    import sys

    code = """
from airflow_provider_events.lookups.search import Search
from pathlib import Path
def resident(): return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
identities = [{"email": f"customer{n}@example.com"} for n in range(100_000)]
before = resident()
search = Search(identities)
print((resident() - before) // 100_000)
"""
    taken = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(taken) < 400
