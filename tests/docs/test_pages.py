"""All pages: links lead somewhere, code runs, tables say what the code does."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

import airflow_provider_events
from airflow_provider_events import values
from airflow_provider_events.contract import Answer, Outcome, Verdict
from airflow_provider_events.delivery import dead_letter
from airflow_provider_events.delivery.options import DeliveryOptions
from airflow_provider_events.delivery.pacing import RateLimiter
from airflow_provider_events.events import DeliveryReport, Receipt
from airflow_provider_events.get_provider_info import get_provider_info
from airflow_provider_events.operators.delivery import DeliveryOperator, EventDeliveryOperator
from airflow_provider_events.operators.entries import FilterByEntryOperator, UpsertEntryOperator
from airflow_provider_events.operators.events import SendEventOperator, SendEventsOperator
from airflow_provider_events.sensors.entry import EntryExistsSensor
from airflow_provider_events.sources import cursors
from airflow_provider_events.sources.mapping import EventMapping
from airflow_provider_events.transfers.sql_to_entries import SqlToEntriesOperator
from airflow_provider_events.transfers.sql_to_events import SqlDeliveryOperator, SqlToEventsOperator
from airflow_provider_events.vendors.base import ConnectionValues, Vendor, registry
from tests.docs.pages import DOCS, FILES, ROOT, anchors, code, defined, links, rows, section

PACKAGE = Path(airflow_provider_events.__file__).parent


# -- form ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_lead_somewhere(file: Path) -> None:
    astray = []
    for target in links(file):
        path, _, anchor = target.partition("#")
        linked = file.parent / path if path else file
        if target.startswith(("https://", "mailto:")):
            continue
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            astray.append(target)
    assert astray == []


def test_every_page_is_linked() -> None:
    linked = {(file.parent / target.partition("#")[0]).resolve() for file in FILES for target in links(file)}
    assert [str(file.relative_to(ROOT)) for file in FILES if DOCS in file.parents and file not in linked] == []


# -- what the tables say ---------------------------------------------------------------------------------------------


def test_the_types_of_values_are_those_of_the_module() -> None:
    assert rows(section("delivery", "Types of values")) == rows(inspect.getdoc(values) or "")


def test_the_cursors_are_those_of_the_module() -> None:
    assert rows(section("sql", "key_column, or a cursor")) == rows(inspect.getdoc(cursors) or "")


def test_the_counts_are_those_of_the_report() -> None:
    shown = {code(name)[0]: meaning for name, meaning in rows(section("delivery", "Every event is accounted for"))}
    documented = re.findall(r":param (\w+): (.+?)\.?(?=\n:|$)", inspect.getdoc(DeliveryReport) or "", re.DOTALL)
    assert shown == {name: " ".join(meaning.split()) for name, meaning in documented if name != "vendor"}
    assert {*shown, "vendor", "version"} == set(DeliveryReport.__dataclass_fields__)
    receipt = section("delivery", "Every event is accounted for").rpartition("returns its receipt:")[2]
    assert set(code(receipt)) == set(Receipt.__dataclass_fields__)


def test_the_keys_of_rejected_files_are_those_of_the_module() -> None:
    named = [name for row in rows(section("delivery", "Rejected events")) for name in code(row[0])]
    assert named == [name for row in rows(inspect.getdoc(dead_letter) or "") for name in code(row[0])]


def test_the_options_and_their_defaults_are_those_of_the_operators() -> None:
    cells = [(code(names), default) for names, default, _ in rows(section("delivery", "Options"))]
    shown = {name: default for names, default in cells for name in names}
    parameters: dict[str, inspect.Parameter] = {}
    for operator in (SqlDeliveryOperator, SendEventsOperator, EventDeliveryOperator, DeliveryOperator):
        parameters |= inspect.signature(operator).parameters
    assert set(shown) == set(parameters) - {"kwargs"}
    for name, default in shown.items():
        if default.startswith("`") and not default.startswith("`["):
            assert ast.literal_eval(code(default)[0]) == parameters[name].default, name
        else:
            assert parameters[name].default in (None, inspect.Parameter.empty), name


def test_the_options_that_are_marked_are_those_that_the_hook_does_not_take() -> None:
    shown = [names for names, _, _ in rows(section("delivery", "Options"))]
    marked = {name for names in shown if names.endswith("*") for name in code(names)}
    taken = {*DeliveryOptions.__dataclass_fields__, "mapping", "rejected_path"}
    assert {name for names in shown for name in code(names)} - taken == marked


def test_the_mapping_options_are_those_of_the_model() -> None:
    shown = [code(row[0])[0] for row in rows(section("sql", "The mapping"))]
    assert sorted(shown) == sorted(EventMapping.model_fields)
    assert EventMapping.model_fields["nulls"].default == "drop"


def test_the_templated_fields_are_those_of_the_operators() -> None:
    classes: list[Any] = [SendEventOperator, SendEventsOperator, SqlToEventsOperator, SqlToEntriesOperator]
    classes += [UpsertEntryOperator, FilterByEntryOperator, EntryExistsSensor]
    operators = {operator.__name__: set(operator.template_fields) for operator in classes}
    *own, (every, shared) = rows(section("airflow", "Templates"))
    assert every == "every delivery"
    for names, fields in own:
        for name in code(names):
            shown = {field for field in code(fields) if field != ".sql"}
            if every in fields:
                shown |= set(code(shared))
            assert operators.pop(name) == shown, name
    assert not operators


def test_each_place_where_something_is_stored_is_proved_by_a_test() -> None:
    places = [row for row in rows((DOCS / "security.md").read_text()) if row[0] != "place"]
    assert len(places) > 20
    for place, *_, tests in places:
        files = code(tests)
        assert files, place
        assert all((ROOT / file).is_file() for file in files), place


def test_the_settings_are_those_of_the_provider() -> None:
    config: Any = get_provider_info()["config"]
    assert [code(row[0])[0] for row in rows(section("airflow", "Settings"))] == list(config["events"]["options"])


def test_the_paces_are_those_that_the_vendors_publish() -> None:
    shown = {row[0]: row[2] for row in rows(section("delivery", "Quotas and pace"))}
    for name, conn_type, batch_size in (
        ("WebEngage", "webengage", 25),
        ("WebEngage, `batch_size=1`", "webengage", 1),
        ("Bloomreach", "bloomreach", 50),
    ):
        interval = RateLimiter(vendor_named(conn_type).quota(batch_size))._interval
        assert int(batch_size / interval + 1e-6) == int(shown[name].replace(",", ""))
    for conn_type in ("embeddables", "vibetrace"):
        assert vendor_named(conn_type).quota(1) is None
        assert vendor_named(conn_type).max_in_flight == 16


def test_the_profile_names_functions_that_are_there() -> None:
    """Where one was renamed: make bench BENCH="--only profile"."""
    shown = [
        (code(name)[0], code(file)[0]) for name, file, _ in rows(section("performance", "What costs what")) if file
    ]
    ours = [(re.sub(r"\.<.*", "", name), file) for name, file in shown if file.startswith(PACKAGE.name)]
    assert len(ours) > 10
    assert [name for name, file in ours if name not in defined() or not (ROOT / file).exists()] == []


# -- troubleshooting -------------------------------------------------------------------------------------------------

BECOMES = {
    "rejected": Verdict.REJECTED,
    "missing entry": Verdict.MISSING,
    "refused": Verdict.FATAL,
    "later": Verdict.RETRY,
}
BODIES: dict[str, Callable[[str], Any]] = {
    "embeddables": lambda text: {"error": {"code": text, "message": text}},
    "vibetrace": lambda text: {"errors": [{"message": text}]},
    "webengage": lambda text: {"response": {"message": text, "status": "error"}},
    "bloomreach": lambda text: {"success": False, "errors": [text]},
}
TITLES = {
    "embeddables": "What Embeddables says",
    "vibetrace": "What Vibetrace says",
    "webengage": "What WebEngage says",
    "bloomreach": "What Bloomreach says",
}


def vendor_named(conn_type: str) -> Vendor:
    vendor = registry()[conn_type]
    extra = {field.name: "example" for field in vendor.extra_fields if field.required}
    return vendor(ConnectionValues("example", password="example", extra=extra))


def answers() -> Iterator[Any]:
    for conn_type, title in TITLES.items():
        for status, text, becomes, _ in rows(section("troubleshooting", title)):
            yield pytest.param(
                conn_type, int(status), (code(text) or ["Something else"])[0], becomes, id=f"{conn_type}-{text}"
            )


@pytest.mark.parametrize(("conn_type", "status", "text", "becomes"), list(answers()))
def test_each_answer_becomes_what_the_page_says(conn_type: str, status: int, text: str, becomes: str) -> None:
    body = orjson.dumps(BODIES[conn_type](text))
    outcome = vendor_named(conn_type).read(Answer(status, {}, body), 1)
    assert isinstance(outcome, Outcome)
    assert outcome.verdict is BECOMES[becomes]
    assert text in (outcome.code, outcome.reason)


def own_texts() -> list[str]:
    return [code(row[0])[0] for row in rows(section("troubleshooting", "What this package says"))]


def literals() -> str:
    """All texts in the package's source, with a NUL wherever something is filled in."""
    found: list[str] = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


@pytest.mark.parametrize("text", own_texts())
def test_each_text_of_our_own_is_in_the_code(text: str) -> None:
    source = literals()
    reason = re.sub(r"^invalid: [\w.…]+: ", "", text)
    fixed = [part.strip(" :,.;?()") for part in re.split(r"'…'|…|: |\(", reason)]
    assert max(map(len, fixed)) > 8
    assert [part for part in fixed if part not in source] == []
