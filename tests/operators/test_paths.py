"""Paths from templates: what whoever triggers a DAG may have read and written as the worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_events._compat import AirflowFailException
from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.operators.events import SendEventsOperator
from airflow_provider_events.operators.paths import GivenPath
from tests.operators.test_checkpoints import StateStore, context

TRIGGERED = [
    "{{ params.file }}",
    "{{ params['file'] }}",
    "{{params.get('file')}}",
    "/data/{{ dag_run.conf.file }}",
    "{{ dag_run.conf['file'] }}",
    "{{ dag_run['conf'].file }}",
    "{{ (dag_run | attr('conf')).file }}",
    "{{ ti.dag_run.conf.get('file') }}",
    "{% set run = dag_run %}{{ run.conf.file }}",
    "{% if params.x %}a{% endif %}.jsonl",
    "{{ task.params.file }}",
    "{{ 'a' ~ params.file }}",
    "{{ params.file",
]
OF_THE_AUTHOR = [
    "{{ ds }}.jsonl",
    "{{ var.value.rejected_events }}",
    "{{ conf.get('events', 'rejected_path') }}",
    "{{ dag_run.run_id }}",
    "{{ ti.xcom_pull('export') }}",
    "{{ run_id }}/params.jsonl",
]


@pytest.fixture
def allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that may be used, beside one that may not; in it a link to the other one."""
    folder = tmp_path / "allowed"
    folder.mkdir()
    (tmp_path / "other").mkdir()
    (folder / "link").symlink_to(tmp_path / "other")
    monkeypatch.setenv("AIRFLOW__EVENTS__ALLOWED_PATHS", f" {folder} , s3://bucket/rejected/,")
    return folder


@pytest.mark.parametrize("template", TRIGGERED)
def test_a_path_of_the_trigger_is_refused_without_allowed_folders(template: str) -> None:
    with pytest.raises(ConfigurationError, match=r"a template of params or dag_run\.conf.*allowed_paths"):
        GivenPath("rejected_path", template).checked("/etc/x.jsonl")


@pytest.mark.parametrize("given", [*OF_THE_AUTHOR, "/data/params/conf.jsonl", "../up/x.jsonl", None])
def test_a_path_of_the_author_is_free_without_them(given: str | None) -> None:
    assert GivenPath("rejected_path", given).checked("/data/x.jsonl") == "/data/x.jsonl"


@pytest.mark.parametrize("template", ["/data/{{ run_id }}/x.jsonl", "{{ ds }}", "../{{ run_id }}"])
def test_nothing_inserted_climbs_out_of_its_folder(template: str) -> None:
    rendered = template.replace("{{ run_id }}", "..").replace("{{ ds }}", "/data/../etc")
    with pytest.raises(ConfigurationError, match=r"leads out of its folder by '\.\.'"):
        GivenPath("events", template).checked(rendered)


@pytest.mark.parametrize("template", [TRIGGERED[0], OF_THE_AUTHOR[0]])
@pytest.mark.parametrize(
    "path",
    [
        "{}/x.jsonl",
        "{}/a/b/x.jsonl",
        "file://{}/x.jsonl",
        "s3://bucket/rejected/x.jsonl",
        "s3://bucket/rejected//a/x.jsonl",
    ],
)
def test_what_lies_in_an_allowed_folder_is_taken(template: str, path: str, allowed: Path) -> None:
    assert GivenPath("events", template).checked(path.format(allowed)) == path.format(allowed)


@pytest.mark.parametrize("template", [TRIGGERED[0], OF_THE_AUTHOR[0]])
@pytest.mark.parametrize(
    "path",
    [
        "/etc/x.jsonl",
        "{}",
        "{}2/x.jsonl",
        "{}/link/x.jsonl",
        "x.jsonl",
        "s3://bucket/rejected2/x.jsonl",
        "s3://bucket/x.jsonl",
        "s3://conn@bucket/rejected/x.jsonl",
        "gs://bucket/rejected/x.jsonl",
        "http://{}/x.jsonl",
        "file:///etc/x.jsonl",
    ],
)
def test_what_lies_elsewhere_is_refused(template: str, path: str, allowed: Path) -> None:
    with pytest.raises(ConfigurationError, match="is in none of the folders"):
        GivenPath("events", template).checked(path.format(allowed))


def test_a_literal_stays_free_with_allowed_folders(allowed: Path) -> None:
    assert GivenPath("events", "/data/x.jsonl").checked("/data/x.jsonl") == "/data/x.jsonl"


@pytest.mark.parametrize("option", ["rejected_path", "checkpoint_path", "events"])
def test_the_operator_refuses_before_it_reads_or_writes(option: str, connections: Any, tmp_path: Path) -> None:
    file = tmp_path / "secret.jsonl"
    file.write_text(json.dumps({"name": "e", "identity": {"registered": "c"}}))
    options: dict[str, Any] = {"events": [], option: "{{ params.path }}"}
    operator = SendEventsOperator(task_id="t", conn_id="bloomreach_default", **options)
    setattr(operator, option, str(file if option == "events" else tmp_path / "new"))  # as Airflow renders it
    with pytest.raises(AirflowFailException, match=f"{option}: a template of params"):
        operator.execute(context(None if option == "checkpoint_path" else StateStore()))
    assert connections.requests("bloomreach") == []
    assert not (tmp_path / "new").exists()
