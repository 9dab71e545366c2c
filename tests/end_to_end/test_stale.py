"""A report is current as long as the code is: another line in any module, and it is written anew."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import PACKAGE, TESTS
from support.report_study import ONE_TABLE, bench

WRITE = """
import sys
from pathlib import Path
from support.report_study import ONE_TABLE, bench
from ablate.report.write import write_report

write_report(bench(Path(sys.argv[1]), ablations=ONE_TABLE).plan())
"""


@pytest.fixture
def package(tmp_path) -> Path:
    """A copy of the package, to be changed."""
    copy = tmp_path / "code" / "ablate"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    return copy


def write(package: Path, root: Path) -> tuple[str, dict[str, int]]:
    """Writes a report with the code of a package. -> what it was made from, and when each of its files was written."""
    path = os.pathsep.join(map(str, (package.parent, TESTS)))
    command = [sys.executable, "-c", WRITE, root]
    subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": path}, check=True, capture_output=True)
    folder = root / "reports" / "small"
    times = {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    return json.loads((folder / ".made.json").read_text())["inputs"], times


@pytest.mark.parametrize("module", ["planning/cost_model.py", "core/text.py"])
def test_a_report_is_written_anew_once_a_line_of_the_code_is_another_and_left_alone_before(tmp_path, package, module):
    study = bench(tmp_path, ablations=ONE_TABLE)
    study.commit(*study.plan().cells)
    inputs, times = write(package, tmp_path)
    assert write(package, tmp_path) == (inputs, times)
    with (package / module).open("a") as file:
        file.write("# a line that changes nothing\n")
    other_inputs, other_times = write(package, tmp_path)
    assert other_inputs != inputs
    assert other_times.keys() == times.keys()
    assert all(other_times[name] > times[name] for name in times)
