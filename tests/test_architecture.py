"""Who may look at whom. The rooms and their allowed looks are the table below, and nothing else.

The imports are read from the source, so that a look inside a function counts too.
"""

import ast
import graphlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("gmm_engine", "service")


@dataclass(frozen=True, slots=True)
class Room:
    """Modules under a common name and what they may import beside the standard library."""

    name: str
    sees: frozenset[str]
    """Names of rooms or of single modules of ours."""
    uses: frozenset[str] | None = None
    """Third-party packages; None for any."""


def room(name: str, *, sees: str = "", uses: str | None = "") -> Room:
    return Room(name, frozenset(sees.split()), None if uses is None else frozenset(uses.split()))


# The longest name that fits a module is its room.
ROOMS = (
    # llvmlite is the part of Numba that writes instructions; it comes with it.
    room("gmm_engine", sees="gmm_engine", uses="numpy scipy numba llvmlite threadpoolctl"),
    # Imported when scikit-learn itself is in use, never by the engine's own import.
    room("gmm_engine.scikit_learn", sees="gmm_engine", uses="numpy sklearn"),
    room("gmm_engine.conversion", sees="gmm_engine", uses="numpy sklearn"),
    room("service.errors"),
    room("service.domain", sees="service.domain service.errors gmm_engine", uses="numpy"),
    room(
        "service.domain.fit_task",
        sees="gmm_engine service.domain.records",
        uses="numpy",
    ),
    room("service.api", sees="service.api service.domain service.errors", uses=None),
    room(
        "service.adapters",
        sees="service.adapters service.domain service.errors gmm_engine",
        uses=None,
    ),
    room(
        "service.pictures",
        sees="service.pictures service.domain service.errors",
        uses="numpy matplotlib",
    ),
    room(
        "service.settings",
        sees="service.domain.limits service.domain.identifiers service.errors",
        uses=None,
    ),
    room("service.telemetry", sees="service.errors", uses=None),
    # What starts the service sees everything, once.
    room("service", sees="service gmm_engine", uses=None),
)


def modules() -> Mapping[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


class WithoutTypeChecking(ast.NodeTransformer):
    """Drops what only the type checker reads."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        is_for_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return node.orelse if is_for_types else self.generic_visit(node)


def imports_of(module: str, source: str | ast.AST, *, is_package: bool = False) -> Iterator[str]:
    """Yield the full name of everything imported; of ours, the module and not the name in it."""
    tree = ast.parse(source) if isinstance(source, str) else source
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, module, is_package=is_package)
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                yield submodule if submodule in MODULES else base


def absolute(node: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    kept = parts[: len(parts) - node.level + is_package]
    return ".".join([*kept, node.module] if node.module else kept)


def imports_in(module: str, *, only_at_run_time: bool = False) -> list[str]:
    path = MODULES[module]
    tree: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    if only_at_run_time:
        tree = WithoutTypeChecking().visit(tree)
    return list(imports_of(module, tree, is_package=path.name == "__init__.py"))


def room_of(module: str) -> Room:
    return max((r for r in ROOMS if is_within(module, r.name)), key=lambda r: len(r.name))


def is_within(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def is_allowed(room: Room, imported: str) -> bool:
    top = imported.partition(".")[0]
    if top in PACKAGES:
        return any(is_within(imported, name) for name in room.sees)
    return top in sys.stdlib_module_names or room.uses is None or top in room.uses


@pytest.mark.parametrize("module", MODULES)
def test_a_module_looks_only_where_its_room_may(module: str) -> None:
    forbidden = [name for name in imports_in(module) if not is_allowed(room_of(module), name)]

    assert forbidden == []


def test_only_the_wiring_knows_the_adapters_and_the_painter() -> None:
    builders = {
        module
        for module in MODULES
        for behind in ("service.adapters", "service.pictures")
        if not is_within(module, behind)
        and any(is_within(name, behind) for name in imports_in(module))
    }

    assert builders <= {"service.wiring"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    looks = {
        module: {
            name
            for name in imports_in(module, only_at_run_time=True)
            if name in MODULES and name != module
        }
        for module in MODULES
    }

    graphlib.TopologicalSorter(looks).prepare()  # raises CycleError, naming the circle


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("gmm_engine.em", "import sklearn"),
        ("gmm_engine.em", "def fit():\n    from service.domain import records"),
        ("service.errors", "import fastapi"),
        ("service.domain.fitting", "from service.api import problems"),
        ("service.domain.fitting", "from ..adapters import registry_files"),
        ("service.domain.fitting", "from starlette.responses import Response"),
        ("service.domain.fit_task", "from service.domain.ports import JobRunner"),
        ("service.api.models", "from gmm_engine import fit"),
        ("service.api.models", "from service.adapters.registry_files import FileRegistry"),
        ("service.adapters.job_store", "import service.api.schemas"),
    ],
)
def test_a_forbidden_look_is_seen(module: str, line: str) -> None:
    assert not all(is_allowed(room_of(module), name) for name in imports_of(module, line))
