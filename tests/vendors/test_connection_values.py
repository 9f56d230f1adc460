"""What people write into a connection, and what a vendor makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.vendors.base import COMMON_EXTRAS, ConnectionValues, ExtraField, registry
from airflow_provider_events.vendors.vibetrace import Vibetrace


def vibetrace(host: str | None = None, **fields: Any) -> Vibetrace:
    return Vibetrace(ConnectionValues("vibetrace_default", **{"host": host, "password": "key", **fields}))


def refusal(**fields: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        vibetrace(**fields)
    assert "'vibetrace_default'" in str(error.value)
    return str(error.value)


# -- base URL ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "fields", "url"),
    [
        (None, {}, "https://api.vtcdn.net/v1"),
        ("", {}, "https://api.vtcdn.net/v1"),
        ("   ", {"port": 8080}, "https://api.vtcdn.net/v1"),
        ("api.example.com", {}, "https://api.example.com"),
        ("api.example.com/v1", {}, "https://api.example.com/v1"),
        ("api.example.com/v1/", {}, "https://api.example.com/v1"),
        ("api.example.com/v1//", {}, "https://api.example.com/v1"),
        ("https://api.example.com", {}, "https://api.example.com"),
        (" https://api.example.com/ ", {}, "https://api.example.com"),
        ("HTTPS://API.example.com", {}, "https://api.example.com"),
        ("http://127.0.0.1:8099", {}, "http://127.0.0.1:8099"),
        ("http://127.0.0.1:8099/vibetrace", {}, "http://127.0.0.1:8099/vibetrace"),
        ("127.0.0.1", {"port": 8099, "scheme": "http"}, "http://127.0.0.1:8099"),
        ("127.0.0.1:8099", {"scheme": "http"}, "http://127.0.0.1:8099"),
        ("127.0.0.1:8099", {"scheme": "http", "port": 1}, "http://127.0.0.1:8099"),
        ("http://127.0.0.1", {"port": 8099}, "http://127.0.0.1:8099"),
        ("api.example.com", {"scheme": "public"}, "https://api.example.com"),
        ("[::1]", {"port": 8099, "scheme": "http"}, "http://[::1]:8099"),
        ("http://[::1]:8099/v1", {}, "http://[::1]:8099/v1"),
    ],
)
def test_the_host_is_all_that_comes_before_the_resource(host: str | None, fields: dict[str, Any], url: str) -> None:
    assert vibetrace(host, **fields).base_url == url


@pytest.mark.parametrize(
    "host",
    [
        "ftp://api.example.com",
        "file:///etc/passwd",
        "https://",
        "//api.example.com",
        "::1",
        "https://api.example.com:port",
        "https://api.example.com:99999",
        "https://[::1",
        "https://api.example.com/v1?key=1",
        "https://api.example.com#v1",
        "https://api example.com",
    ],
)
def test_a_host_that_is_no_url_is_refused_with_one_that_is(host: str) -> None:
    assert "https://api.vtcdn.net/v1" in refusal(host=host)


@pytest.mark.parametrize("host", ["https://key@api.example.com", "https://me:key@api.example.com", "me:key@h.com"])
def test_credentials_have_no_place_in_the_host(host: str) -> None:
    assert "credentials" in refusal(host=host)


# -- extra -------------------------------------------------------------------------------------------------------------


def field(name: str) -> ExtraField:
    return next(extra for extra in COMMON_EXTRAS if extra.name == name)


@pytest.mark.parametrize(
    ("name", "given", "read"),
    [
        ("requests_per_minute", None, None),
        ("requests_per_minute", "", None),
        ("requests_per_minute", "60", 60.0),
        ("requests_per_minute", 0.5, 0.5),
        ("requests_per_minute", 0.1, 0.1),
        ("max_in_flight", None, None),
        ("max_in_flight", 4, 4),
        ("max_in_flight", "4", 4),
        ("max_in_flight", " 4 ", 4),
        ("max_in_flight", 4.0, 4),
        ("batch_size", 1, 1),
        ("timeout", None, 30),
        ("timeout", "2.5", 2.5),
        ("verify", None, None),
        ("verify", True, "true"),
        ("verify", False, "false"),
        ("verify", " /etc/ssl/ca.pem ", "/etc/ssl/ca.pem"),
        ("proxy", None, None),
        ("proxy", "http://proxy.example.com:3128", "http://proxy.example.com:3128"),
    ],
)
def test_shared_extras_are_read_in_their_type(name: str, given: Any, read: Any) -> None:
    value = vibetrace(extra={name: given}).extra[name]
    assert (value, type(value)) == (read, type(read))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("requests_per_minute", "fast"),
        ("requests_per_minute", 0),
        ("requests_per_minute", -1),
        ("requests_per_minute", 0.09),
        ("requests_per_minute", "nan"),
        ("requests_per_minute", True),
        ("requests_per_minute", [60]),
        ("max_in_flight", 0),
        ("max_in_flight", -4),
        ("max_in_flight", "4.5"),
        ("max_in_flight", 4.5),
        ("max_in_flight", float("inf")),
        ("max_in_flight", float("nan")),
        ("max_in_flight", True),
        ("max_in_flight", {}),
        ("batch_size", 0),
        ("batch_size", "all"),
        ("timeout", 0),
        ("timeout", "soon"),
        ("proxy", "http://[::1"),
    ],
)
def test_a_wrong_extra_is_named_by_key_and_label(name: str, given: Any) -> None:
    said = refusal(extra={name: given})
    assert f"{name!r}" in said
    assert f"{field(name).label!r}" in said


@pytest.mark.parametrize(
    ("given", "read"),
    [(None, False), ("", False), (True, True), (False, False), ("true", True), (" False ", False), ("TRUE", True)],
)
def test_a_switch_is_read_from_json_and_from_text(given: Any, read: bool) -> None:
    assert ExtraField("a", "A", "", "boolean", default=False).read(given) is read


@pytest.mark.parametrize("given", ["yes", "1", 1, 0, [], "truth"])
def test_a_switch_is_true_or_false_and_nothing_like_it(given: Any) -> None:
    with pytest.raises(ValueError, match="has to be true or false"):
        ExtraField("a", "A", "", "boolean", default=False).read(given)


def test_an_unknown_key_is_refused_even_when_blank() -> None:
    assert "unknown extra key 'time_out'; did you mean 'timeout'?" in refusal(extra={"time_out": ""})


def test_every_field_of_the_form_has_a_schema_that_takes_its_default() -> None:
    for extra in COMMON_EXTRAS:
        schema = extra.schema()
        assert schema["type"] == [extra.type, "null"]
        assert schema.get("default") == extra.default
        assert schema.get("minimum") == extra.minimum


def test_a_required_field_is_not_nullable_and_choices_are_listed() -> None:
    required = ExtraField("a", "A", "", required=True)
    chosen = ExtraField("b", "B", "", choices=("x", "y"), default="x")
    assert required.schema() == {"type": "string"}
    assert chosen.schema() == {"type": ["string", "null"], "enum": ["x", "y"], "default": "x"}


# -- hosts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://BÜCHER.example/v1", "https://xn--bcher-kva.example/v1"),
        ("bücher.example", "https://xn--bcher-kva.example"),
        ("https://例え.テスト", "https://xn--r8jz45g.xn--zckzah"),
        ("https://faß.example", "https://xn--fa-hia.example"),
        ("https://api.example.com.", "https://api.example.com"),
        ("https://api.example.com:443/v1", "https://api.example.com/v1"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("https://api_internal.example", "https://api_internal.example"),
        ("https://10.0.0.1", "https://10.0.0.1"),
        ("https://[2001:DB8::1]", "https://[2001:db8::1]"),
    ],
)
def test_a_host_travels_in_ascii_once(host: str, url: str) -> None:
    assert vibetrace(host).base_url == url


@pytest.mark.parametrize(
    "host",
    [
        "https:/api.example.com",
        "https:api.example.com",
        "https:///api.example.com",
        "https://https://api.example.com",
        "http://https//api.example.com",
        "https://api..example.com",
        "https://.example.com",
        "https://-api.example.com",
        "https://api-.example.com",
        "https://" + "a" * 64 + ".example.com",
        "https://" + "a." * 130 + "com",
        "https://api.example.com:",
        "https://api.example.com:0",
        "https://api.example.com:-1",
        "https://api.example.com/a b",
        "https://api.example.com/../v1",
        "https://api.example.com/v1/./x",
        "https://api.example.com\\v1",
        "https://api.example.com/\r\nX: y",
        "https://api.example.com/v1?",
        "https://300.1.1.1",
        "https://127.1",
        "https://[fe80::1%25eth0]",
        "https://[1.2.3.4]",
        "https://ex!ample.com",
        "https://exa\u200bmple\u2028.com",
        "https://xn--\u00fc.com",
        "https://*.example.com",
        "wss://api.example.com",
    ],
)
def test_what_can_be_no_host_is_refused_where_the_connection_is_read(host: str) -> None:
    words = refusal(host=host)
    assert "the host has to be a URL such as https://api.vtcdn.net/v1" in words or "credentials" in words


@pytest.mark.parametrize("port", [65536, 100_000, -1])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    assert "the host has to be a URL" in refusal(host="https://api.example.com", port=port)


@pytest.mark.parametrize(
    "word", ["Bearer ", "bearer  ", "Token ", "TOKEN ", "Authorization: Bearer ", "authorization:Token "]
)
def test_a_key_that_was_copied_with_the_word_before_it_is_sent_without(word: str) -> None:
    for vendor in registry().values():
        required = {extra.name: "given" for extra in vendor.extra_fields if extra.required}
        plain = vendor(ConnectionValues("c", password="the-key", extra=required)).headers()
        assert vendor(ConnectionValues("c", password=f"{word}the-key", extra=required)).headers() == plain


@pytest.mark.parametrize("key", ["ke\ny", "k\u00e9y", "ke\ty", "ke\u200by", "\u201ckey\u201d", "k\x00y"])
def test_a_key_that_no_header_can_carry_is_named_as_a_field(key: str) -> None:
    words = refusal(password=key)
    assert "'API key' (password) holds a character that no key has" in words
    assert key not in words


@pytest.mark.parametrize(
    ("proxy", "meant"),
    [
        ("http://proxy.test:3128", "http://proxy.test:3128"),
        ("http://proxy.test:3128/", "http://proxy.test:3128"),
        ("http://me:p%40ss@proxy.test", "http://me:p%40ss@proxy.test"),
        ("https://proxy.test", "https://proxy.test"),
        ("http://bücher.test:1", "http://xn--bcher-kva.test:1"),
    ],
)
def test_a_proxy_is_read_as_a_host_is(proxy: str, meant: str) -> None:
    assert vibetrace(extra={"proxy": proxy}).extra["proxy"] == meant


@pytest.mark.parametrize(
    "proxy", ["proxy.test:3128", "socks5://p:1", "http://p:0", "http://p/path", "http://p:x", "http://a b"]
)
def test_what_can_be_no_proxy_is_refused(proxy: str) -> None:
    assert "'Proxy URL' (extra key 'proxy') has to be a URL" in refusal(extra={"proxy": proxy})
