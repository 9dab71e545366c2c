"""The house: imports go down, none goes in a circle, and planning stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "ablate"
FLOORS = (
    ("errors", "model", "disk", "text"),
    ("registry", "failures", "process", "logs", "hub_names", "gpus", "claims", "slots"),
    ("stage", "losses", "catalog", "world"),
    ("spec", "store", "committed", "progress", "job", "data", "hub", "hub_errors", "content", "snapshot", "facts"),
    ("engine", "evaluation", "executors", "hold", "attempts"),
    ("stages",),
    (
        "planning",
        "warnings",
        "cache_sizes",
        "caching",
        "memory",
        "pace",
        "cost",
        "places",
        "turns",
        "board",
        "tasks",
        "simulate",
        "forecast",
        "child",
        "worker",
        "warm",
        "schedule",
        "watch",
        "status",
        "export",
        "integrity",
        "garbage",
        "fitness",
        "trials",
    ),
    (
        "scores",
        "statistics",
        "contrasts",
        "families",
        "verdicts",
        "together",
        "contenders",
        "comparison",
        "trends",
        "published",
        "replications",
    ),
    ("exhibits", "report"),
    ("session", "running", "references", "standing", "upkeep", "views", "explaining", "cli", "__init__", "__main__"),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def _modules() -> dict[str, Path]:
    names = {path: path.relative_to(PACKAGE.parent).with_suffix("").parts for path in PACKAGE.rglob("*.py")}
    return {".".join(parts).removesuffix(".__init__"): path for path, parts in names.items()}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ablate"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("ablate")}
    modules = _modules()
    return {name if name in modules else name.rpartition(".")[0] for name in found}


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def test_every_module_has_a_floor():
    assert {_room(module) for module in _modules()} <= set(FLOOR)


def test_imports_go_down_or_stay_on_their_floor():
    upward = [
        f"{module} -> {used}"
        for module, path in _modules().items()
        for used in _imports(path)
        if FLOOR[_room(used)] > FLOOR[_room(module)]
    ]
    assert upward == []


def test_no_import_goes_in_a_circle():
    edges = {module: _imports(path) - {module} for module, path in _modules().items()}
    while leaves := [module for module, uses in edges.items() if not uses & edges.keys()]:
        for leaf in leaves:
            del edges[leaf]
    assert edges == {}


@pytest.mark.parametrize(
    "module",
    [
        "cli",
        "views",
        "explaining",
        "standing",
        "upkeep",
        "session",
        "running",
        "planning",
        "warnings",
        "cost",
        "status",
        "schedule",
    ],
)
def test_planning_and_status_import_no_torch(module):
    heavy = "torch transformers lm_eval datasets peft pandas matplotlib scipy numpy"
    code = f"import sys, ablate.{module}; print([m for m in {heavy.split()} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
