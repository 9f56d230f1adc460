"""What every vendor of the registry keeps to. A new vendor inherits it with a line in `wires.DIALECTS`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_events.contract import Outcome, Verdict
from airflow_provider_events.events import Event
from airflow_provider_events.exceptions import ConfigurationError, EventsError, InvalidEvent
from airflow_provider_events.vendors.base import COMMON_EXTRAS, registry
from tests.vendors.wires import (
    BY_STATUS,
    DIALECTS,
    HTML,
    PASSWORD,
    TRUNCATED,
    T,
    answer,
    event_for,
    exactly,
    examples,
    moments,
    nested,
    on_the_wire,
    one,
    parsed,
    property_names,
    sent,
    values_for,
    vendor,
)

VENDORS = sorted(registry())
every_vendor = pytest.mark.parametrize("conn_type", VENDORS)
HEX_KEY = re.compile(r"[0-9a-f]{32}")


def key(conn_type: str, **changes: Any) -> str:
    return vendor(conn_type).content(event_for(conn_type, **changes)).key


def test_every_vendor_has_a_dialect() -> None:
    assert sorted(DIALECTS) == VENDORS


# -- declarations ------------------------------------------------------------------------------------------------------


@every_vendor
def test_the_declarations_are_complete(conn_type: str) -> None:
    kind = registry()[conn_type]
    assert kind.conn_type == conn_type
    assert kind.label
    assert kind.docs_url.startswith("https://")
    assert re.fullmatch(r"https://[a-z0-9.-]+(/[a-z0-9]+)*", kind.default_host)
    assert kind.identity_keys
    assert kind.deduplication
    assert {standard.name for standard in kind.standard_fields} <= {"host", "login", "password"}
    assert kind.max_batch_size >= 1
    assert kind.max_in_flight >= 1


@every_vendor
def test_extra_fields_are_told_apart_and_shared_ones_are_there(conn_type: str) -> None:
    names = [extra.name for extra in registry()[conn_type].all_extra_fields()]
    assert len(names) == len(set(names))
    assert {"requests_per_minute", "max_in_flight", "batch_size", "timeout", "verify", "proxy"} <= set(names)


@every_vendor
def test_the_default_of_every_extra_field_is_valid(conn_type: str) -> None:
    for extra in registry()[conn_type].all_extra_fields():
        assert extra.read(extra.default) == extra.default


# -- encoding ----------------------------------------------------------------------------------------------------------


@every_vendor
def test_ids_are_the_same_on_every_encoding(conn_type: str) -> None:
    first, second = (vendor(conn_type).encode(event_for(conn_type)) for _ in range(2))
    assert first == second
    assert HEX_KEY.fullmatch(key(conn_type))


def test_ids_are_the_same_in_another_process() -> None:
    program = (
        "from tests.vendors.wires import *\n"
        "import json\n"
        "print(json.dumps({name: vendor(name).content(event_for(name)).key for name in DIALECTS}))\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "PYTHONPATH": os.getcwd()}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == {conn_type: key(conn_type) for conn_type in DIALECTS}


@every_vendor
def test_timestamps_keep_microseconds_so_distinct_events_stay_distinct(conn_type: str) -> None:
    keys = {key(conn_type, timestamp=T + timedelta(microseconds=n)) for n in range(100)}
    assert len(keys) == 100


@every_vendor
@pytest.mark.parametrize(
    "changes",
    [
        {"name": "order_paid"},
        {"customer": "grace@example.com"},
        {"timestamp": T + timedelta(days=1)},
        {"properties": {"total": 39.81, "currency": "EUR"}},
        {"properties": {"total": 39.8}},
        {"properties": {"total": "39.8", "currency": "EUR"}},
        {"id": "order-1"},
    ],
    ids=str,
)
def test_distinct_events_have_distinct_keys(conn_type: str, changes: dict[str, Any]) -> None:
    assert key(conn_type, **changes) != key(conn_type)


@every_vendor
def test_distinct_ids_have_distinct_keys(conn_type: str) -> None:
    assert len({key(conn_type, id=f"order-{n}") for n in range(100)}) == 100


@every_vendor
def test_the_callers_id_outweighs_what_may_change_between_tries(conn_type: str) -> None:
    later = {"timestamp": T + timedelta(hours=1), "properties": {"total": 40}}
    assert key(conn_type, id="order-1") == key(conn_type, id="order-1", **later)


@every_vendor
@pytest.mark.parametrize("changes", [{"name": "order_paid"}, {"customer": "grace@example.com"}], ids=str)
def test_the_callers_id_is_unique_for_one_name_and_customer(conn_type: str, changes: dict[str, str]) -> None:
    assert key(conn_type, id="order-1", **changes) != key(conn_type, id="order-1")


@every_vendor
@pytest.mark.parametrize("given", [7, "7"], ids=repr)
def test_a_numeric_id_is_the_same_as_its_text(conn_type: str, given: Any) -> None:
    assert key(conn_type, id=given) == key(conn_type, id="7")


@every_vendor
@pytest.mark.parametrize("hours", [-8, 2, 5.5])
def test_the_same_moment_in_another_zone_is_the_same_event(conn_type: str, hours: float) -> None:
    elsewhere = T.astimezone(timezone(timedelta(hours=hours)))
    assert event_for(conn_type, timestamp=elsewhere) == event_for(conn_type)
    assert key(conn_type, timestamp=elsewhere) == key(conn_type)


@every_vendor
def test_the_order_of_properties_makes_no_other_event(conn_type: str) -> None:
    turned = {"currency": "EUR", "total": 39.8}
    assert event_for(conn_type, properties=turned) == event_for(conn_type)
    assert key(conn_type, properties=turned) == key(conn_type)


@every_vendor
def test_two_vendors_share_no_key(conn_type: str) -> None:
    event = event_for(conn_type, id="order-1")
    keys = []
    for each in VENDORS:
        with suppress(InvalidEvent):
            vendor(each).encode(event)
            keys.append(vendor(each).content(event).key)
    assert len(set(keys)) == len(keys) >= 1


@every_vendor
def test_encoding_does_not_change_the_event(conn_type: str) -> None:
    properties = {"items": [{"id": 1}], "currency": "EUR"}
    event = event_for(conn_type, properties=properties)
    sent(vendor(conn_type), event)
    assert properties == {"items": [{"id": 1}], "currency": "EUR"}
    assert dict(event.identity) == DIALECTS[conn_type].identity("ada@example.com")


@every_vendor
@given(data=st.data())
@examples(40)
def test_what_we_encode_is_what_the_vendor_reads(conn_type: str, data: st.DataObject) -> None:
    dialect = DIALECTS[conn_type]
    events = [
        Event(
            data.draw(dialect.names),
            dialect.identity("c" + data.draw(st.text(max_size=40))),
            data.draw(moments),
            {
                name: value
                for name, value in data.draw(st.dictionaries(property_names, nested, max_size=6)).items()
                if name not in dialect.reserved_properties
            },
        )
        for _ in range(data.draw(st.integers(1, min(vendor(conn_type).max_batch_size, 4))))
    ]

    read = dialect.decode(sent(vendor(conn_type), *events))

    assert len(read) == len(events)
    for event, there in zip(events, read, strict=True):
        assert event.timestamp is not None
        kept = dialect.time(event.timestamp.astimezone(UTC))
        assert there.name == event.name
        assert there.identity == event.identity
        assert (there.time and there.time.astimezone(UTC)) == kept
        assert exactly(there.properties) == exactly(on_the_wire(dict(event.properties), dialect.attribute_time))


@every_vendor
@pytest.mark.parametrize(
    "text",
    ["O'Brien", 'say "hi"', "back\\slash", "100 %", "%s %(x)s", "{{ ds }}", "a;b--c", "tab\tline\nend", "Zoë 日本 😀"],
    ids=ascii,
)
def test_no_sql_escaping_in_payloads(conn_type: str, text: str) -> None:
    [read] = DIALECTS[conn_type].decode(
        sent(vendor(conn_type), event_for(conn_type, text, properties={"note": text, "deep": [{"note": text}]}))
    )
    assert read.identity == DIALECTS[conn_type].identity(text)
    assert read.properties == {"note": text, "deep": [{"note": text}]}


class Field(StrEnum):
    CURRENCY = "currency"


@every_vendor
def test_enumerated_texts_are_texts(conn_type: str) -> None:
    event = event_for(conn_type, properties={Field.CURRENCY: Field.CURRENCY})
    [read] = DIALECTS[conn_type].decode(sent(vendor(conn_type), event))
    assert read.properties == {"currency": "currency"}


SURROGATE = "broken\ud800text"


@every_vendor
@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("name", {"name": SURROGATE}),
        ("identity", {"customer": SURROGATE}),
        ("properties", {"properties": {SURROGATE: 1}}),
        ("properties", {"properties": {"note": SURROGATE}}),
        ("properties", {"properties": {"deep": {"note": [SURROGATE]}}}),
        ("id", {"id": SURROGATE}),
    ],
    ids=["name", "identity", "property name", "property", "nested property", "id"],
)
def test_text_that_is_no_unicode_is_refused_by_field(conn_type: str, field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidEvent) as refusal:
        vendor(conn_type).encode(event_for(conn_type, **changes))
    assert refusal.value.field.split(".")[0] == field
    assert "broken" not in refusal.value.reason


@every_vendor
@pytest.mark.parametrize("event_id", [None, "order-1"])
def test_an_identity_of_more_than_64_bits_travels_or_is_refused(conn_type: str, event_id: str | None) -> None:
    dialect = DIALECTS[conn_type]
    identity = {name: 2**70 if name != "embeddable_id" else value for name, value in dialect.identity("c").items()}
    event = event_for(conn_type, identity=identity, id=event_id)
    refusal, read = None, {}
    try:
        [decoded] = dialect.decode(sent(vendor(conn_type), event))
        read = decoded.identity
    except InvalidEvent as error:
        refusal = error.field
    assert refusal == "identity.email" or exactly(texts_of(read)) == exactly(texts_of(identity))


def texts_of(identity: Mapping[str, str | int]) -> dict[str, str]:
    return {name: str(value) for name, value in identity.items()}


@every_vendor
@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 2**64, -(2**63) - 1, object(), {1, 2}, datetime(2026, 3, 1)],
    ids=lambda value: type(value).__name__,
)
def test_values_without_a_place_in_json_are_refused_by_name(conn_type: str, value: object) -> None:
    with pytest.raises(InvalidEvent) as refusal:
        vendor(conn_type).encode(event_for(conn_type, properties={"price": value}))
    assert refusal.value.field == "properties.price"
    assert isinstance(value, float) or repr(value) not in str(refusal.value)


# -- requests ----------------------------------------------------------------------------------------------------------


@every_vendor
def test_a_full_batch_is_one_request_with_every_event_in_order(conn_type: str) -> None:
    chosen = vendor(conn_type)
    events = [event_for(conn_type, f"customer{n}@example.com") for n in range(chosen.max_batch_size)]
    read = DIALECTS[conn_type].decode(sent(chosen, *events))
    assert [event.identity for event in read] == [event.identity for event in events]


@every_vendor
def test_the_declared_overhead_bounds_the_size_of_a_batch(conn_type: str) -> None:
    chosen = vendor(conn_type)
    fragments = [chosen.encode(event_for(conn_type, f"c{n}")) for n in range(chosen.max_batch_size)]
    envelope = len('{"commands":[]}')
    body = chosen.request(fragments).body
    assert body is not None
    assert len(body) <= sum(len(fragment) + chosen.fragment_overhead for fragment in fragments) + envelope


@every_vendor
def test_the_same_pieces_make_the_same_request(conn_type: str) -> None:
    chosen = vendor(conn_type)
    fragments = [chosen.encode(event_for(conn_type, f"c{n}")) for n in range(chosen.max_batch_size)]
    assert chosen.request(fragments) == chosen.request(fragments)


@every_vendor
def test_requests_are_documented_methods_on_rooted_paths(conn_type: str) -> None:
    chosen = vendor(conn_type)
    request, probe = sent(chosen, event_for(conn_type)), chosen.probe()
    assert request.method == "POST"
    assert isinstance(parsed(request), dict)
    for path in (request.path, probe.path):
        assert re.fullmatch(r"/[!-~]+[^/]", path)


@every_vendor
def test_a_connection_test_stores_nothing(conn_type: str) -> None:
    probe = vendor(conn_type).probe()
    assert probe.method == "GET" or parsed(probe) == {}


@pytest.mark.parametrize(
    "conn_type", [name for name in VENDORS if any(f.required for f in registry()[name].extra_fields)]
)
@pytest.mark.parametrize(
    ("given", "encoded"),
    [
        ("~ab12", "~ab12"),
        ("in~~ab12", "in~~ab12"),
        ("a b", "a%20b"),
        ("a/../b", "a%2F..%2Fb"),
        ("a?b#c", "a%3Fb%23c"),
        ("a%b", "a%25b"),
        ("ß", "%C3%9F"),
    ],
)
def test_settings_in_paths_are_percent_encoded_once(conn_type: str, given: str, encoded: str) -> None:
    kind = registry()[conn_type]
    chosen = kind(values_for(kind, extra={extra.name: given for extra in kind.extra_fields if extra.required}))
    for path in (sent(chosen, event_for(conn_type)).path, chosen.probe().path):
        assert encoded in path.split("/")


# -- secrets -----------------------------------------------------------------------------------------------------------


@every_vendor
def test_secrets_are_every_form_of_the_key_that_travels(conn_type: str) -> None:
    chosen = vendor(conn_type)
    secrets = set(chosen.secrets())
    headers = set(chosen.headers().values())
    assert {PASSWORD, quote(PASSWORD, safe="")} | headers <= secrets
    assert {header.split(" ")[-1] for header in headers} <= secrets
    assert "" not in secrets


@every_vendor
def test_the_password_of_a_proxy_is_a_secret_as_written_and_as_meant(conn_type: str) -> None:
    secrets = vendor(conn_type, proxy="http://someone:p%40ss-w0rd@proxy.example.com:3128").secrets()
    assert {"p%40ss-w0rd", "p@ss-w0rd"} <= set(secrets)


@every_vendor
def test_no_secret_in_a_request_or_a_repr(conn_type: str) -> None:
    kind = registry()[conn_type]
    values = values_for(kind)
    chosen = kind(values)
    request = sent(chosen, event_for(conn_type))
    told = f"{request!r} {chosen.probe()!r} {chosen!r} {chosen} {values!r} {values}"
    assert [secret for secret in chosen.secrets() if secret in told] == []


@every_vendor
def test_no_profile_in_the_repr_of_an_event(conn_type: str) -> None:
    assert "ada" not in repr(event_for(conn_type, properties={"full_name": "ada"}))


@every_vendor
@pytest.mark.parametrize(
    "changes",
    [
        {"host": f"https://someone:{PASSWORD}@api.example.com"},
        {"host": f"https://api.example.com?key={PASSWORD}"},
        {"host": f"https://api.example.com:{PASSWORD}"},
        {"extra": {"timeout": PASSWORD}},
        {"extra": {"max_in_flight": PASSWORD}},
        {"extra": {"api_key": PASSWORD}},
        {"extra": {"proxy": f"http://someone:{PASSWORD}@proxy.example.com:3128"}},
    ],
    ids=str,
)
def test_no_secret_in_an_error(conn_type: str, changes: dict[str, Any]) -> None:
    kind = registry()[conn_type]
    changes = {**changes, "extra": {**values_for(kind).extra, **changes.get("extra", {})}}
    with pytest.raises(EventsError) as error:
        kind(values_for(kind, **changes)).secrets()
    assert PASSWORD not in str(error.value)


# -- connections -------------------------------------------------------------------------------------------------------


@every_vendor
def test_a_missing_standard_field_is_named_by_its_label(conn_type: str) -> None:
    kind = registry()[conn_type]
    for field in (standard for standard in kind.standard_fields if standard.required):
        for blank in (None, "", "  \n"):
            with pytest.raises(ConfigurationError) as error:
                kind(values_for(kind, **{field.name: blank}))
            assert f"{field.label!r}" in str(error.value)
            assert "'warehouse_events'" in str(error.value)


@every_vendor
def test_a_missing_extra_field_is_named_by_its_label(conn_type: str) -> None:
    kind = registry()[conn_type]
    for field in (extra for extra in kind.extra_fields if extra.required):
        for blank in (None, "", "  "):
            with pytest.raises(ConfigurationError) as error:
                kind(values_for(kind, extra={**values_for(kind).extra, field.name: blank}))
            assert f"{field.label!r}" in str(error.value)
            assert f"{field.name!r}" in str(error.value)
            assert "'warehouse_events'" in str(error.value)


@every_vendor
def test_an_unknown_extra_key_is_named_with_its_nearest_neighbour(conn_type: str) -> None:
    kind = registry()[conn_type]
    for extra in kind.all_extra_fields():
        typo = extra.name[:-1] + "_x"
        with pytest.raises(ConfigurationError, match=f"'{typo}'; did you mean '{extra.name}'"):
            kind(values_for(kind, extra={**values_for(kind).extra, typo: "1"}))


@every_vendor
def test_an_unknown_extra_key_without_a_neighbour_lists_those_there_are(conn_type: str) -> None:
    kind = registry()[conn_type]
    with pytest.raises(ConfigurationError) as error:
        kind(values_for(kind, extra={**values_for(kind).extra, "qqqq": "1"}))
    assert all(extra.name in str(error.value) for extra in (*kind.extra_fields, *COMMON_EXTRAS))


@every_vendor
def test_a_key_pasted_with_a_newline_still_works(conn_type: str) -> None:
    kind = registry()[conn_type]
    assert kind(values_for(kind, password=f" {PASSWORD}\n")).headers() == vendor(conn_type).headers()


# -- answers -----------------------------------------------------------------------------------------------------------

NOTHING_SAID = [b"", HTML, TRUNCATED, b"null", b"[]", b"0", b'"text"', b"{}"]


@every_vendor
@pytest.mark.parametrize(("status", "verdict"), BY_STATUS)
def test_an_answer_without_a_documented_body_counts_by_its_status(
    conn_type: str, status: int, verdict: Verdict
) -> None:
    chosen = vendor(conn_type)
    for body in NOTHING_SAID:
        for count in (1, chosen.max_batch_size):
            outcome = one(chosen.read(answer(status, body), count))
            assert (outcome.verdict, outcome.code) == (verdict, f"http_{status}"), body
            assert outcome.reason


@every_vendor
def test_overload_and_outage_are_later_whatever_the_body_says(conn_type: str) -> None:
    chosen = vendor(conn_type)
    verdicts = {
        (status, str(body)): one(chosen.read(answer(status, body), 1)).verdict
        for body in DIALECTS[conn_type].failures
        for status in (408, 425, 429, 500, 502, 503, 504)
    }
    final = {Verdict.REJECTED, Verdict.FATAL, Verdict.DELIVERED}
    assert {case: verdict for case, verdict in verdicts.items() if verdict in final} == {}


@every_vendor
def test_no_documented_failure_counts_as_delivered(conn_type: str) -> None:
    chosen = vendor(conn_type)
    for body in DIALECTS[conn_type].failures:
        for status in (200, 201, 400, 401, 403, 404):
            for count in (1, chosen.max_batch_size):
                verdict = one(chosen.read(answer(status, body), count)).verdict
                assert verdict is not Verdict.DELIVERED, (status, body)


@every_vendor
def test_a_connection_test_takes_no_failure_for_a_success(conn_type: str) -> None:
    chosen = vendor(conn_type)
    for body in DIALECTS[conn_type].failures:
        if "not found" in str(body).lower() or "cannot be empty" in str(body):
            continue
        for status in (200, 400, 401, 403, 404, 500):
            assert chosen.read_probe(answer(status, body)).verdict is not Verdict.DELIVERED, (status, body)


@every_vendor
@pytest.mark.parametrize("body", [b"", HTML, TRUNCATED, b"null", b"0"], ids=str)
def test_a_connection_test_takes_no_page_for_the_vendor(conn_type: str, body: bytes) -> None:
    for status, _ in BY_STATUS:
        assert vendor(conn_type).read_probe(answer(status, body)).verdict is not Verdict.DELIVERED


def texts(value: Any) -> list[str]:
    """The sentences in a vendor's error: its texts with a blank."""
    if isinstance(value, dict):
        return [text for inner in value.values() for text in texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in texts(inner)]
    return [value] if isinstance(value, str) and " " in value else []


@every_vendor
def test_the_vendors_error_text_is_kept(conn_type: str) -> None:
    for body in DIALECTS[conn_type].failures:
        for status in (200, 400, 401, 403, 404, 429, 500):
            reason = one(vendor(conn_type).read(answer(status, body), 1)).reason
            assert [text for text in texts(body) if text not in reason] == [], (status, body)


@every_vendor
def test_a_vendors_long_text_becomes_one_short_line(conn_type: str) -> None:
    long = "a word\r\n\tand " * 50_000

    def lengthened(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: lengthened(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [lengthened(inner) for inner in value]
        return f"{value} {long}" if isinstance(value, str) and " " in value else value

    for body in DIALECTS[conn_type].failures:
        for status in (200, 400, 503):
            outcome = one(vendor(conn_type).read(answer(status, lengthened(body)), 1))
            assert len(outcome.reason) <= 500
            assert outcome.reason.isprintable()


WORDS = [
    "success",
    "queued",
    "error",
    "ENTRY_NOT_FOUND",
    "unauthorized",
    "User not found",
    "Could not authenticate",
    "Customer does not exist",
    "0",
    "1",
]
KEYS = [
    "success",
    "error",
    "errors",
    "results",
    "response",
    "status",
    "message",
    "code",
    "command_id",
    "entry_id",
    "_global",
    "description",
]
said = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(WORDS)
    | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
bodies = st.one_of(
    st.binary(max_size=100),
    said.map(lambda body: json.dumps(body).encode()),
    st.dictionaries(st.sampled_from(KEYS), said, max_size=6).map(lambda body: json.dumps(body).encode()),
)


@every_vendor
@given(status=st.sampled_from([status for status, _ in BY_STATUS]), body=bodies, data=st.data())
@examples(80)
def test_no_answer_is_too_hostile_to_read(conn_type: str, status: int, body: bytes, data: st.DataObject) -> None:
    chosen = vendor(conn_type)
    count = data.draw(st.sampled_from(sorted({1, 2, chosen.max_batch_size})))

    reading = chosen.read(answer(status, body), count)
    probed = chosen.read_probe(answer(status, body))

    assert isinstance(reading, Outcome) or len(reading) == count
    outcomes = [reading] if isinstance(reading, Outcome) else reading
    if not 200 <= status < 300:
        assert Verdict.DELIVERED not in {outcome.verdict for outcome in outcomes}
    for outcome in [*outcomes, probed]:
        assert isinstance(outcome.verdict, Verdict)
        assert outcome.verdict is Verdict.DELIVERED or outcome.code
        assert outcome.reference is None or isinstance(outcome.reference, str)
        assert len(outcome.code) <= 100
        assert len(outcome.reason) <= 500
        assert "\n" not in outcome.code + outcome.reason


@every_vendor
@given(status=st.sampled_from([status for status, _ in BY_STATUS]), body=bodies)
@examples(40)
def test_no_answer_to_a_look_up_is_too_hostile_to_read(conn_type: str, status: int, body: bytes) -> None:
    outcome = vendor(conn_type).read_lookup(answer(status, body))
    assert isinstance(outcome, Outcome)
    assert outcome.verdict is not Verdict.DELIVERED
    assert 200 <= status < 300 or outcome.verdict is not Verdict.FOUND
    assert len(outcome.reason) <= 500


@every_vendor
def test_no_page_and_no_failure_is_an_entry_found(conn_type: str) -> None:
    chosen = vendor(conn_type)
    for body in [*NOTHING_SAID, *DIALECTS[conn_type].failures]:
        for status, _ in BY_STATUS:
            verdict = chosen.read_lookup(answer(status, body)).verdict
            assert verdict not in (Verdict.FOUND, Verdict.DELIVERED), (status, body)


@every_vendor
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"success": true, "results": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"response": {"status": "' + b"x" * 1_000_000 + b'"}}',
        b'{"success": NaN}',
        b'{"error": {"code": 1e999}}',
        b'{"success": ' + b"9" * 10_000 + b"}",
        b'{"error": "\\ud800"}',
        b"\xff\xfe{\x00}\x00",
        b"\xef\xbb\xbf{}",
        b"\x00",
    ],
    ids=lambda body: repr(body[:20]),
)
@pytest.mark.parametrize("status", [200, 400, 503])
def test_monstrous_answers_are_no_acceptance(conn_type: str, status: int, body: bytes) -> None:
    chosen = vendor(conn_type)
    for count in (1, chosen.max_batch_size):
        reading = chosen.read(answer(status, body), count)
        outcomes = reading if isinstance(reading, list) else [reading]
        if body.startswith(b'{"success": true'):
            continue
        assert Verdict.DELIVERED not in {outcome.verdict for outcome in outcomes}
    assert isinstance(chosen.read_probe(answer(status, body)), Outcome)


@every_vendor
def test_reading_needs_no_more_than_the_answer(conn_type: str) -> None:
    chosen = vendor(conn_type)
    read: Callable[..., Any] = chosen.read
    bare = answer(503)._replace(headers={})
    assert read(bare, 1) == read(bare, 1)
