"""What a cluster is given of a driver, what is refused before anything is started, and how long one is waited for."""

import os
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from support.paths import GOLDEN, ROOT
from support.slurm_commands import HEADER, Bin, line

from ablate.core import processes
from ablate.core.errors import AblateError
from ablate.execution import driver_records
from ablate.execution.detached import detach as detaching
from ablate.execution.detached.detach import Detached, Ended, detach, host_of
from ablate.execution.detached.driver_host import DRIVER_HOSTS, DriverCommand
from ablate.execution.detached.slurm_script import driver_script
from ablate.execution.pilots.cluster import JobStatus, Refused, Unreachable
from ablate.execution.profiles import Profile
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


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bin:
    commands = Bin(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{commands.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(detaching, "ASK_S", 0.1)
    commands.says("sbatch", "Welcome.\n77\n")
    return commands


def outcome(root: Path) -> Detached | Ended:
    profile = Profile("a100", "slurm", {"extra": {"qos": "high"}})
    return detach(Store(root), "toys", profile, WORDS, lambda _: None)


def listed(state: str) -> str:
    """-> the driver's job, as squeue lists it."""
    return HEADER + line("77", state, "0", "n1", "None", "ablate-1a2b3c4d-1")


@pytest.mark.parametrize(("ended", "code"), [("0:0", 0), ("4:0", 4), ("0:15", 143)])
def test_a_driver_that_has_ended_before_it_was_seen_to_drive_hands_on_its_exit_code(tmp_path, slurm, ended, code):
    slurm.says("squeue", listed("COMPLETED"))
    slurm.says("scontrol", f"JobId=77\n   DerivedExitCode=9:0 ExitCode={ended}\n")
    assert outcome(tmp_path) == Ended("Slurm job 77 of profile a100 ended: COMPLETED", code)
    assert "#SBATCH --qos=high" in (slurm.folder / "scripts").read_text()


UNKNOWN = ("", "slurm_load_jobs error: Invalid job id specified", 1)


def test_between_two_turns_of_a_driver_it_is_still_expected_and_not_once_its_job_is_over(tmp_path, slurm, monkeypatch):
    monkeypatch.setattr(detaching, "UNSEEN_S", 0.0)
    slurm.says("squeue", listed("COMPLETING"))
    outcome(tmp_path)
    coming = detaching.expected(Store(tmp_path), "toys")
    assert str(coming) == "Slurm job 77 of profile a100, which has begun or is to end, and drives nothing now"
    assert detaching.queued(Store(tmp_path), "toys") is None  # whoever comes now may run the study
    slurm.says("squeue", listed("PENDING"))
    assert "which is in the queue" in str(detaching.queued(Store(tmp_path), "toys"))
    for answer in ((listed("COMPLETED"),), (HEADER,), UNKNOWN):
        slurm.says("squeue", *answer)
        assert detaching.expected(Store(tmp_path), "toys") is None


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


# a driver that is a job


class Played:
    """A cluster of which the test says what it knows of the driver; None: it does not answer."""

    is_cluster, comes_back = True, False

    def __init__(self, status: JobStatus | None) -> None:
        self.known, self.num_asked = status, 0

    def submit_driver(self, command: DriverCommand) -> str:
        return "7"

    def is_driver(self, job: str, record: driver_records.Record) -> bool:
        return record.job == self.describe(job)

    def status(self, job: str) -> JobStatus:
        self.num_asked += 1
        if self.known is None:
            raise Unreachable("no route")
        return self.known

    def exit_code(self, job: str) -> int:
        return 1

    def describe(self, job: str) -> str:
        return f"job {job} of profile far"


RUNNING, OVER = JobStatus("running", "7", "node3"), JobStatus("over", "7", why="it ended")


def started_on(monkeypatch, root: Path, status: JobStatus | None) -> tuple[Played, Detached | Ended]:
    """-> the cluster, and what whoever starts a driver there hears."""
    played = Played(status)
    monkeypatch.setitem(DRIVER_HOSTS._parts, "played", lambda profile: played)
    monkeypatch.setattr(detaching, "UNSEEN_S", 0.3)
    return played, detaching.detach(Store(root), "kd", Profile("far", "played"), ["ablate"], lambda line: None)


def drive_and_leave(monkeypatch, root: Path) -> None:
    monkeypatch.setenv(driver_records.JOB, "job 7 of profile far")
    record = driver_records.claim(Store(root), "kd", processes.identity(), None)
    driver_records.leave(record)
    monkeypatch.delenv(driver_records.JOB)


@pytest.mark.parametrize(("status", "words"), [(RUNNING, "runs on node3, and nothing is seen"), (None, "said nothing")])
def test_a_driver_that_nobody_sees_drive_is_not_waited_for_for_ever(tmp_path, monkeypatch, status, words):
    _, begun = started_on(monkeypatch, tmp_path, status)
    assert isinstance(begun, Detached)
    assert begun.who == "job 7 of profile far"
    assert words in begun.unseen


def test_a_driver_that_drove_and_left_between_two_looks_has_not_failed(tmp_path, monkeypatch):
    _, failed = started_on(monkeypatch, tmp_path, OVER)
    assert isinstance(failed, Ended)
    drive_and_leave(monkeypatch, tmp_path)
    _, begun = started_on(monkeypatch, tmp_path, OVER)
    assert isinstance(begun, Detached)
    assert begun.unseen.startswith("has ended already")


def test_a_cluster_is_not_asked_about_a_driver_that_has_left_for_good(tmp_path, monkeypatch):
    played, _ = started_on(monkeypatch, tmp_path, RUNNING)
    played.num_asked = 0
    assert detaching.queued(Store(tmp_path), "kd") is None
    assert played.num_asked == 1
    drive_and_leave(monkeypatch, tmp_path)
    assert detaching.queued(Store(tmp_path), "kd") is None
    detaching.cancel(Store(tmp_path), "kd", is_to_wait=False)
    assert played.num_asked == 1
    played.comes_back = True
    assert detaching.queued(Store(tmp_path), "kd") is None
    assert played.num_asked == 2
