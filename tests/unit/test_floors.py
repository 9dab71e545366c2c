"""The house: imports go down, none goes in a circle, and planning stays light."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import PACKAGE, ROOT

MAY_IMPORT = {
    "core": "",
    "example": "",
    "store": "core",
    "losses": "core",
    "feature_losses": "core",
    "machine": "core",
    "study": "core example feature_losses losses",
    "data": "core study",
    "training": "core data feature_losses losses store study",
    "evaluation": "core store study training",
    "stages": "core data evaluation example store study training",
    "planning": "core data machine stages store study",
    "execution": "core machine planning store",
    "results": "core execution planning store study",
    "maintenance": "core evaluation execution machine planning stages store",
    "report": "core execution planning results store study",
    "cli": " ".join(path.parent.name for path in PACKAGE.glob("*/__init__.py")),
}
"""Package -> the others that it may import."""


def module_of(root: Path, package: str) -> Path:
    """-> one of its modules."""
    return next(path for path in sorted((root / "ablate" / package).glob("*.py")) if path.name != "__init__.py")


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
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(MAY_IMPORT)


def test_every_import_that_no_floor_allows_is_found(copy):
    forbidden = [
        (package, f"ablate.{other}.{module_of(copy, other).stem}")
        for package, allowed in MAY_IMPORT.items()
        for other in MAY_IMPORT
        if other not in (package, *allowed.split())
    ]
    forbidden += [(package, "ablate.run") for package in MAY_IMPORT if package != "cli"]
    for package, module in forbidden:
        path = module_of(copy, package)
        path.write_text(f"{path.read_text()}\nimport {module}\n")
    done = lint(copy)
    assert done.returncode == 1
    reported = set(re.findall(r"ablate\.(\w+)\.\w+ -> ([\w.]+) ", done.stdout))
    assert [pair for pair in forbidden if pair not in reported] == []


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
        "cli.results_view",
        "cli.run_end_view",
        "cli.data_view",
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


def test_the_list_of_verbs_draws_no_tables():
    code = "import sys, ablate.cli.app; print([m for m in ('rich.console', 'ablate.study.schema') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
