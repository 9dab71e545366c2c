"""The house: imports go down, none goes in a circle, and planning stays light."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

UPWARD = {
    "core": "ablate.store.stage",
    "example": "ablate.core.disk",
    "store": "ablate.study.schema",
    "losses": "ablate.store.stage",
    "machine": "ablate.store.stage",
    "study": "ablate.store.stage",
    "data": "ablate.training.files",
    "training": "ablate.evaluation.trees",
    "evaluation": "ablate.stages.inputs",
    "stages": "ablate.planning.plan",
    "planning": "ablate.execution.status",
    "execution": "ablate.results.trends",
    "results": "ablate.report.write",
    "maintenance": "ablate.results.trends",
    "report": "ablate.run",
    "cli": "ablate.__main__",
}
"""Package -> something that it must not import."""


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of the package, to be spoilt."""
    shutil.copytree(ROOT / "ablate", tmp_path / "ablate", ignore=shutil.ignore_patterns("__pycache__", "assets"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_imports_go_down_as_the_floors_say():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


def test_every_package_has_a_floor():
    assert {path.name for path in (ROOT / "ablate").iterdir() if (path / "__init__.py").is_file()} == set(UPWARD)


def test_every_import_that_goes_up_is_found(copy):
    for package, above in UPWARD.items():
        module = next(path for path in sorted((copy / "ablate" / package).glob("*.py")) if path.name != "__init__.py")
        module.write_text(module.read_text() + f"\nimport {above}\n")
    done = lint(copy)
    assert done.returncode == 1
    for package, above in UPWARD.items():
        assert re.search(rf"ablate\.{package}\.\w+ -> {above} ", done.stdout), package


def test_an_import_in_a_circle_within_a_package_is_found(copy):
    path = copy / "ablate/core/errors.py"
    path.write_text(path.read_text() + "\nimport ablate.core.registry\n")
    assert lint(copy).returncode == 1


def test_at_the_root_lie_the_librarys_calls_alone():
    assert {path.name for path in (ROOT / "ablate").glob("*.py")} == {
        "__init__.py",
        "__main__.py",
        "export.py",
        "run.py",
    }


def test_the_librarys_calls_stay_callable_whatever_was_imported():
    code = (
        "import ablate, ablate.run, ablate.export, ablate.results.collect, ablate.report.write;"
        "assert all(map(callable, (ablate.load, ablate.plan, ablate.run, ablate.results, ablate.verify, ablate.gc)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "module",
    [
        "cli.app",
        "cli.plan_view",
        "cli.explain_view",
        "cli.status_view",
        "cli.verify_view",
        "cli.gc_view",
        "cli.diff_view",
        "planning.project",
        "run",
        "planning.plan",
        "planning.cost_model",
        "execution.status",
        "execution.driver",
        "execution.study_run",
    ],
)
def test_planning_and_status_import_no_torch(module):
    heavy = "torch transformers lm_eval datasets peft pandas matplotlib scipy numpy"
    code = f"import sys, ablate.{module}; print([m for m in {heavy.split()} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
