"""`ablate report --watch`: the report is shown while it changes, and ends with Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest
from support.processes import is_alive
from support.shown_stages import MadeUp
from support.shown_studies import planned, trainings


@pytest.fixture
def watched(tmp_path):
    """-> made-up results of a study, its training at step 20, the process that watches it, and its address."""
    results = MadeUp(planned("running", tmp_path), dict)
    stage = trainings(results.plan, "")[0]
    attempt = results.run(stage, 20)
    command = [sys.executable, "-m", "ablate", "--root", str(tmp_path), "report", "--watch"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    line = process.stdout.readline()
    match = re.match(r"(http://127\.0\.0\.1:\d+/) shows \S+ as it changes; Ctrl-C ends it$", line)
    assert match, line + process.stdout.read()
    yield results, stage, attempt, process, match[1]
    process.kill()
    process.wait()


def page(address):
    with urllib.request.urlopen(address, timeout=10) as answer:
        return answer.read().decode()


def test_what_is_shown_changes_with_the_study_and_ctrl_c_ends_all_of_it(watched):
    results, stage, attempt, process, address = watched
    assert "step 20 of 404" in page(address)
    results.go_on(attempt, stage, 25)
    deadline = time.monotonic() + 120
    while "step 25 of 404" not in page(address):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    children = psutil.Process(process.pid).children(recursive=True)
    assert {connection.laddr.ip for child in children for connection in child.net_connections("inet")} == {"127.0.0.1"}
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=30)[0]
    assert process.returncode == 130
    assert re.fullmatch(r"(\d\d:\d\d:\d\d drawn again\n)+", rest)
    assert not any(map(is_alive, children))
    with pytest.raises(OSError, match="refused"):
        page(address)
