"""The rooms of the house and the arrows between them, read from the source: lazy and type-only imports too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import airflow_provider_events

PACKAGE = "airflow_provider_events"
ROOT = Path(airflow_provider_events.__file__).parent
# The words, which every room may use, and the words that each of them needs.
WORDS = {
    "contract": {"events", "values"},
    "decoding": set[str](),
    "events": {"exceptions", "reports", "shown", "values"},
    "exceptions": {"reports", "shown"},
    "frames": {"exceptions"},
    "redaction": {"contract", "decoding", "shown"},
    "reports": set[str](),
    "row_data": {"exceptions", "shown", "values"},
    "shown": set[str](),
    "values": {"exceptions"},
}
# The rooms, and the rooms that each of them uses. `docs/house.md` draws them.
ROOMS = {
    "__init__": set[str](),
    "__main__": {"cli"},
    "_compat": set[str](),
    "cli": {"_compat", "delivery", "hooks", "sandbox", "sources"},
    "delivery": {"http"},
    "get_provider_info": set[str](),
    "hooks": {"_compat", "delivery", "get_provider_info", "http", "lookups", "sources", "vendors"},
    "http": set[str](),
    "lookups": {"delivery", "http"},
    "operators": {"_compat", "delivery", "hooks", "sources"},
    "sandbox": set[str](),
    "sensors": {"_compat", "delivery", "hooks", "lookups", "operators", "triggers"},
    "sources": {"_compat"},
    "transfers": {"_compat", "delivery", "hooks", "operators", "sources"},
    "triggers": {"hooks", "lookups"},
    "vendors": set[str](),
}
FEW_WORDS = {"http": {"contract"}, "sandbox": set[str](), "_compat": set[str](), "get_provider_info": set[str]()}
WITHOUT_AIRFLOW = {"delivery", "get_provider_info", "http", "lookups", "sandbox", "vendors", *WORDS}
HEAVY = ("aiohttp", "airflow.providers.common.sql", "httpx", "pandas", "requests", "starlette", "uvicorn")


@dataclass(frozen=True)
class Import:
    """One imported module.

    :param at_import: it is imported together with the module that names it.
    """

    module: Path
    line: int
    name: str
    at_import: bool

    @property
    def room(self) -> str:
        return room(self.module)

    def __str__(self) -> str:
        return f"{self.module.relative_to(ROOT)}:{self.line} imports {self.name}"

    def of(self, package: str) -> bool:
        return self.name == package or self.name.startswith(f"{package}.")


def room(module: Path) -> str:
    return module.relative_to(ROOT).with_suffix("").parts[0]


def name_of(module: Path) -> str:
    return ".".join((PACKAGE, *module.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def imports(module: Path) -> Iterator[Import]:
    def walk(node: ast.AST, at_import: bool) -> Iterator[Import]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            at_import = False
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for inner in node.body:
                yield from walk(inner, False)
            for inner in node.orelse:
                yield from walk(inner, at_import)
            return
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, node.lineno, alias.name, at_import)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} is a relative import"
            for alias in node.names:
                yield Import(module, node.lineno, f"{node.module}.{alias.name}", at_import)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, at_import)

    yield from walk(ast.parse(module.read_text(encoding="utf-8")), True)


MODULES = sorted(ROOT.rglob("*.py"))


@cache
def every_import() -> list[Import]:
    return [found for module in MODULES for found in imports(module)]


def told(offenders: list[Import]) -> list[str]:
    return [str(offender) for offender in offenders]


MAY_USE = {
    **{room: rooms | FEW_WORDS.get(room, set(WORDS)) for room, rooms in ROOMS.items()},
    **WORDS,
}


@cache
def arrows() -> dict[tuple[str, str], Import]:
    """Which room or word uses which other one, and an import that shows it."""
    inside = [(found, found.name.split(".")[1]) for found in every_import() if found.of(PACKAGE)]
    return {(found.room, used): found for found, used in inside if used != found.room and used in MAY_USE}


def test_the_house_has_these_rooms_and_no_others() -> None:
    assert {room(module) for module in MODULES} == set(MAY_USE)
    assert len(every_import()) > 100


def test_arrows_point_one_way() -> None:
    assert told([found for (room, used), found in arrows().items() if used not in MAY_USE[room]]) == []


def test_no_permission_is_left_over() -> None:
    used = {(room, used) for room, used in arrows() if used in ROOMS or room in WORDS}
    assert {(room, may) for table in (ROOMS, WORDS) for room in table for may in table[room]} - used == set()


def test_no_module_needs_one_that_needs_it() -> None:
    """Not even inside a function, or for a type."""
    modules = {name_of(module): module for module in MODULES}

    def imported(found: Import) -> str:
        name = found.name
        while name not in modules:
            name = name.rpartition(".")[0]
        return name

    needs: dict[str, set[str]] = {name: set() for name in modules}
    for found in every_import():
        if found.of(PACKAGE):
            needs[name_of(found.module)].add(imported(found))
    TopologicalSorter(needs).prepare()


COMMON_TO_VENDORS = ("base", "connection")


def test_a_vendor_knows_no_other_vendor() -> None:
    def foreign(found: Import) -> bool:
        return found.of(f"{PACKAGE}.vendors") and found.name.split(".")[2] not in COMMON_TO_VENDORS

    assert told([found for found in every_import() if foreign(found) and found.room == "vendors"]) == []


def test_only_a_vendors_own_hook_knows_the_vendor() -> None:
    def foreign(found: Import) -> bool:
        named = found.name.split(".")[2] if found.of(f"{PACKAGE}.vendors") and found.name.count(".") > 1 else "base"
        return named not in (*COMMON_TO_VENDORS, found.module.stem)

    assert told([found for found in every_import() if foreign(found)]) == []


def test_inner_rooms_need_no_airflow() -> None:
    assert told([found for found in every_import() if found.of("airflow") and found.room in WITHOUT_AIRFLOW]) == []


def test_airflows_names_come_from_one_place() -> None:
    def elsewhere(found: Import) -> bool:
        costly = found.room == "triggers" and found.of("airflow.triggers.base")
        return found.of("airflow") and found.at_import and found.room != "_compat" and not costly

    assert told([found for found in every_import() if elsewhere(found)]) == []


def test_a_dag_file_pays_for_no_heavy_import() -> None:
    def heavy(found: Import) -> bool:
        return found.at_import and any(found.of(name) for name in HEAVY)

    assert told([found for found in every_import() if heavy(found) and found.room != "sandbox"]) == []


def test_inner_rooms_do_without_airflow_and_heavy_imports_indeed() -> None:
    inner = [name_of(module) for module in MODULES if room(module) in WITHOUT_AIRFLOW - {"sandbox"}]
    program = (
        "import sys, importlib\n"
        "sys.modules['airflow'] = None\n"
        f"for name in {inner!r}: importlib.import_module(name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr


EXPORTING = [
    module for module in MODULES if room(module) != "sandbox" and "__all__" in module.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("module", EXPORTING, ids=lambda module: str(module.relative_to(ROOT)))
def test_what_a_module_exports_is_there_and_public(module: Path) -> None:
    loaded = import_module(name_of(module))
    exported = loaded.__all__
    assert len(exported) == len(set(exported))
    assert [each for each in exported if each.startswith("_") or not hasattr(loaded, each)] == []


def test_rooms_use_only_what_others_export() -> None:
    exporting = {name_of(module): module for module in EXPORTING}

    def hidden(found: Import) -> bool:
        source, _, name = found.name.rpartition(".")
        if source not in exporting or found.room in (room(exporting[source]), "__main__"):
            return False
        return name not in import_module(source).__all__

    assert told([found for found in every_import() if found.of(PACKAGE) and hidden(found)]) == []
