"""Whoever copies the README's lines, in order, has the command `ablate` and a plan of a study of their own."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.environments import clean_env
from support.paths import ROOT, TESTS

TEXT = (ROOT / "README.md").read_text()
LAST = "ablate plan study.yaml"
"""What comes then asks models of the hub, for hours."""
INSTEAD = {
    # what pip would fetch for minutes is linked; and the embedded study has tests of its own
    "make demo": "make -n demo; make .venv/bin/python; link .venv hatchling; .venv/bin/pip install -q .; "
    "link .venv ablate",
    "make test": "make -n test",
    "~/ablate-env/bin/pip install -c constraints.txt dist/ablate-*.whl": "{line}; link ~/ablate-env ablate",
}


def lines_of(*titles: str) -> list[str]:
    """-> the commands of sections, without their comments."""
    sections = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    chosen = [section for title in titles for section in sections if section.startswith(f"{title}\n")]
    assert len(chosen) == len(titles)
    return [
        re.split(r"\s+# ", line.strip())[0]
        for section in chosen
        for line in re.findall(r"^    .*", section, re.MULTILINE)
    ]


@pytest.fixture
def clone(tmp_path) -> Path:
    """What a clone has of this checkout, as far as it is installed."""
    for name in ("ablate", "studies"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "runs", "reports"))
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_its_lines_lead_from_a_clone_to_a_plan_of_ones_own_study(clone):
    lines = lines_of("From nothing", "A study of your own")
    assert [line for line in INSTEAD if line not in lines] == []
    upto = lines[: lines.index(LAST) + 1]
    script = [INSTEAD.get(line, "{line}").format(line=line) for line in upto]
    script = [f"{line}; echo USES $(command -v ablate)" if "activate" in line else line for line in script]
    link = f'link() {{ PYTHONPATH={TESTS} {sys.executable} -m support.environments "$@"; }}'
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-euxc", "\n".join([link, *script])],
        cwd=clone,
        env=clean_env() | {"PATH": path, "HOME": str(clone)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    commands = [Path(line.split()[1]) for line in ended.stdout.splitlines() if line.startswith("USES")]
    assert commands == [clone / ".venv/bin/ablate", clone / "ablate-env/bin/ablate"]
    assert "study.yaml: a valid study" in ended.stdout
    assert "trainings and evaluations" in ended.stdout


def test_every_verb_in_its_lines_is_one():
    from ablate.cli.app import VERBS

    lines = lines_of("From nothing", "A study of your own")
    verbs = {line.split()[1] for line in lines if line.startswith("ablate ")}
    assert {"new", "validate", "plan", "run"} <= verbs <= {verb.__name__ for verb in VERBS}


def test_every_make_target_in_the_guides_is_one():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    guides = TEXT + (ROOT / "CONTRIBUTING.md").read_text() + (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"(?:`|^ {4})make (\w+)", guides, re.MULTILINE))
    assert {"demo", "wheel", "quick", "test", "check", "picture"} <= named <= targets


def test_its_columns_are_those_that_rows_are_read_by():
    from ablate.study.data_settings import COLUMNS

    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", TEXT, re.MULTILINE))
    assert {name: tuple(re.findall(r"`(\w+)`", rows[name])) for name in COLUMNS} == COLUMNS
