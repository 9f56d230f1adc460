"""A vendor's words lose what they repeat of a key or a customer, in whatever spelling."""

from __future__ import annotations

import json
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from html import escape
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_events.contract import Outcome, Verdict
from airflow_provider_events.redaction import Private, Redactor, nobody
from tests import spellings

SECRET = "s3cr3t/Key+with=odd&chars%20"
EMAIL = "Ada.O'\u00f6+X@example.com"


def clean(text: str, identity: Any = None, values: Any = (), secrets: tuple[str, ...] = ()) -> str:
    """A reason that concerns one customer."""
    return Redactor(secrets).words(text, lambda: [Private(identity or {}, values)])


@pytest.mark.parametrize(
    ("text", "identity", "shown"),
    [
        ("user ada@example.com is unknown", {"email": "ada@example.com"}, "user *** is unknown"),
        ("7123 and 7123", {"id": 7123}, "*** and ***"),
        ("a b", {"id": "a"}, "a b"),
        ("nothing of it", {"email": "ada@example.com"}, "nothing of it"),
        ("customer cus_9 of the customers", {"id": "cus"}, "customer ***_9 of the customers"),
        ("'abc' is unknown, abcd is not", {"id": "abc"}, "'***' is unknown, abcd is not"),
        ("no strasse 5 here", {"id": "Straße 5"}, "no *** here"),
        ("no JOSE NUNEZ here", {"id": "José Núñez"}, "no *** here"),
        ("no Ada+Lovelace here", {"id": "Ada Lovelace"}, "no *** here"),
        ("no ab\u200bcde here", {"id": "abcde"}, "no *** here"),
        ("", {}, ""),
    ],
)
def test_the_ids_of_the_request_are_taken_out(text: str, identity: dict[str, Any], shown: str) -> None:
    assert clean(text, identity) == shown


SPELLINGS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "upper": str.upper,
    "lower": str.lower,
    "url": quote,
    "url, every character": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "form": quote_plus,
    "url twice": lambda text: quote(quote(text)),
    "url, upper": lambda text: quote(text).upper(),
    "html": escape,
    "html, decimal": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "html, hexadecimal": lambda text: "".join(f"&#x{ord(char):X};" for char in text),
    "html, upper": lambda text: escape(text).upper(),
    "json": lambda text: json.dumps(text)[1:-1],
    "json, every character": lambda text: "".join(f"\\u{ord(char):04x}" for char in text),
    "json in json": lambda text: json.dumps(json.dumps(text)),
    "url of html": lambda text: quote(escape(text)),
    "base64": lambda text: b64encode(text.encode()).decode(),
    "base64, url-safe": lambda text: urlsafe_b64encode(text.encode()).decode(),
    "base64, unpadded": lambda text: b64encode(text.encode()).decode().rstrip("="),
    "base64, upper": lambda text: b64encode(text.encode()).decode().upper(),
    "base64 of a body": lambda text: b64encode(json.dumps({"q": [1, text]}, ensure_ascii=False).encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "url, of scripts": lambda text: "".join(f"%u{ord(char):04x}" for char in text),
    "html, unended": lambda text: "".join(f"&#{ord(char)}" for char in text),
    "html, zeros before": lambda text: "".join(f"&#{ord(char):09d};" for char in text),
    "eight digits": lambda text: "".join(f"\\U{ord(char):08x}" for char in text),
    "braces": lambda text: "".join(f"\\u{{{ord(char):x}}}" for char in text),
    "octal": lambda text: "".join(f"\\{ord(char):03o}" for char in text),
    **spellings.SPELLINGS,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(
    ("private", "options"),
    [
        (EMAIL, {"identity": {"email": EMAIL}}),
        ("customer number 7", {"identity": {"id": "customer number 7"}}),
        (SECRET, {"secrets": (SECRET,)}),
        ("short-ke", {"secrets": ("short-ke",)}),
    ],
)
def test_every_spelling_is_taken_out(private: str, options: dict[str, Any], spelling: str) -> None:
    said = SPELLINGS[spelling](private)
    shown = clean(f"no <{said}> here", **options)
    assert shown.replace('"', "").replace("\\", "") == "no <***> here"


APART: dict[str, Callable[[str], str]] = {
    "by spaces": " ".join,
    "as a list": lambda text: json.dumps(list(text), ensure_ascii=False),
    "in halves": lambda text: f"{text[:7]}; {text[7:]}",
    "by other hyphens": lambda text: text.replace("-", "\u2011"),
    "as bytes": lambda text: text.encode().hex(":"),
    "as bytes, upper": lambda text: text.encode().hex(" ").upper(),
}


@pytest.mark.parametrize("spelling", APART)
@pytest.mark.parametrize(
    ("private", "options"),
    [
        ("Cust-Zxq81", {"identity": {"id": "Cust-Zxq81"}}),
        ("7123-456-789", {"identity": {"id": "7123-456-789"}}),
        ("s3cr3t-k3y", {"secrets": ("s3cr3t-k3y",)}),
    ],
)
def test_what_is_pulled_apart_is_taken_out(private: str, options: dict[str, Any], spelling: str) -> None:
    shown = clean(f"no <{APART[spelling](private)}> here", **options)
    assert shown.replace("[", "").replace("]", "").replace('"', "") == "no <***> here"


def test_a_long_value_that_is_pulled_apart_is_taken_out() -> None:
    shown = clean("no <L-o-v-e-l-a-c-e, 12 Example Street> here", {}, ({"who": "Lovelace 12 Example Street"},))
    assert shown == "no <***> here"


@pytest.mark.parametrize("cut", range(1, 10))
def test_what_is_split_over_code_and_reason_is_taken_out_of_both(cut: int) -> None:
    private = "Cust-Zxq81"
    said = Outcome(Verdict.REJECTED, f"no_{private[:cut]}", f"{private[cut:]} is unknown")
    shown = Redactor().outcome(said, lambda: [Private({"id": private})])
    assert (shown.code, shown.reason) == ("no_***", "*** is unknown")


def test_words_that_only_together_resemble_a_short_value_stay() -> None:
    assert clean("number linked twice", {}, ({"city": "Berlin"},)) == "number linked twice"


VALUES = {
    "text": ("12 Example Street", "12 Example Street"),
    "one word": ("Lovelace", "Lovelace"),
    "a part of a long text": ("her diary of the year was long and dull", "diary of the year"),
    "nested": ({"notes": [{"by": "Lovelace"}]}, "Lovelace"),
    "an object's key": ({"Lovelace": 1}, "Lovelace"),
    "number": (123456.5, "123456.5"),
    "bytes": (b"Lovelace", b64encode(b"Lovelace").decode()),
}


@pytest.mark.parametrize("case", VALUES)
def test_longer_values_of_properties_are_taken_out(case: str) -> None:
    value, said = VALUES[case]
    shown = clean(f"value '{said}' is too long", {"id": "c-1"}, ({"column": value}, None))
    assert shown == "value '***' is too long"


def test_names_of_columns_and_short_values_stay_for_they_say_what_is_wrong() -> None:
    assert clean("attribute total is paid", {}, ({"total": "x", "state": True},)) == "attribute total is paid"
    assert clean("repaid, unpaid", {}, ({"state": "paid"},)) == "repaid, unpaid"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ask bob@example.org", "ask ***"),
        ("ask bob%40example.org or bob&#64;example.org", "ask *** or ***"),
        ("call +40 722 123 456 now", "call *** now"),
        ("key rk_live_7f3a9c1b2d4e is wrong", "key *** is wrong"),
        ("id 3f2b8a1c-9d4e-4f6a-8b7c-1d2e3f4a5b6c", "id ***"),
        (
            "use https://docs.example.com/rest-api-tracking-users",
            "use https://docs.example.com/rest-api-tracking-users",
        ),
        ("entry_not_found_in_the_project_at_all", "entry_not_found_in_the_project_at_all"),
        ("since 2026-03-01T09:30:00Z, at most 1048576 bytes", "since 2026-03-01T09:30:00Z, at most 1048576 bytes"),
        ("a\nforged line \x1b[31m \u202eend", "a forged line [31m end"),
    ],
)
def test_what_looks_like_an_address_a_number_or_a_key_is_taken_out_whoever_wrote_it(text: str, shown: str) -> None:
    assert clean(text) == shown


@pytest.mark.parametrize("before", range(150, 420, 7))
def test_a_text_is_cut_after_it_was_cleaned(before: int) -> None:
    """What is cut first leaves the beginning of a key behind."""
    text = ("x " * 300)[:before] + SECRET * 5
    shown = clean(text, secrets=(SECRET,))
    assert len(shown) <= 200
    assert SECRET[:4] not in shown


def test_codes_are_cleaned_and_outcomes_without_words_stay_as_they_are() -> None:
    redactor = Redactor([SECRET])
    silent = [Outcome(Verdict.DELIVERED), Outcome(Verdict.RETRY, "http_500")]
    assert redactor.outcomes(silent, pytest.fail) is silent
    said = [*silent, Outcome(Verdict.REJECTED, f"no_{EMAIL}", SECRET), Outcome(Verdict.MISSING, "y" * 500)]
    clean = redactor.outcomes(said, lambda: [Private({"email": EMAIL})])
    assert clean[:2] == silent
    assert clean[2] == (Verdict.REJECTED, "no_***", "***", None)
    assert len(clean[3].code) == 60


@pytest.mark.parametrize("text", ["", None, f"id-{EMAIL}", f"r-{SECRET}", "bob@example.org", "r-" + quote(SECRET)])
def test_an_id_that_repeats_something_is_none(text: str | None) -> None:
    assert Redactor([SECRET]).label(text, lambda: [Private({"email": EMAIL})]) is None


def test_an_id_of_the_vendors_own_stays() -> None:
    own = "3f2b8a1c-9d4e-4f6a-8b7c-1d2e3f4a5b6c"
    assert Redactor([SECRET]).label(own, nobody) == own


def test_the_scheme_of_a_credential_is_a_word_like_any_other() -> None:
    assert clean("Bearer token needed", secrets=("Bearer abcdefghijk", "abcdefghijk")) == "Bearer token needed"


@given(st.text(max_size=500), st.text(min_size=3, max_size=30), st.sampled_from(sorted(SPELLINGS)))
def test_nothing_it_reads_breaks_it_and_the_words_are_one_line(text: str, private: str, spelling: str) -> None:
    said = text + SPELLINGS[spelling](private.encode(errors="ignore").decode())
    shown = clean(said, {"id": private}, ({"p": private},), (private,))
    assert shown.isprintable()
    assert len(shown) <= 200


@given(st.text("abcdefghij0123456789 @.+-_'\u00f6\"<&", min_size=6, max_size=40), st.sampled_from(sorted(SPELLINGS)))
def test_no_id_survives_in_any_spelling(private: str, spelling: str) -> None:
    if sum(map(str.isalnum, private)) < 5:
        return
    shown = clean(f"no <{SPELLINGS[spelling](private)}> here", {"id": private})
    assert " ".join(private.split()) not in shown


def test_a_batch_of_long_events_is_cleaned_in_milliseconds() -> None:
    about = [
        Private({"id": f"customer-{n}"}, ({f"p{k}": f"some value {n} {k}" for k in range(20)},)) for n in range(50)
    ]
    outcomes = [Outcome(Verdict.REJECTED, "c", f"customer-{n} has some value {n} 7 " + "x" * 150) for n in range(50)]
    started = time.process_time()
    clean = Redactor([SECRET]).outcomes(outcomes, lambda: about)
    assert time.process_time() - started < 1
    assert all(outcome.reason.startswith("*** has *** ") for outcome in clean)
