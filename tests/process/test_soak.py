"""The soak's short form; by hand: python tests/soak.py --kills 10000."""

import json
import subprocess
import sys

import pytest
from support.paths import TESTS


@pytest.mark.timeout(900)
@pytest.mark.parametrize("num_kills", [500, pytest.param(5000, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])])
def test_random_kills_leave_no_wrong_row_no_double_commit_and_no_process(tmp_path, num_kills):
    command = [sys.executable, str(TESTS / "soak.py"), "--kills", str(num_kills)]
    figures = tmp_path / "figures.json"
    soak = subprocess.run([*command, "--json", str(figures)], capture_output=True, text=True, check=False)
    print(soak.stdout, soak.stderr)
    assert soak.returncode == 0, soak.stdout + soak.stderr
    counts = json.loads(figures.read_text())
    assert counts["kills"] >= num_kills
    assert (counts["wrong_rows"], counts["double_commits"], counts["leaks"]) == (0, 0, 0)
