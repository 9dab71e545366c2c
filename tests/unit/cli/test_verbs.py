"""The command line, as a person or a script meets it."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time

import pytest
from support.paths import ROOT

VERBS = (
    "validate",
    "plan",
    "data",
    "run",
    "status",
    "stop",
    "logs",
    "report",
    "results",
    "compare",
    "explain",
    "export",
    "diff",
    "verify",
    "gc",
    "doctor",
    "schema",
    "new",
)
TINY = str(ROOT / "studies" / "tiny.yaml")


def _ablate(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ablate", *arguments]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False)


def test_help_lists_every_verb_and_takes_half_a_second():
    began = time.monotonic()
    ran = _ablate("--help")
    assert time.monotonic() - began < 1.5  # 0.2 s on a machine that does nothing else
    assert ran.returncode == 0
    assert re.findall(r"^  ([a-z]+)  ", ran.stdout, re.MULTILINE) == list(VERBS)


def test_its_version_is_the_installed_one():
    assert _ablate("--version").stdout == f"ablate {importlib.metadata.version('ablate')}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_is_in_the_readme(verb):
    assert _ablate(verb, "--help").returncode == 0
    assert f"ablate {verb}" in (ROOT / "README.md").read_text()


def test_a_wrong_study_ends_with_2_and_its_place_and_no_traceback(tmp_path):
    study = tmp_path / "s.yaml"
    study.write_text("name: s\ndata: {sorce: a/b}\n")
    ran = _ablate("validate", str(study))
    assert ran.returncode == 2
    assert "s.yaml:2:8: unknown key 'sorce'" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_study_that_is_not_there_is_told(tmp_path):
    ran = _ablate("run", str(tmp_path / "none.yaml"))
    assert ran.returncode == 2
    assert "none.yaml" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_new_study_is_written_once_and_is_valid_as_far_as_it_goes(tmp_path):
    path = tmp_path / "mine.yaml"
    assert _ablate("new", str(path)).returncode == 0
    assert _ablate("validate", str(path)).returncode == 0
    assert _ablate("new", str(path)).returncode == 2


def test_every_default_can_be_shown_and_is_a_study_again(tmp_path):
    ran = _ablate("validate", TINY, "--explain")
    path = tmp_path / "explained.yaml"
    path.write_text(ran.stdout)
    assert _ablate("validate", str(path)).returncode == 0


def test_the_schema_is_json():
    assert json.loads(_ablate("schema").stdout)["title"] == "Study"


@pytest.mark.parametrize("place", ["before", "after", "environment"])
def test_the_root_may_stand_before_or_after_the_verb_or_in_the_environment(tmp_path, place):
    root = ["--root", str(tmp_path)]
    arguments = {"before": [*root, "status"], "after": ["status", *root], "environment": ["status"]}[place]
    ran = _ablate(*arguments, ABLATE_ROOT=str(tmp_path) if place == "environment" else "")
    assert ran.returncode == 2
    assert f"no study was run under {tmp_path}/runs" in ran.stderr


def test_a_plan_for_a_machine_says_everything(tmp_path):
    plan = json.loads(_ablate("plan", TINY, "--json", "--root", str(tmp_path)).stdout)
    kinds = [stage["kind"] for stage in plan["stages"]]
    assert (kinds.count("finetune"), kinds.count("distill"), kinds.count("evaluate")) == (4, 11, 19)
    assert {stage["state"] for stage in plan["stages"]} == {"waiting"}
    assert len(plan["cells"]) == 35


def test_an_unknown_loss_executor_or_cell_names_the_possible_ones(tmp_path):
    ran = _ablate("run", TINY, "--executor", "slrum", "--root", str(tmp_path))
    assert ran.returncode == 2
    assert "unknown executor 'slrum'" in ran.stderr
    ran = _ablate("run", TINY, "--only", "nothing/*", "--root", str(tmp_path))
    assert ran.returncode == 2
    assert "kd_ratio/kd_ratio=0.25@0" in ran.stderr
