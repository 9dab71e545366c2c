"""What a cluster is given of a driver, and what is refused before anything is started."""

import os
from pathlib import Path

import pytest
from support.paths import GOLDEN
from support.slurm_commands import HEADER, Bin, line

from ablate.core.errors import AblateError
from ablate.execution.detached import detach
from ablate.execution.detached.detach import Detached, Ended, host_of
from ablate.execution.detached.driver_host import DriverCommand
from ablate.execution.detached.slurm_script import driver_script
from ablate.execution.pilots.cluster import Refused
from ablate.execution.profiles import Profile
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


def test_where_no_driver_can_run_says_what_is_possible():
    with pytest.raises(AblateError, match=r"of kind 'cloud', where none can run\. Possible kinds: local, .*slurm"):
        host_of(Profile("far", "cloud"))


# a driver that is a job, and does not come up


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bin:
    commands = Bin(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{commands.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(detach, "ASK_S", 0.1)
    commands.says("sbatch", "Welcome.\n77\n")
    return commands


def outcome(root: Path) -> Detached | Ended:
    return detach.detach(
        Store(root), "toys", Profile("a100", "slurm", {"extra": {"qos": "high"}}), WORDS, lambda _: None
    )


def listed(state: str) -> str:
    """-> a job of the driver's, as squeue lists it."""
    return HEADER + line("77", state, "0", "n1", "None", "ablate-1a2b3c4d-1")


@pytest.mark.parametrize(("ended", "code"), [("0:0", 0), ("4:0", 4), ("0:15", 143)])
def test_a_driver_that_has_ended_before_it_was_seen_to_drive_hands_on_its_exit_code(tmp_path, slurm, ended, code):
    slurm.says("squeue", listed("COMPLETED"))
    slurm.says("scontrol", f"JobId=77\n   DerivedExitCode=9:0 ExitCode={ended}\n")
    assert outcome(tmp_path) == Ended("Slurm job 77 of profile a100 ended: COMPLETED", code)
    assert "#SBATCH --qos=high" in (slurm.folder / "scripts").read_text()


def test_a_driver_that_its_cluster_has_forgotten_is_not_waited_for(tmp_path, slurm, monkeypatch):
    monkeypatch.setattr(detach, "MISSING_S", 0.3)
    slurm.says("squeue", HEADER)
    slurm.says("scontrol", problem="slurm_load_jobs error: Invalid job id specified", code=1)
    assert outcome(tmp_path) == Ended("Slurm job 77 of profile a100 is not known to its cluster any more", 1)


@pytest.mark.parametrize("fault", ["squeue: error: Unable to contact slurm controller", ""])
def test_a_driver_of_which_nothing_is_heard_is_not_waited_for(tmp_path, slurm, monkeypatch, fault):
    monkeypatch.setattr(detach, "QUEUE_S", 0.5)
    slurm.says("squeue", listed("RUNNING"), fault, 1 if fault else 0)
    assert outcome(tmp_path)[::2] == ("Slurm job 77 of profile a100", "nothing was heard of it yet")


def test_between_two_turns_of_a_driver_it_is_still_expected_and_not_once_its_job_is_over(tmp_path, slurm, monkeypatch):
    monkeypatch.setattr(detach, "QUEUE_S", 0.0)
    slurm.says("squeue", listed("COMPLETING"))
    outcome(tmp_path)
    expected = detach.expected(Store(tmp_path), "toys")
    assert str(expected) == "Slurm job 77 of profile a100, which has begun or is to end, and drives nothing now"
    assert detach.queued(Store(tmp_path), "toys") is None  # whoever comes now may run the study
    slurm.says("squeue", listed("PENDING"))
    assert "which is in the queue" in str(detach.queued(Store(tmp_path), "toys"))
    slurm.says("squeue", listed("COMPLETED"))
    assert detach.expected(Store(tmp_path), "toys") is None
