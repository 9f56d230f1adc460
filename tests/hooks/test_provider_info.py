"""What Airflow is told of this provider, and what it makes of that: form, CLI, API; and what importing it costs."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.resources
import json
import subprocess
import sys
from typing import Any

import jsonschema
import pytest

import airflow_provider_events
from airflow_provider_events.get_provider_info import get_provider_info
from airflow_provider_events.hooks.base import EventsHook
from airflow_provider_events.vendors.base import registry
from scripts import generate_provider_info as generator
from tests.delivery.harness import VENDORS

PACKAGE = "airflow-provider-events"


def info() -> dict[str, Any]:
    """The provider's metadata."""
    return dict(get_provider_info())


def connection_type(vendor: str) -> dict[str, Any]:
    """What it says of one connection type."""
    (found,) = (entry for entry in info()["connection-types"] if entry["connection-type"] == vendor)
    return dict(found)


# -- the metadata --------------------------------------------------------------------------------------------------


def test_it_is_valid_for_the_installed_airflow() -> None:
    """One wrong key would take all of Airflow down."""
    schema = json.loads(importlib.resources.files("airflow").joinpath("provider_info.schema.json").read_text())
    jsonschema.validate(info(), schema)


def test_its_module_imports_nothing() -> None:
    module = importlib.import_module("airflow_provider_events.get_provider_info")
    tree = ast.parse(importlib.resources.files("airflow_provider_events").joinpath("get_provider_info.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert names <= {"dict", "str", "object"}
    assert module.get_provider_info() == info()


def test_it_is_found_through_the_entry_point_and_names_this_version() -> None:
    points = importlib.metadata.entry_points(group="apache_airflow_provider")
    assert get_provider_info in [point.load() for point in points if point.dist and point.dist.name == PACKAGE]
    assert info()["package-name"] == PACKAGE
    assert info()["versions"][0] == airflow_provider_events.__version__ == importlib.metadata.version(PACKAGE)


def test_it_knows_every_vendor_and_no_other() -> None:
    assert [entry["connection-type"] for entry in info()["connection-types"]] == VENDORS
    assert set(registry()) == set(VENDORS)


@pytest.mark.parametrize("section", ["integrations", "connection-types"])
def test_it_says_what_the_vendors_say(section: str) -> None:
    assert info()[section] == generator.sections()[section]
    assert [entry["connection-type"] for entry in generator.sections()["connection-types"]] == VENDORS


def test_the_command_writes_what_has_changed_and_nothing_else() -> None:
    source, said = generator.MODULE.read_text(), generator.sections()
    said["integrations"] = [{"integration-name": "Other"}]
    said["connection-types"][0]["hook-name"] = "Another"
    written: dict[str, Any] = {}
    exec(generator.replaced(source, said), written)
    assert written["get_provider_info"]() == {**info(), **said}
    assert generator.main(["--check"]) == 0


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_hook_classes_exist_and_agree(vendor: str) -> None:
    declared = connection_type(vendor)
    module, _, name = declared["hook-class-name"].rpartition(".")
    hook: type[EventsHook] = getattr(importlib.import_module(module), name)
    assert issubclass(hook, EventsHook)
    assert (hook.conn_type, hook.hook_name) == (vendor, declared["hook-name"])
    assert (hook.conn_name_attr, hook.default_conn_name) == ("conn_id", f"{vendor}_default")


def test_the_modules_it_names_exist() -> None:
    sections = [entry for section in ("hooks", "operators", "sensors", "triggers") for entry in info().get(section, [])]
    modules = [module for entry in sections for module in entry["python-modules"]]
    modules += [entry["python-module"] for entry in info().get("transfers", [])]
    assert len(modules) > 4
    for module in modules:
        importlib.import_module(module)


# -- what Airflow makes of it --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_airflows_command_line_shows_it() -> None:
    commands = {
        "list": ["providers", "list", "--output", "json"],
        "get": ["providers", "get", PACKAGE, "--full", "--output", "json"],
        "hooks": ["providers", "hooks", "--output", "json"],
    }
    running = {
        name: subprocess.Popen([sys.executable, "-m", "airflow", *arguments], stdout=subprocess.PIPE, text=True)
        for name, arguments in commands.items()
    }
    said = {name: process.communicate(timeout=100)[0] for name, process in running.items()}
    assert {process.returncode for process in running.values()} == {0}
    assert f'"package_name": "{PACKAGE}"' in said["list"]
    assert all(f"hooks.{vendor}" in said["get"] for vendor in VENDORS)
    hooks = json.loads(said["hooks"][said["hooks"].index("[") :])
    ours = {entry["connection_type"]: entry for entry in hooks if entry["package_name"] == PACKAGE}
    assert set(ours) == set(VENDORS)
    assert all(ours[vendor]["hook_name"] == registry()[vendor].label for vendor in VENDORS)


@pytest.fixture(scope="module")
def form() -> dict[str, Any]:
    """What Airflow's own API gives the connection form, by connection type."""
    connections = pytest.importorskip(
        "airflow.api_fastapi.core_api.services.ui.connections", reason="needs the API of Airflow 3"
    )
    from airflow.providers_manager import ProvidersManager

    if not hasattr(ProvidersManager, "iter_connection_type_hook_ui_metadata"):
        pytest.skip("before Airflow 3.2 the form is drawn from the hooks' own methods")
    return {entry.connection_type: entry for entry in connections.HookMetaService.hook_meta_data()}


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_api_gives_the_form_its_fields(vendor: str, form: dict[str, Any]) -> None:
    entry, declared, vendor_class = form[vendor], connection_type(vendor), registry()[vendor]
    assert entry.hook_name == vendor_class.label
    assert set(entry.extra_fields) == set(declared["conn-fields"])
    for name, field in declared["conn-fields"].items():
        shown = entry.extra_fields[name]
        assert shown["description"] == field["description"]
        assert shown["schema"]["title"] == field["label"]
        assert shown["schema"]["type"] == field["schema"]["type"]
        assert shown["schema"].get("enum") == field["schema"].get("enum")
        assert shown["value"] == field["schema"].get("default")


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_api_names_the_standard_fields_as_the_vendor_does_and_hides_the_others(
    vendor: str, form: dict[str, Any]
) -> None:
    standard = form[vendor].standard_fields
    used = {field.name: field for field in registry()[vendor].all_standard_fields()}
    assert {"host", "password", "port"} <= set(used)
    for name in ("host", "login", "password", "port", "url_schema"):
        shown = getattr(standard, name)
        if name in used:
            assert (shown.hidden, shown.title) == (False, used[name].label + (" *" if used[name].required else ""))
            assert shown.placeholder == (used[name].placeholder or None)
        else:
            assert shown.hidden


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_provider_manager_takes_every_hook(vendor: str) -> None:
    """On every version; what Airflow 2.11 draws of it has tests of its own."""
    try:
        runtime: Any = importlib.import_module("airflow.sdk.providers_manager_runtime")
        manager = runtime.ProvidersManagerTaskRuntime()
    except ImportError:  # before Airflow 3.2
        manager = importlib.import_module("airflow.providers_manager").ProvidersManager()
    taken = manager.hooks[vendor]
    assert (taken.hook_name, taken.connection_type, taken.connection_testable) == (
        registry()[vendor].label,
        vendor,
        True,
    )


# -- what importing costs ------------------------------------------------------------------------------------------

PUBLIC_MODULES = [
    "airflow_provider_events.get_provider_info",
    "airflow_provider_events.events",
    "airflow_provider_events.exceptions",
    *(f"airflow_provider_events.hooks.{vendor}" for vendor in VENDORS),
    "airflow_provider_events.hooks.base",
    "airflow_provider_events.operators.events",
    "airflow_provider_events.transfers.sql_to_events",
    "airflow_provider_events.sources.mapping",
]
HEAVY = {"aiohttp", "requests", "pandas", "starlette", "uvicorn", "sqlparse", "yarl", "wtforms", "flask"}
MEASURE = """
import importlib, json, sys

try:
    import airflow.sdk
except ImportError:
    import airflow.models
from airflow.providers.common.compat import sdk

for name in json.loads(sys.argv[1]):
    getattr(sdk, name, None)
before = set(sys.modules)
added = {}
for name in json.loads(sys.argv[2]):
    importlib.import_module(name)
    added[name] = sorted(set(sys.modules) - before)
print(json.dumps(added))
"""


PAID_BY_AIRFLOW_3 = ("annotated_types", "pydantic", "pydantic_core", "typing_inspection")


def test_importing_the_package_in_a_dag_file_is_cheap() -> None:
    """Each DAG file is parsed in a process of its own, again and again: nothing heavy may come along."""
    from airflow_provider_events import _compat

    names = json.dumps(list(_compat.__all__))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, names, json.dumps(PUBLIC_MODULES)],
        check=True,
        capture_output=True,
        text=True,
    )
    added = json.loads(done.stdout.splitlines()[-1])
    all_together = added[PUBLIC_MODULES[-1]]
    paid = {"airflow_provider_events", *PAID_BY_AIRFLOW_3}
    foreign = [name for name in all_together if name.partition(".")[0] not in paid]
    assert len(foreign) < 20, foreign
    assert not HEAVY.intersection(name.partition(".")[0] for name in foreign)
    assert not [name for name in foreign if name.startswith("airflow.providers.common.sql")]


def test_the_package_itself_holds_its_version_alone() -> None:
    source = importlib.resources.files("airflow_provider_events").joinpath("__init__.py").read_text()
    assert not [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
