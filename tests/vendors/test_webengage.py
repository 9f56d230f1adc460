"""WebEngage, held to its documents: single events and bulks, its silent rules, answers."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_events.contract import EventColumns, Verdict
from airflow_provider_events.events import Event
from airflow_provider_events.exceptions import ConfigurationError, InvalidEvent
from airflow_provider_events.sandbox.webengage_names import SYSTEM_EVENTS
from airflow_provider_events.vendors.base import ConnectionValues
from airflow_provider_events.vendors.webengage import WebEngage
from tests.vendors.wires import DIALECTS, HTML, T, answer, one, parsed, sent

PACIFIC = timezone(-timedelta(hours=8))
BOUGHT = {
    "Product ID": 1337,
    "Price": 39.80,
    "Quantity": 1,
    "Product": "Givenchy Pour Homme Cologne",
    "Category": "Fragrance",
    "Currency": "USD",
}
ADDED = Event("Added to Cart", {"userId": "johndoe"}, datetime(2018, 9, 15, 18, 29, tzinfo=PACIFIC), BOUGHT)
DOCUMENTED = {
    "userId": "johndoe",
    "eventName": "Added to Cart",
    "eventTime": "2018-09-15T18:29:00-0800",
    "eventData": BOUGHT,
}
QUEUED = {"response": {"status": "queued"}}
(NO_USER,) = DIALECTS["webengage"].failures


def webengage(license_code: str = "va1w264d", **extra: Any) -> WebEngage:
    return WebEngage(ConnectionValues("c", password="key", extra={"license_code": license_code, **extra}))


def event(**changes: Any) -> Event:
    return Event(**{"name": "Added to Cart", "identity": {"userId": "johndoe"}, "timestamp": T, **changes})


def body(**changes: Any) -> Any:
    return parsed(sent(webengage(), event(**changes)))


def refused(**changes: Any) -> InvalidEvent:
    with pytest.raises(InvalidEvent) as refusal:
        webengage().encode(event(**changes))
    return refusal.value


# -- requests ----------------------------------------------------------------------------------------------------------


def test_the_documented_single_event() -> None:
    request = sent(webengage(), ADDED)
    assert (request.method, request.path) == ("POST", "/v1/accounts/va1w264d/events")
    assert parsed(request) == DOCUMENTED


def test_the_documented_bulk() -> None:
    request = sent(webengage(), ADDED, ADDED)
    assert (request.method, request.path) == ("POST", "/v1/accounts/va1w264d/bulk-events")
    assert parsed(request) == {"events": [DOCUMENTED, DOCUMENTED]}


def test_the_key_is_a_bearer_token() -> None:
    assert webengage().headers() == {"Authorization": "Bearer key"}


@pytest.mark.parametrize("license_code", ["va1w264d", "~10a5cad2d", "in~58adcb77", "in~~71680b1b", "ksa~~14507c62"])
def test_the_tilde_of_a_license_code_is_not_encoded(license_code: str) -> None:
    account = f"/v1/accounts/{license_code}"
    assert sent(webengage(license_code), ADDED).path == f"{account}/events"
    assert sent(webengage(license_code), ADDED, ADDED).path == f"{account}/bulk-events"
    assert webengage(license_code).probe().path == f"{account}/events"


@pytest.mark.parametrize(
    ("region", "url"),
    [
        (None, "https://api.webengage.com"),
        ("", "https://api.webengage.com"),
        ("global", "https://api.webengage.com"),
        ("in", "https://api.in.webengage.com"),
        ("ksa", "https://api.ksa.webengage.com"),
        ("eug", "https://api.eug.webengage.com"),
    ],
)
def test_the_region_gives_the_host(region: str | None, url: str) -> None:
    assert webengage(region=region).base_url == url


def test_a_host_outweighs_the_region() -> None:
    values = ConnectionValues(
        "c", host="api.other.webengage.com", password="key", extra={"license_code": "x", "region": "in"}
    )
    assert WebEngage(values).base_url == "https://api.other.webengage.com"


def test_an_unknown_region_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"'Region'.* has to be one of global, in, ksa, eug"):
        webengage(region="eu")


@pytest.mark.parametrize("count", [1, 2, 25])
def test_a_request_id_is_hexadecimal_and_of_the_content(count: int) -> None:
    events = [event(properties={"n": n}) for n in range(count)]
    ids = {(sent(webengage(), *events).headers or {})["x-request-id"] for _ in range(3)}
    assert len(ids) == 1
    assert re.fullmatch(r"[0-9a-f]{32}", ids.pop())


@pytest.mark.parametrize("changes", [{}, {"id": "order-1"}])
def test_a_request_id_is_the_key_of_its_single_event(changes: dict[str, str]) -> None:
    single = event(**changes)
    fragment = webengage().encode(single)
    assert webengage().request([fragment]).headers == {"x-request-id": webengage().key(single)}


def test_the_callers_id_outweighs_what_may_change_between_tries_in_a_request_id() -> None:
    first, later = (event(id="order-1", properties={"n": n}, timestamp=T + timedelta(days=n)) for n in range(2))
    keys = {webengage().key(single) for single in (first, later)}
    assert keys == {webengage().content(first).key}
    assert webengage().key(event(id="order-2")) not in keys
    assert webengage().key(event()) not in keys


def test_upserts_of_other_times_have_other_request_ids() -> None:
    upserts, entry = webengage().upserts(), event(name="upsert", properties={"city": "Cluj"})
    again = [replace(entry, timestamp=T), replace(entry, timestamp=T + timedelta(microseconds=1)), entry]
    ids = [(upserts.request([upserts.encode(each)]).headers or {})["x-request-id"] for each in again]
    assert ids == [upserts.key(each) for each in again]
    assert len(set(ids)) == len({each.timestamp for each in again})


def test_what_was_encoded_before_changes_nothing() -> None:
    contents = EventColumns("webengage", ["x"], [{"userId": "ada"}], [T], [{"never seen": 1}], None)
    fresh, used = webengage(), webengage()
    for name in ("never seen", "we_ignored", "x" * 60):
        with suppress(InvalidEvent):
            used.encode(event(properties={name: 1}))
    fast = fresh.encode_columns_fast(contents)
    assert fast is not None
    assert fast == used.encode_columns_fast(contents) == [fresh.encode_content(next(contents.each()))]


def test_other_events_have_other_request_ids() -> None:
    fragments = [webengage().encode(event(properties={"n": n})) for n in range(25)]
    requests = [
        webengage().request(part) for part in (fragments, fragments[:24], fragments[1:], fragments[::-1], fragments[:1])
    ]
    assert len({(request.headers or {})["x-request-id"] for request in requests}) == len(requests)


def test_limits_of_bulks_and_quotas() -> None:
    assert WebEngage.max_batch_size == 25
    assert [webengage().quota(size) for size in (1, 2, 25)] == [5000, 500, 500]


# -- fields ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2018, 9, 15, 18, 29, tzinfo=PACIFIC), "2018-09-15T18:29:00-0800"),
        (T, "2026-03-01T09:30:00+0000"),
        (datetime(2026, 3, 1, 9, 30, tzinfo=timezone(timedelta(hours=5.5))), "2026-03-01T09:30:00+0530"),
        ("2026-03-01T09:30:00Z", "2026-03-01T09:30:00+0000"),
        (datetime(1900, 1, 1, tzinfo=timezone(timedelta(seconds=6264))), "1899-12-31T22:15:36+0000"),
        (datetime(812, 1, 1, tzinfo=UTC), "0812-01-01T00:00:00+0000"),
    ],
)
def test_event_times_have_seconds_and_an_offset_without_a_colon(moment: Any, text: str) -> None:
    assert body(timestamp=moment)["eventTime"] == text


def test_an_event_without_a_time_leaves_it_to_the_vendor() -> None:
    assert "eventTime" not in body(timestamp=None)


def test_times_among_the_attributes_have_the_documented_format() -> None:
    moment = datetime(2026, 3, 1, 9, 30, 0, 123456, timezone(timedelta(hours=2)))
    assert body(properties={"When": moment, "Deep": [moment]})["eventData"] == {
        "When": "2026-03-01T07:30:00.123Z",
        "Deep": ["2026-03-01T07:30:00.123Z"],
    }


@pytest.mark.parametrize(
    ("identity", "user"),
    [
        ({"userId": "johndoe"}, {"userId": "johndoe"}),
        ({"anonymousId": "anon-1"}, {"anonymousId": "anon-1"}),
        ({"userId": 42}, {"userId": "42"}),
        ({"userId": "u" * 100}, {"userId": "u" * 100}),
        ({"anonymousId": "ü" * 100}, {"anonymousId": "ü" * 100}),
    ],
)
def test_a_user_is_known_or_anonymous(identity: dict[str, Any], user: dict[str, str]) -> None:
    assert {name: value for name, value in body(identity=identity).items() if name.endswith("Id")} == user


@pytest.mark.parametrize(
    ("identity", "field"),
    [
        ({"userId": "johndoe", "anonymousId": "anon-1"}, "identity"),
        ({"email": "john@example.com"}, "identity"),
        ({"userid": "johndoe"}, "identity"),
        ({"userId": "u" * 101}, "identity.userId"),
        ({"anonymousId": "u" * 101}, "identity.anonymousId"),
    ],
    ids=["both", "email", "case", "long userId", "long anonymousId"],
)
def test_other_identities_are_refused(identity: dict[str, Any], field: str) -> None:
    assert refused(identity=identity).field == field


@pytest.mark.parametrize("name", ["n" * 49, "n" * 50, "We_ordered", "order we_", "Added to Cart"])
def test_event_names_up_to_50_characters_pass(name: str) -> None:
    assert body(name=name)["eventName"] == name


@pytest.mark.parametrize("name", ["n" * 51, "we_ordered", "we_"])
def test_long_and_reserved_event_names_are_refused(name: str) -> None:
    assert refused(name=name).field == "name"


@pytest.mark.parametrize("name", sorted(SYSTEM_EVENTS))
def test_events_that_only_webengage_makes_are_refused_by_name(name: str) -> None:
    refusal = refused(name=name)
    assert (refusal.field, "a system event of WebEngage" in refusal.reason) == ("name", True)


def test_the_vendors_pages_name_109_system_events() -> None:
    assert len(SYSTEM_EVENTS) == 109


@pytest.mark.parametrize("name", ["Email_open", "email_opened", "email", "push_notification", "push_notification_"])
def test_names_that_only_look_like_system_events_pass(name: str) -> None:
    assert body(name=name)["eventName"] == name


@pytest.mark.parametrize("allowed", [True, "true"])
def test_an_account_that_knows_better_sends_system_events(allowed: Any) -> None:
    vendor = webengage(allow_system_events=allowed)
    assert parsed(sent(vendor, event(name="email_open")))["eventName"] == "email_open"


@pytest.mark.parametrize("allowed", [False, True])
def test_rows_written_together_are_held_to_the_same_names(allowed: bool) -> None:
    vendor = webengage(allow_system_events=allowed)
    contents = [vendor.content(event(name=name)) for name in ("purchase", "email_open", "purchase")]
    columns = zip(*contents, strict=True)
    next(columns)
    written = vendor.encode_columns(EventColumns(vendor.conn_type, *map(list, columns)))
    assert [fragment is not None for fragment in written] == [True, allowed, True]


@pytest.mark.parametrize("name", ["n" * 49, "We_total", "total"])
def test_attribute_names_below_50_characters_pass(name: str) -> None:
    assert body(properties={name: 1})["eventData"] == {name: 1}


@pytest.mark.parametrize("name", ["n" * 50, "we_total"])
def test_long_and_reserved_attribute_names_are_refused(name: str) -> None:
    assert refused(properties={name: 1}).field == f"properties.{name}"


def test_texts_have_to_be_shorter_than_1000_characters() -> None:
    assert body(properties={"note": "x" * 999})["eventData"] == {"note": "x" * 999}
    refusal = refused(properties={"note": "x" * 1000})
    assert (refusal.field, "x" * 10 in refusal.reason) == ("properties.note", False)


EACH_TYPE: dict[str, Any] = {
    "text": "x",
    "number": 1.5,
    "boolean": True,
    "date": T,
    "array": [1],
    "object": {"a": 1},
}


@pytest.mark.parametrize("kind", EACH_TYPE)
def test_25_attributes_of_each_type_are_allowed(kind: str) -> None:
    assert len(body(properties={f"a{n}": EACH_TYPE[kind] for n in range(25)})["eventData"]) == 25
    assert refused(properties={f"a{n}": EACH_TYPE[kind] for n in range(26)}).field == "properties"


def test_the_25_are_counted_for_each_of_the_six_types() -> None:
    full = {f"{kind}{n}": value for kind, value in EACH_TYPE.items() for n in range(25)}
    assert len(body(properties=full)["eventData"]) == 150


def test_whole_and_broken_numbers_are_of_one_type() -> None:
    assert refused(properties={f"a{n}": n if n % 2 else n + 0.5 for n in range(26)}).field == "properties"


def test_nulls_are_of_no_type() -> None:
    assert len(body(properties={f"a{n}": None for n in range(30)})["eventData"]) == 30


# -- answers -----------------------------------------------------------------------------------------------------------


def said(status: Any, message: Any = None) -> dict[str, Any]:
    return {"response": {"status": status, **({} if message is None else {"message": message})}}


ANSWERS: list[tuple[str, int, Any, Verdict, str]] = [
    ("queued", 200, QUEUED, Verdict.DELIVERED, ""),
    ("created", 201, QUEUED, Verdict.DELIVERED, ""),
    ("accepted", 202, QUEUED, Verdict.DELIVERED, ""),
    ("success", 200, {"response": {"data": {}, "message": "success", "status": "success"}}, Verdict.DELIVERED, ""),
    ("other case", 200, said("QUEUED"), Verdict.DELIVERED, ""),
    ("no user", 400, NO_USER, Verdict.REJECTED, "Error: userId and anonymousId cannot be empty."),
    ("200 that says failure", 200, NO_USER, Verdict.REJECTED, "Error: userId and anonymousId cannot be empty."),
    ("200, failure without words", 200, said("error"), Verdict.REJECTED, ""),
    ("400 that says queued", 400, QUEUED, Verdict.REJECTED, ""),
    ("500 that says queued", 500, QUEUED, Verdict.RETRY, ""),
    ("302 that says queued", 302, QUEUED, Verdict.FATAL, ""),
    ("wrong key", 401, said("error", "Unauthorized"), Verdict.FATAL, "Unauthorized"),
    ("wrong key, no body", 401, b"", Verdict.FATAL, ""),
    ("wrong license code", 404, said("error", "Invalid license code"), Verdict.FATAL, "Invalid license code"),
    ("wrong host", 404, HTML, Verdict.FATAL, ""),
    ("over the quota", 429, said("error", "Rate limit"), Verdict.RETRY, "Rate limit"),
    ("outage", 500, said("error", "Server error"), Verdict.RETRY, "Server error"),
    ("unknown status", 200, said("maybe"), Verdict.RETRY, ""),
    ("status null", 200, {"response": {"status": None}}, Verdict.RETRY, ""),
    ("status true", 200, said(True), Verdict.RETRY, ""),
    ("status as list", 200, said(["queued"]), Verdict.RETRY, ""),
    ("response as text", 200, {"response": "queued"}, Verdict.RETRY, ""),
    ("response null", 200, {"response": None}, Verdict.RETRY, ""),
    ("response as list", 200, {"response": [{"status": "queued"}]}, Verdict.RETRY, ""),
    ("status outside", 200, {"status": "queued"}, Verdict.RETRY, ""),
    ("in a list", 200, [QUEUED], Verdict.RETRY, ""),
    ("no content", 204, b"", Verdict.RETRY, ""),
    ("cut off", 200, json.dumps(QUEUED).encode()[:-1], Verdict.RETRY, ""),
    ("message as object", 400, said("error", {"text": "why"}), Verdict.REJECTED, ""),
]


@pytest.mark.parametrize("count", [1, 25])
@pytest.mark.parametrize(("status", "body", "verdict", "reason"), [r[1:] for r in ANSWERS], ids=[r[0] for r in ANSWERS])
def test_answers(status: int, body: Any, verdict: Verdict, reason: str, count: int) -> None:
    outcome = one(webengage().read(answer(status, body), count))
    assert outcome.verdict is verdict
    assert reason in outcome.reason


def test_the_connection_test_sends_an_event_of_nobody() -> None:
    probe = webengage().probe()
    assert (probe.method, probe.path, probe.body) == ("POST", "/v1/accounts/va1w264d/events", b"{}")


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (400, NO_USER, Verdict.DELIVERED),
        (200, NO_USER, Verdict.DELIVERED),
        (400, said("error", "Invalid license code"), Verdict.REJECTED),
        (401, NO_USER, Verdict.FATAL),
        (401, b"", Verdict.FATAL),
        (404, HTML, Verdict.FATAL),
        (400, HTML, Verdict.REJECTED),
        (429, NO_USER, Verdict.RETRY),
        (500, NO_USER, Verdict.RETRY),
    ],
)
def test_answers_to_the_connection_test(status: int, body: Any, verdict: Verdict) -> None:
    assert webengage().read_probe(answer(status, body)).verdict is verdict
