"""Slurm as a cluster, with commands in PATH that answer as they are told and write down what they were asked."""

import os
from pathlib import Path

import pytest
from support.slurm_commands import HEADER, Bin, line

from ablate.execution.pilots.cluster import Refused, Unreachable
from ablate.execution.pilots.pilot_job import PilotJob
from ablate.execution.slurm.cluster import MOST_RELEASES, Slurm
from ablate.execution.slurm.options import SlurmOptions


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bin:
    it = Bin(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{it.folder}:{os.environ['PATH']}")
    it.says("scontrol", "MaxArraySize = 1001\n")
    it.says("squeue", HEADER)
    return it


@pytest.fixture
def jobs(tmp_path: Path) -> list[PilotJob]:
    return [PilotJob(tmp_path / f"runs/jobs/toys/{number}") for number in range(1, 6)]


def listed(jobs: list[PilotJob], state: str = "RUNNING", reason: str = "None", restarts: str = "0") -> str:
    rows = [line(str(40 + job.number), state, restarts, "n1", reason, job.token) for job in jobs]
    return HEADER + "".join(rows)


def test_consecutive_jobs_are_one_array_as_large_as_the_cluster_allows(commands, jobs):
    slurm = Slurm(SlurmOptions())
    slurm.submit(jobs)
    assert len(commands.calls("sbatch")) == 1
    commands.says("scontrol", "MaxArraySize = 2\n")
    Slurm(SlurmOptions()).submit(jobs)
    assert len(commands.calls("sbatch")) == 1 + 3
    slurm.submit(jobs)
    assert len(commands.calls("scontrol")) == 2  # each asked once


def test_an_array_has_no_more_tasks_than_an_administrator_allows(commands, jobs):
    commands.says("scontrol", "MaxArraySize = 1001\nSchedulerParameters = bf_window=600,max_array_tasks=2\n")
    Slurm(SlurmOptions()).submit(jobs)
    assert len(commands.calls("sbatch")) == 3


LIMIT = (
    "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates"
    " accounting/QOS policy (job submit limit, user's size and/or time limits)"
)


def arrays(commands: Bin) -> list[str]:
    """-> how many tasks each submission asked for; nothing: one job."""
    scripts = (commands.folder / "scripts").read_text().split("#!/bin/bash\n")[1:]
    return [next((text for text in script.splitlines() if "--array" in text), "") for script in scripts]


def test_an_array_over_the_users_limit_is_sent_by_halves_with_one_try_a_call(commands, jobs):
    slurm = Slurm(SlurmOptions())
    commands.says("sbatch", problem=LIMIT, code=1)
    for _ in range(4):
        with pytest.raises(Unreachable, match="QOSMaxSubmitJobPerUserLimit"):
            slurm.submit(jobs)
    assert arrays(commands) == ["#SBATCH --array=0-4", "#SBATCH --array=0-1", "", ""]
    commands.says("sbatch", "41\n")
    slurm.submit(jobs)
    assert arrays(commands)[4:] == ["", "#SBATCH --array=0-1", "#SBATCH --array=0-1"]


def test_a_job_that_was_sent_is_known_by_the_number_that_sbatch_has_told(commands, jobs):
    slurm = Slurm(SlurmOptions())
    commands.says("sbatch", "Welcome to the cluster 2000\n77;alpha\n")
    slurm.submit(jobs[:2])
    slurm.cancel(jobs[:2])
    assert commands.calls("scancel") == ["77_[0,1]"]
    commands.says("sacct", "77_0|FAILED|n1\n")
    assert slurm.table(jobs[:2]).jobs[jobs[0].token].phase == "over"


def test_a_machine_without_slurms_commands_has_no_word_about_any_job(jobs, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unreachable, match="login node"):
        Slurm(SlurmOptions()).table(jobs)
    with pytest.raises(Unreachable, match="login node"):
        Slurm(SlurmOptions()).cancel(jobs)
    with pytest.raises(Refused, match="login node"):
        Slurm(SlurmOptions()).submit(jobs)


def test_all_jobs_are_asked_about_in_one_question_and_ended_by_one_command(commands, jobs):
    commands.says("squeue", listed(jobs))
    slurm = Slurm(SlurmOptions())
    assert {status.id for status in slurm.table(jobs).jobs.values()} == {"41", "42", "43", "44", "45"}
    slurm.cancel(jobs)
    (question,) = commands.calls("squeue")
    assert "--name ablate-toys " in question
    assert commands.calls("scancel") == ["41 42 43 44 45"]


def test_a_job_that_is_not_there_is_none_to_end(commands, jobs):
    slurm = Slurm(SlurmOptions())
    slurm.cancel(jobs)
    assert commands.calls("scancel") == []
    commands.says("squeue", listed(jobs))
    commands.says("scancel", problem="scancel: error: Kill job error on job id 41: Invalid job id specified", code=1)
    slurm.cancel(jobs)
    commands.says("scancel", problem="scancel: error: Access/permission denied", code=1)
    with pytest.raises(Unreachable):
        slurm.cancel(jobs)


def test_what_slurm_has_forgotten_is_looked_up_in_its_accounts_once(commands, jobs):
    slurm = Slurm(SlurmOptions())
    commands.says("squeue", listed(jobs[:2]))
    slurm.table(jobs)
    commands.says("squeue", HEADER)
    commands.says("sacct", "41|NODE_FAIL|n1\n42|RUNNING|n1\n")
    table = slurm.table(jobs)
    assert table.jobs[jobs[0].token].ending.failure == "lost"
    assert jobs[1].token not in table.jobs
    assert len(commands.calls("sacct")) == 1


def test_without_accounts_nobody_asks_for_them_again(commands, jobs):
    slurm = Slurm(SlurmOptions())
    commands.says("squeue", listed(jobs))
    slurm.table(jobs)
    commands.says("squeue", HEADER)
    commands.says("sacct", problem="Slurm accounting storage is disabled", code=1)
    for _ in range(3):
        assert slurm.table(jobs).jobs == {}
    assert len(commands.calls("sacct")) == 1


def test_an_end_that_was_seen_is_remembered_when_slurm_forgets_it(commands, jobs):
    slurm = Slurm(SlurmOptions())
    commands.says("squeue", listed(jobs, "TIMEOUT"))
    slurm.table(jobs)
    commands.says("squeue", HEADER)
    assert slurm.table(jobs).jobs[jobs[0].token].ending.failure == "preempted"


def test_a_job_that_slurm_holds_after_a_failed_start_is_let_go_some_times_and_hopeless_if_it_stays(commands, jobs):
    slurm = Slurm(SlurmOptions())
    commands.says("squeue", listed(jobs[:2], "PENDING", "launch failed requeued held", "1"))
    for num in range(1, MOST_RELEASES + 1):
        assert not slurm.table(jobs).jobs[jobs[0].token].is_hopeless
        assert commands.calls("scontrol") == ["release 41,42"] * num
    assert slurm.table(jobs).jobs[jobs[0].token].is_hopeless
    assert len(commands.calls("scontrol")) == MOST_RELEASES
    commands.says("squeue", listed(jobs[:2], "PENDING", "launch failed requeued held", "2"))
    assert not slurm.table(jobs).jobs[jobs[0].token].is_hopeless
    assert len(commands.calls("scontrol")) == MOST_RELEASES + 1


@pytest.mark.parametrize("problem", ["Unable to contact slurm controller", "Invalid user", ""])
def test_a_question_that_fails_says_nothing_of_any_job(commands, jobs, problem):
    commands.says("squeue", problem=problem, code=1)
    with pytest.raises(Unreachable):
        Slurm(SlurmOptions()).table(jobs)
