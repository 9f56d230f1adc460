"""Bloomreach Engagement (formerly Exponea): single events and batches of at most 50 commands.

https://documentation.bloomreach.com/engagement/docs/add-event
https://documentation.bloomreach.com/engagement/docs/batch-commands-2
https://documentation.bloomreach.com/engagement/reference/tracking-api-error-messages
https://documentation.bloomreach.com/engagement/docs/imports-technical-reference
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import chain
from operator import add, is_, itemgetter
from typing import Any

from airflow_provider_events.contract import Answer, EventColumns, EventContent, Outcome, Request, Verdict
from airflow_provider_events.exceptions import ConfigurationError, InvalidEvent
from airflow_provider_events.vendors.base import (
    ConnectionValues,
    ExtraField,
    StandardField,
    Upserts,
    Vendor,
    by_status,
    delivered,
    dumps,
    dumps_each,
    found,
    is_transient,
    json_body,
    one_line,
    quote_segment,
)

CONSENT = "consent"
MAX_EVENT_BYTES = 800_000
MAX_VALUE_BYTES = 16_000
_COMMAND_HEADS = [b'{"name":"customers/events","command_id":"%d","data":' % n for n in range(50)]
_COMMAND_IDS = [str(n) for n in range(50)]
_CUSTOMER_HEADS = [b'{"name":"customers","command_id":"%d","data":' % n for n in range(50)]
_command_id, _success, _is_true = itemgetter("command_id"), itemgetter("success"), partial(is_, True)
_NO_IDS = {"null", "undefined"}
_REFUSALS = ("could not authenticate", "invalid project id", "access key not found", "invalid secret")

log = logging.getLogger(__name__)


class Bloomreach(Vendor):
    """An event for an unknown customer creates one, so there is no missing entry when tracking."""

    conn_type = "bloomreach"
    label = "Bloomreach Engagement"
    docs_url = "https://documentation.bloomreach.com/engagement/docs/add-event"
    default_host = "https://api.exponea.com"
    standard_fields = (
        StandardField("host", "API base URL", "https://api.exponea.com"),
        StandardField("login", "API key ID", "blank: public access"),
        StandardField("password", "API secret or public token", "Project settings > API", required=True),
    )
    extra_fields = (
        ExtraField("project_token", "Project token", "Project settings > Access management > API", required=True),
        ExtraField(
            "lookup_event_type",
            "Look-up event type",
            "Look customers up by one event of this type (needs Events > Get); blank: by export",
        ),
    )
    max_batch_size = 50
    max_in_flight = 32
    max_request_bytes = MAX_EVENT_BYTES
    fragment_overhead = len(_COMMAND_HEADS[-1]) + 2
    stringify_identity = True
    identity_keys = "any id names of the project (`registered`, `cookie`, …), one or more"
    deduplication = "the same customer, type, timestamp and properties with their types, for 90 days; never consents"

    def __init__(self, values: ConnectionValues) -> None:
        super().__init__(values)
        project = quote_segment(self.extra["project_token"])
        self._consents_noted = False
        self._track, self._data = f"/track/v2/projects/{project}", f"/data/v2/projects/{project}"

    def headers(self) -> dict[str, str]:
        """Private access (`Basic`) with a key ID, public access (`Token`) without."""
        if not self.login:
            return {"Authorization": f"Token {self.password}"}
        pair = b64encode(f"{self.login}:{self.password}".encode()).decode("ascii")
        return {"Authorization": f"Basic {pair}"}

    def quota(self, batch_size: int) -> float:
        """6,000 requests per minute and egress address."""
        return 6000

    def encode_content(self, content: EventContent) -> bytes:
        """`customer_ids`, `event_type`, `properties`, and `timestamp` in seconds with its microseconds."""
        _, name, identity, moment, properties, _ = content
        if name == CONSENT:
            self._note_consents()
        wire: dict[str, Any] = {
            "customer_ids": _customer_ids(identity),
            "event_type": name,
            "properties": properties,
        }
        if moment is not None:
            wire["timestamp"] = moment.timestamp()
        body = dumps(wire)
        if len(body) >= MAX_VALUE_BYTES:
            _check_sizes(body, properties)
        return body

    def encode_columns_fast(self, contents: EventColumns) -> Sequence[bytes] | None:
        """See `Codec.encode_columns_fast`."""
        _, names, identities, moments, properties, _ = contents
        ids = list(chain.from_iterable(map(dict.values, identities)))
        usual = all(map(str.isalnum, map(itemgetter(0), ids))) and _NO_IDS.isdisjoint(map(str.lower, ids))
        if moments is None or not usual:
            return None
        if CONSENT in names:
            self._note_consents()
        columns = zip(identities, names, properties, map(datetime.timestamp, moments), strict=True)
        wires = [{"customer_ids": i, "event_type": n, "properties": p, "timestamp": t} for i, n, p, t in columns]
        fragments = dumps_each(wires)
        return fragments if max(map(len, fragments)) < MAX_VALUE_BYTES else None

    def _note_consents(self) -> None:
        if not self._consents_noted:
            self._consents_noted = True
            log.warning("Bloomreach never drops a repeated consent event: one that is sent again is a second consent")

    def request(self, fragments: Sequence[bytes]) -> Request:
        """`POST …/customers/events` for one event, `POST …/batch` for more, each command with its `command_id`."""
        return self.posted("customers/events", _COMMAND_HEADS, fragments)

    def posted(self, name: str, heads: Sequence[bytes], fragments: Sequence[bytes]) -> Request:
        """One command by itself, or a batch of commands.

        :param heads: how each command of a batch begins.
        :raises ValueError: more commands than a batch takes.
        """
        if len(fragments) > len(heads):
            raise ValueError(f"{len(fragments)} commands are more than {len(heads)}")
        if len(fragments) == 1:
            return Request("POST", f"{self._track}/{name}", fragments[0])
        commands = b"},".join(map(add, heads, fragments))
        return Request("POST", f"{self._track}/batch", b'{"commands":[' + commands + b"}]}")

    def read(self, answer: Answer, count: int) -> Outcome | list[Outcome]:
        """A batch is read command by command: its own `success` hides failed commands."""
        data = json_body(answer)
        if not isinstance(data, dict):
            return by_status(answer)
        if answer.status == 200 and data.get("success") is True:
            return delivered() if count == 1 else _read_commands(data.get("results"), count)
        return _failure(answer, data)

    def lookup(self, identity: Mapping[str, str | int]) -> Request:
        """`POST …/customers/export-one`, or one event of the connection's look-up event type.

        https://documentation.bloomreach.com/engagement/reference/export-a-customer-2
        https://documentation.bloomreach.com/engagement/reference/export-events-2
        """
        if not self.login:
            raise ConfigurationError(
                f"connection {self.conn_id!r}: customers can be looked up with private access only; fill in the field "
                "'API key ID' (login), and the API secret as the password"
            )
        wanted: dict[str, Any] = {"customer_ids": _customer_ids(identity)}
        if (event_type := self.extra["lookup_event_type"]) is None:
            return Request("POST", f"{self._data}/customers/export-one", dumps(wanted))
        wanted |= {"event_types": [event_type], "order": "desc", "limit": 1, "skip": 0}
        return Request("POST", f"{self._data}/customers/events", dumps(wanted))

    def read_lookup(self, answer: Answer) -> Outcome:
        """200 with `success`, flat or in a `value`; the vendor's own words for a missing customer, by any status."""
        data = json_body(answer)
        if isinstance(data, dict):
            return found() if answer.status == 200 and data.get("success") is True else _failure(answer, data)
        # All events of a customer may be longer than what is read of an answer: only a profile is an object so long.
        cut_off = answer.status == 200 and len(answer.body) > MAX_EVENT_BYTES and answer.body.startswith(b"{")
        return found() if cut_off else by_status(answer)

    def lookup_quota(self) -> float:
        """That of tracking: none is published for reading, and both come from the same address."""
        return 6000

    def upserts(self) -> Upserts:
        """`POST …/customers`, or `customers` commands in a batch."""
        return CustomerUpserts(self)

    def probe(self) -> Request:
        """`GET …/system/time`."""
        return Request("GET", f"{self._track}/system/time")

    def read_probe(self, answer: Answer) -> Outcome:
        """200 with `success`."""
        outcome = self.read(answer, 1)
        return outcome if isinstance(outcome, Outcome) else outcome[0]


class CustomerUpserts(Upserts):
    """`update_timestamp` lets no older upsert overwrite a newer one, in whatever order they arrive.

    https://documentation.bloomreach.com/engagement/reference/update-customer-properties-2
    """

    def __init__(self, vendor: Bloomreach) -> None:
        super().__init__(vendor)
        self._vendor = vendor

    def encode_content(self, content: EventContent) -> bytes:
        """`customer_ids`, `properties` and `update_timestamp`."""
        _, _, identity, moment, properties, _ = content
        if not properties:
            raise InvalidEvent("properties", "Bloomreach updates no customer without at least one attribute")
        wire: dict[str, Any] = {"customer_ids": _customer_ids(identity), "properties": properties}
        if moment is not None:
            wire["update_timestamp"] = moment.timestamp()
        body = dumps(wire)
        if len(body) >= MAX_VALUE_BYTES:
            _check_sizes(body, properties)
        return body

    def request(self, fragments: Sequence[bytes]) -> Request:
        """`POST …/customers` for one, `POST …/batch` for more."""
        return self._vendor.posted("customers", _CUSTOMER_HEADS, fragments)

    def read(self, answer: Answer, count: int) -> Outcome | list[Outcome]:
        """As for events."""
        return self._vendor.read(answer, count)


def _customer_ids(identity: Mapping[str, str | int]) -> dict[str, str]:
    customer_ids: dict[str, str] = {}
    for name, value in identity.items():
        customer_ids[name] = text = str(value)
        if not (text[0].isalnum() or any(map(str.isalnum, text))) or text.lower() in _NO_IDS:
            raise InvalidEvent(f"identity.{name}", "an id needs a letter or digit, and is not null or undefined")
    return customer_ids


def _check_sizes(body: bytes, properties: Mapping[str, Any]) -> None:
    if len(body) >= MAX_EVENT_BYTES:
        raise InvalidEvent("event", f"an event has to stay below {MAX_EVENT_BYTES} bytes")
    for name, value in properties.items():
        if len(dumps(value)) >= MAX_VALUE_BYTES:
            raise InvalidEvent(f"properties.{name}", f"a value has to stay below {MAX_VALUE_BYTES} bytes")


def _read_commands(results: Any, count: int) -> Outcome | list[Outcome]:
    """One outcome per command, matched by `command_id`, else by position; a command without a result is retried."""
    if _all_delivered(results, count):
        return delivered()
    unanswered = Outcome(Verdict.RETRY, "http_200", "no result for this command")
    outcomes = [unanswered] * count
    if not isinstance(results, list):
        return outcomes
    positions = {str(position): position for position in range(count)}
    for index, result in enumerate(results):
        if not isinstance(result, dict):
            continue
        echoed = result.get("command_id")
        if echoed is None and len(results) == count:
            echoed = str(index)
        at = positions.pop(echoed, None) if isinstance(echoed, str) else None
        if at is not None:
            outcomes[at] = _command_outcome(result) or unanswered
    return outcomes


def _all_delivered(results: Any, count: int) -> bool:
    """Whether each command succeeded, as nearly always, and says by its id which one it is."""
    try:
        return list(map(_command_id, results)) == _COMMAND_IDS[:count] and all(map(_is_true, map(_success, results)))
    except (TypeError, KeyError):
        return False


def _command_outcome(result: dict[str, Any]) -> Outcome | None:
    """What one result says; None if it says neither success nor failure."""
    if result.get("success") is True:
        return delivered()
    reason = _reason(result)
    if result.get("success") is not False and not reason:
        return None
    return Outcome(_verdict(reason) or Verdict.REJECTED, "command_failed", reason or "failed without a reason")


def _failure(answer: Answer, data: dict[str, Any]) -> Outcome:
    """`error` is text; `errors` is text, a list, or an object with `_global` or `description`; `message` is text."""
    reason = _reason(data)
    code = f"http_{answer.status}"
    if is_transient(answer):
        return by_status(answer, code, reason)
    verdict = _verdict(reason)
    if verdict is None and answer.status < 300 and data.get("success") is False:
        verdict = Verdict.REJECTED
    return Outcome(verdict, code, reason) if verdict else by_status(answer, code, reason)


def _verdict(reason: str) -> Verdict | None:
    said = reason.lower()
    if any(refusal in said for refusal in _REFUSALS):
        return Verdict.FATAL
    return Verdict.MISSING if "customer does not exist" in said else None


def _reason(data: dict[str, Any]) -> str:
    errors = data.get("errors")
    if isinstance(errors, dict):
        errors = errors.get("_global") or errors.get("description") or list(errors.values())
    if not isinstance(errors, list):
        errors = [errors]
    said = [one_line(text) for text in (*errors, data.get("error"), data.get("message"))]
    return one_line("; ".join(text for text in said if text))
