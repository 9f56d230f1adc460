"""Vibetrace, held to its documents: event types, the purchase's order number, answers."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_events.contract import Verdict
from airflow_provider_events.events import Event
from airflow_provider_events.exceptions import InvalidEvent
from airflow_provider_events.vendors.base import ConnectionValues
from airflow_provider_events.vendors.vibetrace import STANDARD_TYPES, Vibetrace
from tests.vendors.wires import DIALECTS, HTML, VIBETRACE_TYPES, T, answer, one, parsed, sent

API_KEY = "lk12341kl3hjk2341h32j45jkj1lk2j3"
VIBETRACE = Vibetrace(ConnectionValues("vibetrace_default", password=API_KEY))
USER = {"email": "user@example.com"}
NO_EVENT, NO_USER, BAD_DATA = DIALECTS["vibetrace"].failures
CREATED = {"results": {"message": "Event created", "email": "Event was created for the specified user"}}
ORDER = {"orderId": "unique_id", "total": 123, "coupons": ["code_a", "code_b"]}
ITEM_DATA = {
    "title": "Example item",
    "idInShop": "r3dd",
    "url": "http://example.com",
    "category": [{"name": "unique_id_of_category", "title": "Category title"}],
}


def event(name: str, properties: dict[str, Any] | None = None, **changes: Any) -> Event:
    return Event(**{"name": name, "identity": USER, "properties": properties or {}, **changes})


def typed(name: str, properties: dict[str, Any] | None = None, **changes: Any) -> Any:
    return parsed(sent(VIBETRACE, event(name, properties, **changes)))["event"]


DOCUMENTED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("update", {"firstname": "alexandru"}, {"update": {"firstname": "alexandru"}}),
    (
        "my_event",
        {"firstname": "alexandru"},
        {"generic": {"generic": {"event_name": "my_event", "firstname": "alexandru"}}},
    ),
    (
        "confirmation",
        {"items": [{"id": "item_id", "quantity": 1}], "generic": ORDER},
        {"confirmation": {"items": [{"id": "item_id", "quantity": 1}], "generic": ORDER}},
    ),
    ("confirmation", {"items": [], "generic": ORDER}, {"confirmation": {"items": [], "generic": ORDER}}),
    ("viewitem", {"itemId": "r3dd", "item_data": ITEM_DATA}, {"viewitem": {"itemId": "r3dd", "item_data": ITEM_DATA}}),
    (
        "viewcategory",
        {
            "category": "unique_id_of_category",
            "category_data": {"title": "This is our category", "name": "unique_id_of_category"},
        },
        {
            "viewcategory": {
                "category": "unique_id_of_category",
                "category_data": {"title": "This is our category", "name": "unique_id_of_category"},
            }
        },
    ),
    (
        "login",
        {"email": "john.smith@example.com", "name": "John Smith"},
        {"login": {"email": "john.smith@example.com", "name": "John Smith"}},
    ),
]


@pytest.mark.parametrize(("name", "properties", "documented"), DOCUMENTED)
def test_the_documented_requests(name: str, properties: dict[str, Any], documented: dict[str, Any]) -> None:
    request = sent(VIBETRACE, event(name, properties))
    assert (request.method, request.path) == ("POST", "/event")
    assert parsed(request) == {"user": USER, "event": documented}


def test_the_key_travels_bare() -> None:
    assert VIBETRACE.headers() == {"Authorization": API_KEY}
    assert VIBETRACE.base_url + sent(VIBETRACE, event("update")).path == "https://api.vtcdn.net/v1/event"


@pytest.mark.parametrize("host", ["https://api.vtcdn.net/v1", "https://api.vtcdn.net/v1/"])
def test_no_path_ends_in_a_slash(host: str) -> None:
    vibetrace = Vibetrace(ConnectionValues("c", host=host, password="k"))
    for request in (sent(vibetrace, event("update")), vibetrace.probe()):
        assert not request.path.endswith("/")
        assert "//" not in (vibetrace.base_url + request.path).removeprefix("https://")


def test_the_standard_types_are_the_documented_ones() -> None:
    assert sorted(STANDARD_TYPES) == sorted(VIBETRACE_TYPES)


@pytest.mark.parametrize("name", sorted(STANDARD_TYPES - {"generic", "confirmation"}))
def test_standard_types_go_by_their_own_name(name: str) -> None:
    assert typed(name, {"a": 1}) == {name: {"a": 1}}


@pytest.mark.parametrize("name", ["Update", "my event", "purchase", "viewItem"])
def test_every_other_name_is_a_generic_event(name: str) -> None:
    assert typed(name, {"a": 1}) == {"generic": {"generic": {"event_name": name, "a": 1}}}


def test_a_ready_made_generic_event_passes() -> None:
    inner = {"event_name": "my_event", "firstname": "alexandru"}
    assert typed("generic", {"generic": inner}) == {"generic": {"generic": inner}}


@pytest.mark.parametrize("properties", [{}, {"generic": {}}, {"generic": "my_event"}, {"event_name": "my_event"}])
def test_a_generic_event_without_its_name_is_refused(properties: dict[str, Any]) -> None:
    with pytest.raises(InvalidEvent, match=r"^name: "):
        VIBETRACE.encode(event("generic", properties))


def test_a_property_must_not_take_the_place_of_the_name() -> None:
    with pytest.raises(InvalidEvent, match=r"^properties\.event_name: "):
        VIBETRACE.encode(event("my_event", {"event_name": "another"}))


# -- purchases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "items", "order"),
    [
        ({"orderId": "7", "total": 9.5}, [], {"orderId": "7", "total": 9.5}),
        ({"items": [{"id": "a"}], "orderId": "7"}, [{"id": "a"}], {"orderId": "7"}),
        ({"generic": {"orderId": "7"}, "total": 9.5}, [], {"orderId": "7", "total": 9.5}),
    ],
)
def test_flat_columns_of_a_purchase_belong_into_generic(
    properties: dict[str, Any], items: list[Any], order: dict[str, Any]
) -> None:
    assert typed("confirmation", properties) == {"confirmation": {"items": items, "generic": order}}


@pytest.mark.parametrize(
    ("properties", "field"),
    [
        ({"generic": {"total": 1}, "total": 2}, "properties.total"),
        ({"generic": "7"}, "properties.generic"),
        ({"items": "a,b"}, "properties.items"),
        ({"items": {"id": "a"}}, "properties.items"),
    ],
)
def test_a_purchase_that_cannot_be_read_is_refused(properties: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidEvent) as refusal:
        VIBETRACE.encode(event("confirmation", properties))
    assert refusal.value.field == field


def order_number(**changes: Any) -> Any:
    return typed("confirmation", **changes)["confirmation"]["generic"]["orderId"]


@pytest.mark.parametrize("empty", [None, ""])
def test_the_callers_id_is_the_order_number_where_there_is_none(empty: str | None) -> None:
    assert order_number(id="order-1") == "order-1"
    assert order_number(id="order-1", properties={"orderId": empty}) == "order-1"
    assert order_number(id="order-1", properties={"orderId": "mine"}) == "mine"


@pytest.mark.parametrize("number", [1001, 1001.0, Decimal("1001"), Decimal("1001.00"), Decimal("1.001E+3")], ids=repr)
def test_an_order_number_that_a_database_gives_as_a_fraction_is_whole(number: Any) -> None:
    flat, nested = {"orderId": number}, {"generic": {"orderId": number}}

    for found in (order_number(properties=flat), order_number(properties=nested)):
        assert (found, type(found)) == (1001, int)


def test_a_purchase_always_has_the_same_order_number() -> None:
    numbers = {order_number(properties={"total": 1}) for _ in range(3)}
    assert len(numbers) == 1
    assert numbers.pop()


@pytest.mark.parametrize(
    "changes",
    [
        {"properties": {"total": 2}},
        {"properties": {"total": 1, "items": [{"id": "a"}]}},
        {"properties": {"total": 1}, "identity": {"email": "other@example.com"}},
        {"properties": {"total": 1}, "timestamp": T},
    ],
    ids=str,
)
def test_distinct_purchases_have_distinct_order_numbers(changes: dict[str, Any]) -> None:
    assert order_number(**changes) != order_number(properties={"total": 1})


# -- identities --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "user"), [(USER, USER), ({"_id": "5f"}, {"_id": "5f"}), ({"_id": 5}, {"_id": "5"})]
)
def test_a_user_is_found_by_email_or_id(identity: dict[str, Any], user: dict[str, str]) -> None:
    assert parsed(sent(VIBETRACE, event("update", identity=identity)))["user"] == user


@pytest.mark.parametrize("identity", [{**USER, "_id": "5f"}, {"userId": "5f"}, {"Email": "user@example.com"}])
def test_other_identities_are_refused(identity: dict[str, Any]) -> None:
    with pytest.raises(InvalidEvent, match=r"^identity: .*exactly one of email and _id"):
        VIBETRACE.encode(event("update", identity=identity))


def test_the_time_of_an_event_has_no_place_on_the_wire() -> None:
    assert Vibetrace.timestamp_sent is False
    assert sent(VIBETRACE, event("update", timestamp=T)).body == sent(VIBETRACE, event("update")).body


def test_events_go_one_by_one_without_a_published_quota() -> None:
    assert Vibetrace.max_batch_size == 1
    assert VIBETRACE.quota(1) is None


# -- answers -----------------------------------------------------------------------------------------------------------

ANSWERS: list[tuple[str, int, Any, Verdict, str]] = [
    ("created", 200, CREATED, Verdict.DELIVERED, ""),
    ("no errors", 200, {**CREATED, "errors": []}, Verdict.DELIVERED, ""),
    ("missing event", 400, NO_EVENT, Verdict.REJECTED, "Missing event information: Please send event information"),
    ("bad data", 400, BAD_DATA, Verdict.REJECTED, "Invalid data format/type: Error validating user attributes"),
    ("user not found", 404, NO_USER, Verdict.MISSING, "User not found: This email does not exist in our database."),
    ("user not found, 400", 400, NO_USER, Verdict.MISSING, "User not found"),
    ("user not found, 200", 200, NO_USER, Verdict.MISSING, "User not found"),
    ("user not found, other case", 404, {"errors": [{"message": "USER NOT FOUND"}]}, Verdict.MISSING, "USER NOT FOUND"),
    ("second error", 400, {"errors": [*BAD_DATA["errors"], *NO_USER["errors"]]}, Verdict.MISSING, "User not found"),
    (
        "two errors",
        400,
        {"errors": [*NO_EVENT["errors"], *BAD_DATA["errors"]]},
        Verdict.REJECTED,
        "Invalid data format",
    ),
    ("description only", 400, {"errors": [{"description": "why"}]}, Verdict.REJECTED, "why"),
    ("404 page", 404, HTML, Verdict.FATAL, ""),
    ("404 of another kind", 404, {"errors": [{"message": "Not found"}]}, Verdict.FATAL, "Not found"),
    ("200 that says failure", 200, BAD_DATA, Verdict.REJECTED, "Invalid data format/type"),
    ("200 that says both", 200, {**CREATED, **BAD_DATA}, Verdict.REJECTED, "Invalid data format/type"),
    ("errors as text", 200, {"errors": "quota"}, Verdict.REJECTED, ""),
    ("errors of texts", 200, {"errors": ["quota"]}, Verdict.REJECTED, ""),
    ("errors as object", 200, {"errors": {"message": "quota"}}, Verdict.REJECTED, ""),
    ("message as number", 400, {"errors": [{"message": 5}]}, Verdict.REJECTED, ""),
    ("results as list", 200, {"results": [CREATED["results"]]}, Verdict.RETRY, ""),
    ("results null", 200, {"results": None}, Verdict.RETRY, ""),
    ("results as text", 200, {"results": "Event created"}, Verdict.RETRY, ""),
    ("in a list", 200, [CREATED], Verdict.RETRY, ""),
    ("cut off", 200, json.dumps(CREATED).encode()[:-1], Verdict.RETRY, ""),
    ("key refused", 401, b"", Verdict.FATAL, ""),
    ("not enabled", 403, {"errors": [{"message": "API disabled"}]}, Verdict.FATAL, "API disabled"),
]


@pytest.mark.parametrize(("status", "said", "verdict", "reason"), [r[1:] for r in ANSWERS], ids=[r[0] for r in ANSWERS])
def test_answers(status: int, said: Any, verdict: Verdict, reason: str) -> None:
    outcome = one(VIBETRACE.read(answer(status, said), 1))
    assert outcome.verdict is verdict
    assert reason in outcome.reason


def test_the_connection_test_looks_up_a_user_who_cannot_exist() -> None:
    probe = VIBETRACE.probe()
    assert (probe.method, probe.body) == ("GET", None)
    assert probe.path == "/user/connection-test%40airflow.invalid"


@pytest.mark.parametrize(
    ("status", "said", "verdict"),
    [
        (404, NO_USER, Verdict.DELIVERED),
        (
            200,
            {"email": "user@example.com", "isSubscribed": True, "gender": "male", "city": "Paris"},
            Verdict.DELIVERED,
        ),
        (404, HTML, Verdict.FATAL),
        (404, b"", Verdict.FATAL),
        (401, b"", Verdict.FATAL),
        (200, HTML, Verdict.RETRY),
        (200, [], Verdict.RETRY),
        (503, b"", Verdict.RETRY),
    ],
)
def test_answers_to_the_connection_test(status: int, said: Any, verdict: Verdict) -> None:
    assert VIBETRACE.read_probe(answer(status, said)).verdict is verdict
