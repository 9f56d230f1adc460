"""Code on the pages: each block runs or is parsed, and whatever is named in backticks as ours is there."""

from __future__ import annotations

import argparse
import ast
import builtins
import configparser
import importlib
import inspect
import json
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import airflow_provider_events
from airflow_provider_events.cli.main import main
from airflow_provider_events.get_provider_info import get_provider_info
from airflow_provider_events.vendors.base import registry
from tests.docs.pages import FILES, ROOT, Block, blocks, spans

PACKAGE = Path(airflow_provider_events.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def each(*languages: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", blocks(*languages), ids=str)


def test_every_block_is_in_a_language_that_a_test_reads() -> None:
    read = {"python", "bash", "json", "ini", "toml", "yaml", "sql", "mermaid", "text"}
    assert [f"{block}: {block.language or 'no language'}" for block in blocks() if block.language not in read] == []


# -- Python ----------------------------------------------------------------------------------------------------------


def given(sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What examples use without making it."""

    def run_my_dag() -> None:
        from airflow_provider_events.hooks.embeddables import EmbeddablesHook

        identity = {"email": "ada@example.com", "embeddable_id": "flow_sandbox"}
        EmbeddablesHook().deliver([{"name": "purchase", "identity": identity}])

    customers = [{"email": "ada@example.com"}]
    return {
        "__name__": "example",
        "events_sandbox": sandbox,
        "new_customers": lambda: customers,
        "orders": lambda: [{"name": "purchase", "identity": customer} for customer in customers],
        "rows": lambda: [{"customer_id": "c-1", "city": "London"}],
        "run_my_dag": run_my_dag,
    }


@each("python")
@pytest.mark.airflow
@pytest.mark.filterwarnings("ignore:The `airflow.utils.operator_helpers")  # Airflow's own provider
def test_python_runs(block: Block, connections: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators, mappings and calls get no argument that they do not take, and functions that are tests pass."""
    found = given(connections, monkeypatch)
    if "events_sandbox" in block.text:
        connections.reset()
    exec(compile(block.text, str(block), "exec"), found)
    fixtures = {"events_sandbox": connections, "monkeypatch": monkeypatch}
    for name in [name for name in found if name.startswith("test_")]:
        found[name](**{wanted: fixtures[wanted] for wanted in inspect.signature(found[name]).parameters})


@pytest.mark.airflow
@pytest.mark.parametrize("block", [block for block in blocks("python") if "DAG(" in block.text], ids=str)
def test_a_dag_on_a_page_is_loaded_by_airflow(block: Block, load_dags: Callable[[str], Any]) -> None:
    bag = load_dags(block.text)
    assert bag.import_errors == {}
    assert len(bag.dags) == len(re.findall(r"\bDAG\(", block.text))


@each("python")
def test_each_example_imports_the_classes_and_decorators_that_it_uses(block: Block) -> None:
    nodes = list(ast.walk(ast.parse(block.text)))
    known = {alias.name for node in nodes if isinstance(node, ast.ImportFrom | ast.Import) for alias in node.names}
    known |= {node.name for node in nodes if isinstance(node, ast.ClassDef)} | set(dir(builtins))
    used = {node.id for node in nodes if isinstance(node, ast.Name) and re.fullmatch(r"([A-Z][a-z]+)+|task", node.id)}
    assert used - known == set()


# -- shell -----------------------------------------------------------------------------------------------------------


@cache
def make_targets() -> set[str]:
    """What `make` can be asked for."""
    listed = subprocess.run(["make", "-pRrq", "help"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return set(re.findall(r"^([\w.-]+):(?!=)", listed, re.MULTILINE))


def parsed(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether our command line takes the arguments, or has the command if that is all; nothing is run."""
    parse = argparse.ArgumentParser.parse_args

    def parse_only(parser: argparse.ArgumentParser, *given: Any) -> Any:
        found = parse(parser, *given)
        found.run = lambda _: 0
        return found

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    try:
        return main([*arguments, "--help"] if len(arguments) == 1 else arguments) == 0
    except SystemExit as ended:
        return ended.code == 0


def fault_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Why a command could not be given."""
    words = [word for n, word in enumerate(words) if not (n == 0 and re.match(r"\w+=", word))]
    match words:
        case [] | ["git" | "export" | "cd" | "cp" | "source", *_]:
            return None
        case ["make", *targets]:
            asked = [target for target in targets if "=" not in target] or ["help"]
            unknown = [target for target in asked if target not in make_targets()]
            return f"no targets of make: {unknown}" if unknown else None
        case ["python" | "python3", "-m", "airflow_provider_events", *arguments]:
            return None if parsed(arguments, monkeypatch) else "not what the command line takes"
        case ["python" | "python3", "-m", module, *_]:
            found = importlib.util.find_spec(module)
            return None if found else f"no module {module}"
        case ["python" | "python3", script, *_]:
            return None if (ROOT / script).is_file() else f"no script {script}"
        case ["pip", "install", *packages]:
            extras = {extra for package in packages for extra in re.findall(r"events[^\[]*\[(.+)\]", package)}
            unknown = sorted(extras - set(PROJECT["optional-dependencies"]))
            return f"no extras of this package: {unknown}" if unknown else None
        case ["airflow", "events", *arguments]:  # on Airflow 3.2 and later, the same commands
            return None if parsed(arguments, monkeypatch) else "not what the command line takes"
        case ["airflow", *arguments]:
            return airflow_fault(arguments)
        case [path, *_] if "/" in path:
            return None if (ROOT / path).exists() else f"no such program: {path}"
        case [name, *_]:
            return f"nobody knows the command {name}"
    return None


@cache
def airflow_commands() -> Any:
    return importlib.import_module("airflow.cli.cli_parser").get_parser()


def airflow_fault(arguments: list[str]) -> str | None:
    """Airflow's own command line, and the groups of its commands, have to know the words before the first value."""
    parser = airflow_commands()
    for word in arguments:
        groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not groups or word.startswith("-"):
            return None
        if word not in groups[0].choices:
            return f"airflow has no {word}"
        parser = groups[0].choices[word]
    return None


COMMAND = re.compile(r"(make|pip|airflow|python3?) [a-z-]")


def commands(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line, comments=True):
            yield words


@each("bash")
@pytest.mark.airflow
def test_each_command_of_a_block_can_be_given(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["bash", "-n", "-c", block.text], check=True)
    faults = {shlex.join(words): fault_of(words, monkeypatch) for words in commands(block.text)}
    assert {command: fault for command, fault in faults.items() if fault} == {}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
@pytest.mark.airflow
def test_each_command_in_backticks_can_be_given(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = [span for span in spans(file) if COMMAND.match(span)]
    faults = {span: fault_of(shlex.split(span), monkeypatch) for span in named}
    assert {command: fault for command, fault in faults.items() if fault} == {}


# -- documents -------------------------------------------------------------------------------------------------------


def read_settings(text: str) -> None:
    """Sections and options have to be Airflow's, or ours."""
    from airflow.configuration import conf

    settings = configparser.ConfigParser(interpolation=None)
    settings.read_string(text)
    ours: Any = get_provider_info()["config"]
    for section in settings.sections():
        for option in settings[section]:
            assert option in ours[section]["options"] if section in ours else conf.has_option(section, option), option


def read_sql(text: str) -> None:
    """A statement, or the end of one from its WHERE on. Tables and columns may be anybody's."""
    text = re.sub(r"%\((\w+)\)s", r":\1", text)
    statement = f"SELECT * FROM rows {text}" if text.startswith("WHERE") else text
    with sqlite3.connect(":memory:") as connection, pytest.raises(sqlite3.Error, match=r"no such table|binding"):
        connection.execute(f"EXPLAIN {statement}")


READERS: dict[str, Callable[[str], object]] = {
    "ini": read_settings,
    "json": json.loads,
    "sql": read_sql,
    "toml": tomllib.loads,
    "yaml": importlib.import_module("yaml").safe_load,
}


@each(*READERS)
def test_documents_can_be_read(block: Block) -> None:
    READERS[block.language](block.text)


def test_a_commit_is_checked_by_make_lint() -> None:
    config = READERS["yaml"]((ROOT / ".pre-commit-config.yaml").read_text())
    assert isinstance(config, dict)
    ((hook,),) = [repo["hooks"] for repo in config["repos"] if repo["repo"] == "local"]
    assert (hook["entry"], hook["language"], hook["pass_filenames"]) == ("make lint", "system", False)
    assert len(config["repos"]) == 1


# -- names in backticks ----------------------------------------------------------------------------------------------

ROOMS = {path.name for path in (*ROOT.iterdir(), *PACKAGE.iterdir()) if path.is_dir()} - {"__pycache__"}
# Words of others that no code of ours has to write, and stand-ins for the reader's own.
FOREIGN = {
    "PostgreSQL and MySQL": {"idle_in_transaction_session_timeout", "net_write_timeout"},
    "Airflow": {"max_num_rendered_ti_fields_per_task", "task_instance_heartbeat_timeout"},
    "Kubernetes": {"terminationGracePeriodSeconds"},
    "the C library": {"M_TOP_PAD", "M_TRIM_THRESHOLD"},
    "the reader": {"example_key", "example_key_id", "example_secret", "my_clock", "pr_example", "rk_example"},
    "WebEngage": {"OptIn"},
}


@cache
def known_words() -> set[str]:
    """All identifiers of our code, its texts, and the names of its files; docstrings and comments are left out."""
    words = {word for words in FOREIGN.values() for word in words}
    for folder in ("airflow_provider_events", "benchmarks", "docs", "example_dags", "scripts", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            words |= {path.stem} | words_of(ast.parse(path.read_text(encoding="utf-8")))
    return words


def words_of(tree: ast.Module) -> set[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, documented) and node.body]
    docstrings = {id(body[0].value) for body in bodies if isinstance(body[0], ast.Expr)}
    found: set[str] = set()
    for node in ast.walk(tree):
        texts = [
            value for name in ("id", "attr", "name", "arg", "asname", "module") if (value := getattr(node, name, ""))
        ]
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            texts.append(node.value)
        found.update(word for text in texts if isinstance(text, str) for word in re.findall(r"\w+", text))
    return found


@cache
def public_classes() -> dict[str, Any]:
    """What users import, by name."""
    from tests.test_public_names import IMPORTED

    return {
        name: getattr(importlib.import_module(f"{PACKAGE.name}.{module}"), name)
        for module, names in IMPORTED.items()
        for name in names.split()
    }


def expression_of(span: str) -> ast.expr | None:
    try:
        return ast.parse(span.replace("…", "..."), mode="eval").body
    except SyntaxError:
        return None


def fault_in_use(node: ast.AST) -> str | None:
    """Why one of our classes cannot be used as it is written: an attribute or an argument that is not there."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in public_classes():
        owner = public_classes()[node.value.id]
        if not hasattr(owner, node.attr) and node.attr not in getattr(owner, "__dataclass_fields__", {}):
            return f"{node.value.id} has no {node.attr}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in public_classes():
        from tests.test_public_names import parameters_of

        taken = {parameter.name for parameter in parameters_of(public_classes()[node.func.id])}
        airflows = {"task_id", "retries", "pool", "poke_interval", "timeout", "mode", "soft_fail"}
        unknown = [word.arg for word in node.keywords if word.arg not in taken | airflows]
        return f"{node.func.id} does not take {unknown}" if unknown else None
    return None


# What a page may leave open in the name of a file, and with what it has to be there.
OPEN = {"<vendor>": sorted(registry()), "<source>": ["jsonl", "sql"]}


def fault_of_path(span: str) -> str | None:
    for left_open, names in OPEN.items():
        if left_open in span:
            faults = [fault_of_path(span.replace(left_open, name)) for name in names]
            return next((fault for fault in faults if fault), None)
    if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)*/?", span):
        return None
    first, slash, _ = span.partition("/")
    if slash:
        there = first not in ROOMS or any((base / span).exists() for base in (ROOT, PACKAGE))
    else:  # the name alone, of a file in any of our folders
        there = not re.search(r"\.(py|md|toml)$", span) or any(ROOT.glob(span)) or any(ROOT.glob(f"[!.]*/**/{span}"))
    return None if there else f"no such file: {span}"


def fault_of_module(span: str) -> str | None:
    if not re.fullmatch(r"airflow_provider_events(\.\w+)+", span):
        return None
    try:
        importlib.import_module(span)
    except ImportError:
        module, _, name = span.rpartition(".")
        return None if hasattr(importlib.import_module(module), name) else f"no module and no name {span}"
    return None


def looks_like_code(word: str) -> bool:
    return bool(re.fullmatch(r"_?[A-Za-z]\w*_\w+|_[a-z]\w+|[A-Z]?[a-z0-9]+([A-Z][a-z0-9]+)+", word))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_is_named_is_there(file: Path) -> None:
    faults: list[str | None] = []
    for span in spans(file):
        faults += [fault_of_path(span), fault_of_module(span)]
        if (expression := expression_of(span)) is not None:
            faults += map(fault_in_use, ast.walk(expression))
        for word in [] if COMMAND.match(span) else re.findall(r"(?<![\w%])[A-Za-z_]\w*", span):
            if looks_like_code(word) and word not in known_words():
                faults.append(f"nothing is called {word}")
    assert [fault for fault in faults if fault] == []


def test_a_wrong_name_is_found() -> None:
    wrong = ["delivery/gone.py", "gone.md", "airflow_provider_events.gone", "airflow_provider_events.events.Gone"]
    assert all(fault_of_path(span) or fault_of_module(span) for span in wrong)
    for span in ("EventsHook.gone()", "SendEventsOperator(events=rows, gone=…)"):
        expression = expression_of(span)
        assert expression is not None
        assert any(map(fault_in_use, ast.walk(expression)))
    right = ["delivery/options.py", "README.md", "airflow_provider_events.events.Event", "customers/events", "net/http"]
    assert not any(fault_of_path(span) or fault_of_module(span) for span in right)


def test_a_wrong_command_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [
        "make gone",
        "python -m airflow_provider_events gone",
        "python -m gone",
        "gone",
        "airflow gone",
        ".ci/gone",
    ]
    wrong += ["pip install airflow-provider-events[gone]", "python gone.py"]
    assert [command for command in wrong if not fault_of(shlex.split(command), monkeypatch)] == []
    assert sys.modules.get("gone") is None
