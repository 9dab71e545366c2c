"""docs/extending.md: its parts are put into a copy of the package, a file each, and what it says of them is run."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from support.paths import PACKAGE, ROOT, TESTS

PAGE = (ROOT / "docs" / "extending.md").read_text().partition("## From a package of your own")[0]
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
FILE = re.compile(r"`(ablate/[\w/]+\.py)`:\n\n```python\n(.*?)```", re.DOTALL)
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the package with every part of the page in it."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, folder / "ablate", ignore=shutil.ignore_patterns("__pycache__"))
    for path, code in FILE.findall(PAGE):
        (folder / path).write_text(code)
    return folder


def tried(section):
    """-> the code of a section that is no file."""
    return CODE.findall(FILE.sub("", SECTIONS[section]))


def run(extended, folder, *command):
    path = os.pathsep.join([str(extended), str(TESTS)])
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )


def test_there_is_a_part_of_every_sort():
    assert [*SECTIONS] == ["A loss", "A kind of stage", "An exhibit", "An executor", "A cluster", "A tracker"]
    assert (
        [len(FILE.findall(SECTIONS[name])) for name in SECTIONS] == [len(tried(name)) for name in SECTIONS] == [1] * 6
    )


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_a_part_of_the_page_works_in_a_copy_of_the_package(extended, tmp_path, section):
    (code,) = tried(section)
    done = run(extended, tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr


def contract(extended, folder, name, part):
    """-> pytest's run of a contract file on the copy, of the tests that are about a part."""
    options = ["-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "-k", part]
    return run(extended, folder, "-m", "pytest", *options, str(TESTS / "contracts" / name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("test_stage_kinds.py", "output_size and not golden"),
        ("test_exhibits.py", "row_count"),
        ("test_trackers.py", "printed"),
    ],
)
def test_a_part_of_the_page_keeps_its_contract(extended, tmp_path, name, part):
    done = contract(extended, tmp_path, name, part)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^[.]+ ", done.stdout, re.MULTILINE)


def test_a_kind_of_stage_without_a_golden_key_is_missed(extended, tmp_path):
    done = contract(extended, tmp_path, "test_stage_kinds.py", "golden")
    assert done.returncode == 1
    assert "output_size" in done.stdout
