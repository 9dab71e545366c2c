"""How the code reads: short functions, small modules, names that a stranger does not misread."""

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from support.paths import PACKAGE

LONGEST_FUNCTION, LONGEST_MODULE = 40, 350
VAGUE = {"told", "said", "of", "found", "made", "likes"}
"""English for anything: no variable, parameter, field or function is called so."""
MISREAD = {"Board", "Lines", "Played", "Pace", "Screen", "Turns", "View", "Warm", "World"}
"""Classes that were, once."""
MISREAD_MODULES = {
    "answers", "board", "capture", "child", "claims", "committed", "comparison", "contenders", "explaining", "families",
    "fitness", "hold", "pace", "places", "schedule", "scores", "session", "simulate", "snapshot", "split", "standing",
    "statistics", "together", "trials", "turns", "upkeep", "warm", "watch",
}  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _functions(path: Path) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, FUNCTIONS))


def _length(function: ast.FunctionDef) -> int:
    return (function.end_lineno or 0) - function.lineno + 1


def _names(path: Path) -> Iterator[tuple[int, str]]:
    """-> line and name of every variable, parameter, field, function and class that a module defines."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name


def test_no_function_is_long_and_half_are_under_eight_lines():
    lengths = {f"{path.name}: {function.name}": _length(function) for path in MODULES for function in _functions(path)}
    assert [name for name, length in lengths.items() if length > LONGEST_FUNCTION] == []
    assert median(lengths.values()) < 8


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_is_small_and_its_names_say_what_they_are(path):
    assert len(path.read_text().splitlines()) <= LONGEST_MODULE
    assert path.stem not in MISREAD_MODULES
    assert [f"{line}: {name}" for line, name in _names(path) if name in VAGUE | MISREAD] == []
