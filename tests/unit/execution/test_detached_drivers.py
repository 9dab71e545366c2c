"""What a cluster is given of a driver, and what is refused before anything is started."""

import os
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from support.paths import GOLDEN, ROOT

from ablate.core.errors import AblateError
from ablate.execution.detached.detach import detach, host_of
from ablate.execution.detached.driver_host import DRIVER_HOSTS, DriverCommand
from ablate.execution.detached.slurm_script import driver_script
from ablate.execution.pilots.cluster import JobStatus, Refused
from ablate.execution.profiles import Profile
from ablate.execution.slurm.job_table import COLUMNS
from ablate.execution.study_run import RunOptions
from ablate.machine.slots import Placing
from ablate.planning.project import open_study
from ablate.run import detach_study
from ablate.store.store import Store

WORDS = ["/opt/ablate/bin/python", "-P", "-m", "ablate", "run", "my study.yaml", "--executor", "a100"]
ASKED = {"partition": "cpu", "account": "nlp", "time": "1-00:00:00", "cpus-per-task": 1, "mem": "2G", "qos": None}


def script(log: str) -> str:
    command = DriverCommand("kd", WORDS, Path("/home/me/my studies"), Path(log), {"HF_TOKEN": "hf_of_nobody"})
    return driver_script(command, "a100", "ablate-1a2b3c4d-1", ASKED)


def test_the_script_of_a_driver_is_one_that_an_administrator_can_read():
    text, path = script("/shared/runs/studies/kd/100%/run.log"), GOLDEN / "slurm" / "driver.sh"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()
    assert "hf_of_nobody" not in text


@pytest.mark.parametrize("sign", ['"', "\\", "\n"])
def test_a_folder_that_no_script_can_hold_is_refused(sign):
    with pytest.raises(Refused, match="has a sign in its name"):
        script(f"/shared/{sign}/run.log")


class Hopeless:
    """A cluster that would never begin the driver that it was given."""

    is_cluster = True
    cancelled: ClassVar[list[str]] = []

    def __init__(self, profile: Profile) -> None:
        pass

    def submit_driver(self, command: DriverCommand) -> str:
        return "7"

    def status(self, job: str) -> JobStatus:
        return JobStatus("queued", job, why="no node is so large", is_hopeless=True)

    def describe(self, job: str) -> str:
        return f"job {job}"

    def cancel_driver(self, job: str) -> None:
        self.cancelled.append(job)


def test_a_driver_that_would_wait_for_ever_is_taken_back_and_told(tmp_path, monkeypatch):
    list(DRIVER_HOSTS)
    monkeypatch.setitem(DRIVER_HOSTS._parts, "hopeless", Hopeless)
    with pytest.raises(AblateError, match="job 7 would wait for ever, and was taken back: no node is so large"):
        detach(Store(tmp_path), "kd", Profile("far", "hopeless"), WORDS, print)
    assert Hopeless.cancelled == ["7"]


@pytest.mark.parametrize(("state", "code"), [("COMPLETED", 0), ("FAILED", 1)])
def test_a_job_that_ended_before_it_was_seen_to_drive_counts_as_slurm_says(tmp_path, monkeypatch, state, code):
    names = ("JOBID", "STATE", "RESTART_COUNT", "EXEC_HOST", "REASON", "COMMENT")
    line = ("3", state, "0", "node1", "None", "ablate-1a2b3c4d-1")
    widths = [width for _, width in COLUMNS]
    rows = ["".join(f"{text:{width}}" for text, width in zip(one, widths, strict=True)) for one in (names, line)]
    squeue = tmp_path / "squeue"
    squeue.write_text("\n".join(["#!/bin/sh", "cat <<END", *rows, "END", ""]))
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    host = host_of(Profile("a100", "slurm"))
    assert host.status("3").phase == "over"
    assert host.exit_code("3") == code


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (RunOptions(trackers=("nobody",)), "unknown tracker 'nobody'"),
        (RunOptions(placing=Placing(gpus=("0",))), "--gpus and --jobs speak of this machine, and slurm is elsewhere"),
    ],
)
def test_what_a_run_would_be_refused_for_is_told_before_anything_is_fetched_or_queued(tmp_path, options, problem):
    project = open_study(ROOT / "studies/tiny.yaml", tmp_path)
    with pytest.raises(AblateError, match=problem):
        detach_study(project, replace(options, profiles=(Profile("slurm", "slurm"),)), [], print)
    assert list(tmp_path.iterdir()) == []


def test_where_no_driver_can_run_says_what_is_possible():
    with pytest.raises(AblateError, match=r"of kind 'cloud', where none can run\. Possible kinds: local, .*slurm"):
        host_of(Profile("far", "cloud"))
