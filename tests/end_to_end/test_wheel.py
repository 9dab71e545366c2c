"""The wheel, in an environment that has what it requires and nothing else, used from a folder that is no checkout."""

import ast
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.environments import build_wheel, clean_env, installed
from support.paths import PACKAGE, ROOT, STUDIES

import ablate


@dataclass(frozen=True)
class Elsewhere:
    """The environment's commands, and an empty folder."""

    bin: Path
    folder: Path

    def __call__(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        whole = [self.bin / command, *arguments]
        return subprocess.run(whole, cwd=self.folder, env=clean_env(), capture_output=True, text=True, check=False)

    @property
    def package(self) -> Path:
        """Where the code lies that is run."""
        return Path(self("python", "-c", "import ablate; print(ablate.__file__)").stdout).parent

    def ablate(self, *arguments: str) -> str:
        ended = self("ablate", *arguments)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Elsewhere:
    root = tmp_path_factory.mktemp("wheel")
    folder = root / "elsewhere"
    folder.mkdir()
    return Elsewhere(installed(build_wheel(root), root / "env"), folder)


def test_its_code_is_the_wheels_and_its_version_that_of_this_checkout(elsewhere):
    assert elsewhere.ablate("--version") == f"ablate {ablate.__version__}\n"
    assert elsewhere.package.is_relative_to(elsewhere.bin.parent)


def test_a_new_study_is_written_and_valid(elsewhere):
    elsewhere.ablate("new", "mine.yaml")
    assert elsewhere.ablate("validate", "mine.yaml") == "mine.yaml: a valid study\n"


@pytest.mark.parametrize(("study", "num_cells"), [("tiny.yaml", 35), ("tiny_on_policy.yaml", 38)])
def test_the_embedded_studies_models_rows_and_tasks_are_in_it(elsewhere, study, num_cells):
    shutil.copy(STUDIES / study, elsewhere.folder)
    elsewhere.ablate("validate", study)
    assert f"{num_cells} cells" in elsewhere.ablate("plan", study)


def test_the_doctor_knows_which_versions_were_tested_and_runs_a_stage(elsewhere):
    assert (elsewhere.package / "constraints.txt").read_text() == (ROOT / "constraints.txt").read_text()
    lines = {line["what"]: line for line in json.loads(elsewhere.ablate("doctor", "--json"))}
    assert {lines["libraries"]["state"], lines["a stage"]["state"]} == {"ok"}


EXTRAS = ("ray", "liger_kernel", "bitsandbytes")
"""Of extras of ablate's own: who wants one without is told which, or goes without."""


def test_whatever_it_imports_it_requires(elsewhere):
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py") if "assets" not in path.parts]
    names = sorted({name.split(".")[0] for tree in trees for name in _imported(tree)} - {"ablate", *EXTRAS})
    assert {"torch", "lm_eval", "pydantic"} <= set(names)
    code = f"import importlib.util; print([name for name in {names} if importlib.util.find_spec(name) is None])"
    assert elsewhere("python", "-c", code).stdout == "[]\n"


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
