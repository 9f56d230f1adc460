"""The sensor in real Airflow, against the sandbox: every mode, every vendor, every bad input."""

from __future__ import annotations

import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.sandbox import Sandbox
from airflow_provider_events.sensors.entry import EntryExistsSensor
from tests.entries.vendors import PROFILE, VENDORS, add, connection, identity, lookups

pytestmark = pytest.mark.airflow

AIRFLOW = version("apache-airflow")
MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
}
if AIRFLOW.startswith("3.0."):
    del MODES["reschedule"]  # in dag.test() it takes the time of the first look for text, and fails on it
every_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture
def vendors(events_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The sandbox, with connections that allow look-ups."""
    for vendor in VENDORS:
        monkeypatch.setenv(f"AIRFLOW_CONN_{vendor.upper()}_DEFAULT", connection(events_sandbox, vendor))
    return events_sandbox


def dag(dag_id: str, vendor: str, before: str = "", **arguments: Any) -> str:
    """A DAG of one sensor; an argument that is text and starts with `=` is an expression."""
    shown = "".join(
        f", {name}={value[1:] if isinstance(value, str) and value.startswith('=') else repr(value)}"
        for name, value in {"poke_interval": 1, "timeout": 30, **arguments}.items()
    )
    return f"""
from datetime import datetime, timezone
from airflow.providers.common.compat.sdk import DAG, task
from airflow_provider_events.sensors.entry import EntryExistsSensor

with DAG({dag_id!r}, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None, params={{"n": "ada"}}):
    @task
    def collect():
        return {before or "[]"}

    wait = EntryExistsSensor(task_id="wait", conn_id="{vendor}_default"{shown})
    collect() >> wait
"""


# -- one answer in every mode ------------------------------------------------------------------------------------------


@every_mode
@pytest.mark.parametrize("vendor", VENDORS)
def test_present_late_and_missing_entries(
    vendor: str, mode: str, vendors: Sandbox, run_dag: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    add(vendors, vendor, ["present"])
    add(vendors, vendor, ["late"], appears_after=3)
    wanted = [identity(vendor, name) for name in ("never", "present", "late")]
    dag_id = f"present_{vendor}_{mode}"

    result = run_dag(dag(dag_id, vendor, identities=wanted, require=2, **MODES[mode]), dag_id)

    assert result.states["wait"] == "success"
    assert result.returned["wait"] == {"found": wanted[1:], "missing": wanted[:1]}
    assert PROFILE not in caplog.text
    assert not vendors.violations(vendor)
    forgetful = mode == "reschedule" and AIRFLOW < "3.3"  # without checkpoint_path
    if vendor != "embeddables" and not forgetful:  # Embeddables lists, and does not ask for each
        bodies = [request.path + str(request.body) for request in vendors.requests(vendor)]
        assert sum("present" in body for body in bodies) == 1


@every_mode
@pytest.mark.parametrize("soft_fail", [False, True])
def test_entries_that_never_appear(mode: str, soft_fail: bool, vendors: Sandbox, run_dag: Any) -> None:
    dag_id = f"never_{mode}_{soft_fail}"
    source = dag(
        dag_id, "vibetrace", identity=identity("vibetrace", "never"), timeout=2, soft_fail=soft_fail, **MODES[mode]
    )
    assert run_dag(source, dag_id).states["wait"] == ("skipped" if soft_fail else "failed")
    assert lookups(vendors, "vibetrace") >= 2


@every_mode
@pytest.mark.parametrize("fault", ["key", "type", "closed"])
def test_soft_fail_never_skips_on_an_error(
    fault: str, mode: str, vendors: Sandbox, run_dag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"password": "wrong"}
    if fault == "type":
        changes = {"conn_type": "http"}
    elif fault == "closed":
        changes = {"extra": {"unknown_key": 1}}
    monkeypatch.setenv("AIRFLOW_CONN_VIBETRACE_DEFAULT", connection(vendors, "vibetrace", **changes))
    dag_id = f"soft_{fault}_{mode}"
    source = dag(dag_id, "vibetrace", identity=identity("vibetrace", "a"), soft_fail=True, retries=3, **MODES[mode])
    assert run_dag(source, dag_id).states["wait"] == "failed"
    assert lookups(vendors, "vibetrace") == (fault == "key")


@every_mode
def test_keys_that_are_revoked_in_mid_wait_fail_the_task_at_once(mode: str, vendors: Sandbox, run_dag: Any) -> None:
    vendors.fault("status", vendor="vibetrace", status=401, after=2)
    dag_id = f"revoked_{mode}"
    source = dag(dag_id, "vibetrace", identity=identity("vibetrace", "a"), soft_fail=True, retries=3, **MODES[mode])
    assert run_dag(source, dag_id).states["wait"] == "failed"
    assert lookups(vendors, "vibetrace") == 3


@every_mode
def test_never_fail_skips_on_everything(mode: str, vendors: Sandbox, run_dag: Any) -> None:
    vendors.fault("status", vendor="vibetrace", status=401, after=1)
    dag_id = f"neverfail_{mode}"
    source = dag(dag_id, "vibetrace", identity=identity("vibetrace", "a"), never_fail=True, **MODES[mode])
    assert run_dag(source, dag_id).states["wait"] == "skipped"


@every_mode
def test_a_quota_that_is_used_up_is_waited_for(mode: str, vendors: Sandbox, run_dag: Any) -> None:
    vendors.fault("status", vendor="vibetrace", status=429, retry_after=2, times=2)
    add(vendors, "vibetrace", ["a"])
    dag_id = f"quota_{mode}"
    result = run_dag(dag(dag_id, "vibetrace", identity=identity("vibetrace", "a"), **MODES[mode]), dag_id)
    assert result.states["wait"] == "success"
    assert lookups(vendors, "vibetrace") == 3


@every_mode
def test_a_short_outage_is_outlasted(mode: str, vendors: Sandbox, run_dag: Any) -> None:
    add(vendors, "vibetrace", ["a"])
    vendors.fault("status", vendor="vibetrace", status=503, times=2)
    vendors.fault("cut", vendor="vibetrace", times=1)
    dag_id = f"outage_{mode}"
    result = run_dag(dag(dag_id, "vibetrace", identity=identity("vibetrace", "a"), **MODES[mode]), dag_id)
    assert result.states["wait"] == "success"


# -- where the identities come from ------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["=wait_for", "{{ ti.xcom_pull(task_ids='collect') }}"])
@every_mode
def test_identities_come_from_an_xcom(given: str, mode: str, vendors: Sandbox, run_dag: Any) -> None:
    add(vendors, "vibetrace", [f"c{n}" for n in range(60)])
    dag_id = f"xcom_{mode}_{given[0] == '='}"
    source = (
        dag(
            dag_id,
            "vibetrace",
            before='[{"email": f"c{n % 60}@example.com"} for n in range(70)]',
            identities=given,
            **MODES[mode],
        )
        .replace("    wait = Entry", "    wait_for = collect()\n    wait = Entry")
        .replace("collect() >>", "wait_for >>")
    )
    result = run_dag(source, dag_id)
    assert len(result.returned["wait"]["found"]) == 70
    assert lookups(vendors, "vibetrace") == 60  # the ten that are there twice are asked for once


def test_an_identity_is_templated(vendors: Sandbox, run_dag: Any) -> None:
    add(vendors, "vibetrace", ["ada"])
    source = dag("templated", "vibetrace", identity={"email": "{{ params.n }}@example.com"})
    assert run_dag(source, "templated").returned["wait"]["found"] == [{"email": "ada@example.com"}]


def test_the_sensor_can_be_mapped(vendors: Sandbox, run_dag: Any) -> None:
    add(vendors, "vibetrace", ["a", "b"])
    source = dag("mapped", "vibetrace").replace(
        'EntryExistsSensor(task_id="wait", conn_id="vibetrace_default", poke_interval=1, timeout=30)',
        'EntryExistsSensor.partial(task_id="wait", conn_id="vibetrace_default", timeout=5).expand('
        'identity=[{"email": "a@example.com"}, {"email": "b@example.com"}])',
    )
    assert run_dag(source, "mapped").state.endswith("success")
    assert lookups(vendors, "vibetrace") == 2


def test_templates_show_a_number_and_no_customer(vendors: Sandbox, run_dag: Any) -> None:
    add(vendors, "vibetrace", ["a", "b"])
    run_dag(dag("shown", "vibetrace", identities=[identity("vibetrace", "a"), identity("vibetrace", "b")]), "shown")
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(RenderedTaskInstanceFields).filter_by(dag_id="shown", task_id="wait").all()
        assert [row.rendered_fields["identities"] for row in rows] == ["<2 identities>"]


@pytest.mark.filterwarnings("ignore:.*determine_kwargs")  # Airflow's own decorator
def test_the_sensor_of_taskflow(vendors: Sandbox, run_dag: Any) -> None:
    add(vendors, "vibetrace", ["ada"], appears_after=1)
    result = run_dag(
        """
from datetime import datetime, timezone
from airflow.providers.common.compat.sdk import DAG, task
from airflow_provider_events.hooks.base import EventsHook

with DAG("taskflow", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None):
    @task.sensor(poke_interval=1, timeout=20)
    def wait() -> bool:
        return EventsHook.for_connection("vibetrace_default").entry_exists({"email": "ada@example.com"})

    wait()
""",
        "taskflow",
    )
    assert result.states["wait"] == "success"


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "needs an identity"),
        ({"identity": {"email": "a@b.c"}, "identities": []}, "not both"),
        ({"identities": [], "require": "most"}, "require"),
        ({"identities": [], "require": 0}, "require"),
        ({"identities": [], "require": True}, "require"),
    ],
)
def test_arguments_are_checked_while_parsing(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        EntryExistsSensor(task_id="wait", conn_id="vibetrace_default", **arguments)


@every_mode
@pytest.mark.parametrize(
    ("vendor", "arguments"),
    [
        ("vibetrace", {"identity": {"phone": "1"}}),
        ("vibetrace", {"identity": {"_id": "1"}}),
        ("webengage", {"identity": {"anonymousId": "1"}}),
        ("embeddables", {"identity": {"email": "a@b.c", "phone": "1"}}),
        ("bloomreach", {"identity": {"registered": "null"}}),
        ("vibetrace", {"identities": [{"email": "a@b.c"}, {}]}),
        ("vibetrace", {"identities": ["a@b.c"]}),
        ("vibetrace", {"identities": [{"email": None}]}),
        ("vibetrace", {"identities": [], "require": "any"}),
        ("vibetrace", {"identities": [{"email": "a@b.c"}] * 3, "require": 2}),
        ("vibetrace", {"identities": "{{ params.n }}"}),
    ],
)
def test_bad_identities_fail_before_the_first_request(
    vendor: str, arguments: dict[str, Any], mode: str, vendors: Sandbox, run_dag: Any
) -> None:
    dag_id = f"bad_{vendor}_{mode}"
    source = dag(dag_id, vendor, soft_fail=True, retries=2, **arguments, **MODES[mode])
    assert run_dag(source, dag_id).states["wait"] == "failed"
    assert not vendors.requests(vendor)


@every_mode
def test_all_of_nothing_is_found_with_a_warning(
    mode: str, vendors: Sandbox, run_dag: Any, caplog: pytest.LogCaptureFixture
) -> None:
    dag_id = f"nothing_{mode}"
    result = run_dag(dag(dag_id, "vibetrace", identities=[], **MODES[mode]), dag_id)
    assert result.returned["wait"] == {"found": [], "missing": []}


@every_mode
def test_webengage_refuses_in_words_unless_the_connection_opts_in(
    mode: str, vendors: Sandbox, run_dag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WEBENGAGE_DEFAULT", json.dumps(vendors.connection("webengage")))
    dag_id = f"unasked_{mode}"
    source = dag(dag_id, "webengage", identity=identity("webengage", "a"), soft_fail=True, **MODES[mode])
    assert run_dag(source, dag_id).states["wait"] == "failed"
    assert not vendors.requests("webengage")


# -- long lists --------------------------------------------------------------------------------------------------------


def test_a_list_too_long_for_the_database_needs_a_place(vendors: Sandbox, run_dag: Any) -> None:
    dag_id = "too_long"
    source = dag(
        dag_id,
        "vibetrace",
        identities="=[{'email': f'{hash((n, 1))}@example.com'} for n in range(9000)]",
        deferrable=True,
    )
    assert run_dag(source, dag_id).states["wait"] == "failed"
    assert not vendors.requests("vibetrace")


def test_a_long_list_travels_by_reference_and_leaves_nothing_behind(
    vendors: Sandbox, run_dag: Any, tmp_path: Path
) -> None:
    names = [f"c{n}" for n in range(3000)]
    add(vendors, "vibetrace", names[:1500])
    add(vendors, "vibetrace", names[1500:], appears_after=4)
    source = dag(
        "by_reference",
        "vibetrace",
        identities="=[{'email': f'c{n}@example.com'} for n in range(3000)]",
        deferrable=True,
        checkpoint_path=str(tmp_path),
        timeout=100,
    )
    result = run_dag(source, "by_reference")
    assert len(result.returned["wait"]["found"]) == 3000
    asked = [request.path for request in vendors.requests("vibetrace")]
    assert len([path for path in asked if path.endswith("/c7@example.com")]) == 1
    assert not [path for path in tmp_path.rglob("*") if path.name in ("identities", "progress.json")]


# -- outages and pauses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "reschedule"])
def test_soft_fail_does_not_hide_a_vendor_that_never_answered(
    mode: str, vendors: Sandbox, run_dag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_events.sensors import entry
    from airflow_provider_events.triggers import entry as trigger

    monkeypatch.setattr(entry, "LAST_LOOK_SECONDS", 1.0)
    monkeypatch.setattr(trigger, "LAST_LOOK_SECONDS", 1.0)
    vendors.fault("status", vendor="vibetrace", status=503)
    dag_id = f"unanswered_{mode}"
    source = dag(dag_id, "vibetrace", identity=identity("vibetrace", "a"), timeout=2, soft_fail=True, **MODES[mode])
    assert run_dag(source, dag_id).states["wait"] == "failed"


def test_soft_fail_does_not_hide_it_where_errors_are_silent(
    vendors: Sandbox, run_dag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_events.sensors import entry

    monkeypatch.setattr(entry, "LAST_LOOK_SECONDS", 1.0)
    vendors.fault("status", vendor="vibetrace", status=503)
    silent: dict[str, Any] = {"timeout": 2, "soft_fail": True, "silent_fail": True, "mode": "poke"}
    source = dag("unanswered_silent", "vibetrace", identity=identity("vibetrace", "a"), **silent)
    assert run_dag(source, "unanswered_silent").states["wait"] == "failed"


def test_a_pause_that_the_vendor_asks_for_is_kept_from_poke_to_poke(vendors: Sandbox, run_dag: Any) -> None:
    vendors.fault("status", vendor="vibetrace", status=429, retry_after=7200)
    source = dag("paused", "vibetrace", identity=identity("vibetrace", "a"), timeout=4, mode="poke")
    assert run_dag(source, "paused").states["wait"] == "failed"
    assert lookups(vendors, "vibetrace") == 1


def test_the_sensor_is_no_nested_operator(vendors: Sandbox, run_dag: Any, caplog: pytest.LogCaptureFixture) -> None:
    add(vendors, "vibetrace", ["a"])
    strict: dict[str, Any] = {} if AIRFLOW >= "3" else {"allow_nested_operators": False}
    source = dag("guarded", "vibetrace", identity=identity("vibetrace", "a"), mode="poke", **strict)
    assert run_dag(source, "guarded").states["wait"] == "success"
    assert "outside TaskInstance" not in caplog.text
