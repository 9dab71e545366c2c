"""The short form of the soak on a cluster at its worst; by hand: python tests/cluster_soak.py --faults 2000."""

import json
import subprocess
import sys

import pytest
from support.paths import TESTS

COUNTS = ("wrong_rows", "double_commits", "leaks", "odd_endings", "jobs_left")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("num", [100, pytest.param(2000, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])])
def test_random_faults_of_a_cluster_leave_no_wrong_row_no_double_commit_no_job_and_no_process(tmp_path, num):
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(TESTS / "cluster_soak.py"), "--faults", str(num), "--json", str(figures)]
    soak = subprocess.run(command, capture_output=True, text=True, check=False)
    print(soak.stdout, soak.stderr)
    assert soak.returncode == 0, soak.stdout + soak.stderr
    counts = json.loads(figures.read_text())
    assert counts["faults"] >= num
    assert {name: counts[name] for name in COUNTS} == dict.fromkeys(COUNTS, 0)
