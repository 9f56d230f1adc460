"""Bloomreach Engagement, held to its documents: single events and batches, results command by command, sizes."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_events.contract import EventColumns, Outcome, Verdict
from airflow_provider_events.events import Event
from airflow_provider_events.exceptions import InvalidEvent
from airflow_provider_events.vendors.base import ConnectionValues
from airflow_provider_events.vendors.bloomreach import Bloomreach
from tests.vendors.wires import HTML, T, answer, examples, one, parsed, sent

TRACK = "/track/v2/projects/project-token"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
KEBOOLA_EVENT = Event(
    "testing_event",
    {"registered": "milan@test.com"},
    EPOCH + timedelta(seconds=123456, milliseconds=780),
    {"price": 150, "test": "a"},
)
KEBOOLA = {
    "customer_ids": {"registered": "milan@test.com"},
    "properties": {"price": 150, "test": "a"},
    "timestamp": 123456.78,
    "event_type": "testing_event",
}
DELIVERED, REJECTED, RETRY, REFUSED, MISSING = (
    Verdict.DELIVERED,
    Verdict.REJECTED,
    Verdict.RETRY,
    Verdict.FATAL,
    Verdict.MISSING,
)


def bloomreach(login: str | None = "key-id", **fields: Any) -> Bloomreach:
    extra = {"project_token": "project-token"}
    return Bloomreach(ConnectionValues("c", **{"login": login, "password": "secret", "extra": extra, **fields}))


def event(**changes: Any) -> Event:
    return Event(**{"name": "purchase", "identity": {"registered": "c-1"}, "timestamp": T, **changes})


def body(**changes: Any) -> Any:
    return parsed(sent(bloomreach(), event(**changes)))


def refused(**changes: Any) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as refusal:
        bloomreach().encode(event(**changes))
    return refusal.value


# -- requests ----------------------------------------------------------------------------------------------------------


def test_the_documented_single_event() -> None:
    request = sent(bloomreach(), KEBOOLA_EVENT)
    assert (request.method, request.path) == ("POST", f"{TRACK}/customers/events")
    assert parsed(request) == KEBOOLA


def test_the_documented_batch() -> None:
    request = sent(bloomreach(), KEBOOLA_EVENT, KEBOOLA_EVENT)
    assert (request.method, request.path) == ("POST", f"{TRACK}/batch")
    assert parsed(request) == {
        "commands": [
            {"name": "customers/events", "command_id": "0", "data": KEBOOLA},
            {"name": "customers/events", "command_id": "1", "data": KEBOOLA},
        ]
    }


def test_each_of_50_commands_has_an_id_of_its_own() -> None:
    commands = parsed(sent(bloomreach(), *[event(identity={"registered": f"c-{n}"}) for n in range(50)]))["commands"]
    assert [command["command_id"] for command in commands] == [str(n) for n in range(50)]
    assert [command["data"]["customer_ids"]["registered"] for command in commands] == [f"c-{n}" for n in range(50)]
    assert Bloomreach.max_batch_size == 50


def test_more_events_than_fit_are_never_cut_off_in_silence() -> None:
    fragments = [bloomreach().encode(event())] * 51
    try:
        request = bloomreach().request(fragments)
    except ValueError:
        return
    assert len(parsed(request)["commands"]) == 51


def test_private_access_by_key_id_and_secret() -> None:
    scheme, _, pair = bloomreach().headers()["Authorization"].partition(" ")
    assert (scheme, b64decode(pair)) == ("Basic", b"key-id:secret")


@pytest.mark.parametrize("login", [None, "", "  "])
def test_public_access_by_token(login: str | None) -> None:
    token = "0123456789abcdef"
    assert bloomreach(login, password=token).headers() == {"Authorization": f"Token {token}"}


def test_quota_and_default_instance() -> None:
    assert [bloomreach().quota(size) for size in (1, 50)] == [6000, 6000]
    assert bloomreach().base_url == "https://api.exponea.com"
    assert bloomreach(host="https://api-cis.exponea.com/").base_url == "https://api-cis.exponea.com"


def test_bodies_are_not_compressed() -> None:
    assert sent(bloomreach(), event()).headers is None


# -- fields ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        (EPOCH, 0),
        (datetime(2023, 4, 14, 14, 57, 27, tzinfo=UTC), 1681484247),
        (datetime(2018, 8, 5, 18, 59, 4, 343536, UTC), 1533495544.343536),
        (datetime(2018, 8, 5, 20, 59, 4, 343536, timezone(timedelta(hours=2))), 1533495544.343536),
        (datetime(1969, 12, 31, 23, 59, 59, 500000, UTC), -0.5),
        (datetime(2100, 1, 1, 0, 0, 0, 1, UTC), 4102444800.000001),
    ],
)
def test_timestamps_are_seconds_with_their_microseconds(moment: datetime, seconds: float) -> None:
    assert body(timestamp=moment)["timestamp"] == seconds


def test_an_event_without_a_time_sends_no_null() -> None:
    assert "timestamp" not in body(timestamp=None)
    assert "age" not in body(timestamp=None)


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "together"])
def test_a_warning_says_once_that_consents_are_never_deduplicated(
    together: bool, caplog: pytest.LogCaptureFixture
) -> None:
    vendor = bloomreach()
    contents = [vendor.content(event(name=name)) for name in ("purchase", "consent", "consent")]
    if together:
        columns = zip(*contents, strict=True)
        next(columns)
        vendor.encode_columns(EventColumns(vendor.conn_type, *map(list, columns)))
    else:
        for content in contents:
            vendor.encode_content(content)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "a second consent" in said


def test_other_events_need_no_such_warning(caplog: pytest.LogCaptureFixture) -> None:
    bloomreach().encode(event(name="consents"))
    assert not caplog.records


def test_properties_are_always_an_object() -> None:
    assert body()["properties"] == {}


@pytest.mark.parametrize(
    ("identity", "customer_ids"),
    [
        ({"registered": "c-1", "cookie": "k-1"}, {"registered": "c-1", "cookie": "k-1"}),
        ({"city_account_id": 42}, {"city_account_id": "42"}),
        ({"registered": "nullable"}, {"registered": "nullable"}),
        ({"registered": "日本"}, {"registered": "日本"}),
    ],
)
def test_ids_have_the_names_of_the_project(identity: dict[str, Any], customer_ids: dict[str, str]) -> None:
    assert body(identity=identity)["customer_ids"] == customer_ids


@pytest.mark.parametrize("value", ["null", "NULL", "undefined", "Undefined", "-", "@.", "--- ---"])
def test_ids_that_name_nobody_are_refused(value: str) -> None:
    assert refused(identity={"registered": "c-1", "cookie": value}).field == "identity.cookie"


def test_a_property_has_to_stay_below_16_kilobytes() -> None:
    fits = "x" * (15_999 - len('""'))
    assert body(properties={"note": fits})["properties"]["note"] == fits
    refusal = refused(properties={"small": 1, "note": fits + "x"})
    assert (refusal.field, "xxx" in refusal.reason) == ("properties.note", False)


@pytest.mark.parametrize(
    "value", ["ü" * 8_000, ["x" * 10_000, "y" * 10_000], {"k" * 16_000: 1}], ids=["bytes", "list", "key"]
)
def test_properties_are_measured_as_they_travel(value: Any) -> None:
    assert refused(properties={"note": value}).field == "properties.note"


def test_an_event_has_to_stay_below_800_kilobytes() -> None:
    properties = {f"p{n:04d}": "x" * 15_000 for n in range(53)}
    rest = 799_999 - len(bloomreach().encode(event(properties={**properties, "rest": ""})))
    assert len(bloomreach().encode(event(properties={**properties, "rest": "x" * rest}))) == 799_999
    assert refused(properties={**properties, "rest": "x" * (rest + 1)}).field == "event"


# -- answers to single events ------------------------------------------------------------------------------------------

NO_ID = "At least one id should be specified."

SINGLE: list[tuple[str, int, Any, Verdict, str]] = [
    ("stored", 200, {"errors": [], "success": True}, DELIVERED, ""),
    ("success alone", 200, {"success": True}, DELIVERED, ""),
    ("no id, 200", 200, {"success": False, "errors": [NO_ID]}, REJECTED, NO_ID),
    ("no id, 400", 400, {"success": False, "errors": [NO_ID]}, REJECTED, NO_ID),
    ("errors as text", 200, {"success": False, "errors": "Field project_id is required"}, REJECTED, "Field project_id"),
    ("bad id", 200, {"success": False, "errors": ["Invalid customer_id"]}, REJECTED, "Invalid customer_id"),
    (
        "no valid id",
        200,
        {"success": False, "errors": ["At least one valid id should be specified"]},
        REJECTED,
        "valid id",
    ),
    (
        "type not allowed",
        200,
        {"success": False, "errors": ["Not authorized to add event of specified type"]},
        REJECTED,
        "Not authorized to add event of specified type",
    ),
    (
        "property not allowed",
        200,
        {"errors": ["not authorized to update specified customer properties"], "success": False},
        REJECTED,
        "not authorized",
    ),
    ("two errors", 200, {"success": False, "errors": ["first why", "second why"]}, REJECTED, "first why; second why"),
    ("wrong token", 400, {"success": False, "error": "Could not authenticate"}, REFUSED, "Could not authenticate"),
    ("bad project", 400, {"success": False, "error": "Invalid project id"}, REFUSED, "Invalid project id"),
    ("bad key id", 401, {"error": "access key not found", "success": False}, REFUSED, "access key not found"),
    ("bad key id, 200", 200, {"error": "access key not found", "success": False}, REFUSED, "access key not found"),
    ("bad secret", 403, {"success": False, "error": "invalid secret"}, REFUSED, "invalid secret"),
    ("bad secret, page", 403, b"invalid secret", REFUSED, ""),
    ("no permission", 403, {"success": False, "errors": {"_global": ["No permission"]}}, REFUSED, "No permission"),
    ("invalid json", 400, {"success": False, "message": "Invalid JSON"}, REJECTED, "Invalid JSON"),
    ("bad request page", 400, b"BadRequest: The browser (or proxy) sent a request", REJECTED, ""),
    (
        "wrong path",
        404,
        {"errors": {"code": 404, "description": "The requested URL was not found on the server"}},
        REFUSED,
        "The requested URL was not found",
    ),
    (
        "wrong path, message",
        404,
        {"success": False, "errors": {"code": "NotFoundError", "message": "The requested resource was not found."}},
        REFUSED,
        "The requested resource was not found.",
    ),
    ("wrong path, page", 404, HTML, REFUSED, ""),
    ("no customer, 404", 404, {"errors": {"_global": ["Customer does not exist"]}, "success": False}, MISSING, "exist"),
    ("no customer, 200", 200, {"errors": {"_global": ["Customer does not exist"]}, "success": False}, MISSING, "exist"),
    ("dropped", 429, b"", RETRY, ""),
    ("dropped, in words", 429, {"success": False, "errors": ["rate limit"]}, RETRY, "rate limit"),
    ("unavailable", 500, {"success": False, "errors": ["down"]}, RETRY, "down"),
    ("success as text", 200, {"success": "true"}, RETRY, ""),
    ("success as number", 200, {"success": 1}, RETRY, ""),
    ("success null", 200, {"success": None}, RETRY, ""),
    ("in a list", 200, [{"success": True}], RETRY, ""),
    ("cut off", 200, b'{"errors": [], "success": true', RETRY, ""),
    ("created", 201, {"success": True}, RETRY, ""),
    ("400 that says success", 400, {"success": True}, REJECTED, ""),
    ("500 that says success", 500, {"success": True}, RETRY, ""),
    ("errors of numbers", 200, {"success": False, "errors": [1, None, {}]}, REJECTED, ""),
]


@pytest.mark.parametrize(
    ("status", "said", "verdict", "reason"), [row[1:] for row in SINGLE], ids=[r[0] for r in SINGLE]
)
def test_answers_to_single_events(status: int, said: Any, verdict: Verdict, reason: str) -> None:
    outcome = one(bloomreach().read(answer(status, said), 1))
    assert outcome.verdict is verdict
    assert reason in outcome.reason


# -- answers to batches ------------------------------------------------------------------------------------------------


def read(results: Any, count: int, status: int = 200, success: Any = True) -> list[Outcome]:
    said = {"results": results, "start_time": 1722458972.7475243, "end_time": 1722458972.7502902, "success": success}
    reading = bloomreach().read(answer(status, said), count)
    outcomes = reading if isinstance(reading, list) else [reading] * count
    assert len(outcomes) == count
    return outcomes


def verdicts(results: Any, count: int) -> list[Verdict]:
    return [outcome.verdict for outcome in read(results, count)]


def test_batch_success_hides_no_failed_command() -> None:
    good, bad = read([{"success": True}, {"success": False, "errors": [NO_ID]}], 2)
    assert good.verdict is DELIVERED
    assert (bad.verdict, bad.reason) == (REJECTED, NO_ID)


def ok(command_id: Any) -> dict[str, Any]:
    return {"success": True, "command_id": command_id}


def failed(command_id: Any) -> dict[str, Any]:
    return {"success": False, "errors": ["no"], "command_id": command_id}


RESULTS: list[tuple[str, Any, list[Verdict]]] = [
    ("by position", [{"success": True}, {"success": False, "errors": ["no"]}], [DELIVERED, REJECTED]),
    ("by id", [ok("0"), failed("1")], [DELIVERED, REJECTED]),
    ("by id in another order", [failed("1"), ok("0")], [DELIVERED, REJECTED]),
    ("time beside success", [{"success": True, "time": 1533833360.2316685}, {"success": True}], [DELIVERED, DELIVERED]),
    ("none", [], [RETRY, RETRY]),
    ("missing", None, [RETRY, RETRY]),
    ("as object", {"0": {"success": True}}, [RETRY, RETRY]),
    ("as text", "success", [RETRY, RETRY]),
    ("too few by position", [{"success": True}], [RETRY, RETRY]),
    ("too many by position", [{"success": True}] * 3, [RETRY, RETRY]),
    ("too few by id", [ok("1")], [RETRY, DELIVERED]),
    ("an id of no command", [ok("0"), ok("2")], [DELIVERED, RETRY]),
    ("a negative id", [ok("0"), ok("-1")], [DELIVERED, RETRY]),
    ("an id of words", [ok("0"), ok("one")], [DELIVERED, RETRY]),
    ("an id of digits that are none", [ok("0"), ok("¹")], [DELIVERED, RETRY]),
    ("an endless id", [ok("0"), ok("9" * 5000)], [DELIVERED, RETRY]),
    ("an empty id", [ok("0"), ok("")], [DELIVERED, RETRY]),
    ("ids null", [ok(None), failed(None)], [DELIVERED, REJECTED]),
    ("no object", [None, {"success": True}], [RETRY, DELIVERED]),
    ("texts", ["success", "success"], [RETRY, RETRY]),
    ("nothing said", [{}, {"success": True}], [RETRY, DELIVERED]),
    ("success null", [{"success": None}, {"success": True}], [RETRY, DELIVERED]),
    ("success as text", [{"success": "true"}, {"success": True}], [RETRY, DELIVERED]),
    ("failure in words only", [{"errors": ["no"]}, {"success": True}], [REJECTED, DELIVERED]),
    ("one refused", [{"success": False, "error": "Could not authenticate"}, {"success": True}], [REFUSED, DELIVERED]),
    ("said twice, differently", [failed("0"), ok("0")], [REJECTED, RETRY]),
]


@pytest.mark.parametrize(("results", "expected"), [row[1:] for row in RESULTS], ids=[row[0] for row in RESULTS])
def test_results_are_read_command_by_command(results: Any, expected: list[Verdict]) -> None:
    assert verdicts(results, 2) == expected


def test_the_errors_of_a_command_are_its_own() -> None:
    reasons = [outcome.reason for outcome in read([{"success": False, "errors": [f"why {n}"]} for n in range(50)], 50)]
    assert reasons == [f"why {n}" for n in range(50)]


@given(st.lists(st.booleans(), min_size=2, max_size=50), st.randoms(use_true_random=False), st.data())
@examples(60)
def test_however_results_are_shuffled_each_event_gets_its_own(succeeded: list[bool], shuffle: Any, data: Any) -> None:
    results = [ok(str(n)) if success else failed(str(n)) for n, success in enumerate(succeeded)]
    lost = data.draw(st.sets(st.sampled_from(range(len(results))), max_size=3))
    answered = [result for n, result in enumerate(results) if n not in lost]
    shuffle.shuffle(answered)
    assert verdicts(answered, len(results)) == [
        RETRY if n in lost else DELIVERED if success else REJECTED for n, success in enumerate(succeeded)
    ]


@pytest.mark.parametrize(
    ("status", "said", "verdict", "reason"),
    [
        (400, {"success": False, "message": "No commands"}, REJECTED, "No commands"),
        (400, {"success": False, "message": "Invalid JSON"}, REJECTED, "Invalid JSON"),
        (400, {"success": False, "error": "Could not authenticate"}, REFUSED, "Could not authenticate"),
        (400, {"success": False, "error": "Invalid project id"}, REFUSED, "Invalid project id"),
        (200, {"success": False, "errors": ["all wrong"]}, REJECTED, "all wrong"),
        (413, HTML, REJECTED, ""),
        (429, b"", RETRY, ""),
        (502, HTML, RETRY, ""),
        (207, {"success": True, "results": [{"success": True}] * 2}, RETRY, ""),
        (500, {"success": True, "results": [{"success": True}] * 2}, RETRY, ""),
    ],
)
def test_a_batch_may_fail_as_a_whole(status: int, said: Any, verdict: Verdict, reason: str) -> None:
    outcome = one(bloomreach().read(answer(status, said), 2))
    assert outcome.verdict is verdict
    assert reason in outcome.reason


# -- connection test ---------------------------------------------------------------------------------------------------


def test_the_connection_test_asks_for_the_time() -> None:
    probe = bloomreach().probe()
    assert (probe.method, probe.path, probe.body) == ("GET", f"{TRACK}/system/time", None)


@pytest.mark.parametrize(
    ("status", "said", "verdict"),
    [
        (200, {"errors": [], "success": True, "time": 1533663283.8943756}, DELIVERED),
        (200, {"success": False, "errors": ["no"]}, REJECTED),
        (400, {"success": False, "error": "Could not authenticate"}, REFUSED),
        (401, {"error": "access key not found", "success": False}, REFUSED),
        (404, HTML, REFUSED),
        (200, HTML, RETRY),
        (500, json.dumps({"success": True}).encode(), RETRY),
    ],
)
def test_answers_to_the_connection_test(status: int, said: Any, verdict: Verdict) -> None:
    assert bloomreach().read_probe(answer(status, said)).verdict is verdict
