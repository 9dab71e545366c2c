"""Slurm as a cluster, with commands in PATH that answer as they are told and write down what they were asked."""

import os
from pathlib import Path

import pytest

from ablate.execution.pilots.cluster import Unreachable
from ablate.execution.pilots.pilot_job import PilotJob
from ablate.execution.slurm.cluster import Slurm
from ablate.execution.slurm.job_table import COLUMNS
from ablate.execution.slurm.options import SlurmOptions


def line(*cells: str) -> str:
    return "".join(cell.ljust(width) for cell, (_, width) in zip(cells, COLUMNS, strict=True)) + "\n"


HEADER = line("JOBID", "STATE", "RESTART_COUNT", "EXEC_HOST", "REASON", "COMMENT")


class Bin:
    """Commands: what each prints lies in a file of its name, what it was asked in NAME.calls, a code in NAME.code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in ("sbatch", "squeue", "scancel", "scontrol", "sacct"):
            (folder / name).write_text(
                f'#!/bin/bash\necho "$@" >> {folder}/{name}.calls\n[ {name} = sbatch ] && cat >> {folder}/scripts\n'
                f"cat {folder}/{name}.out 2>/dev/null; cat {folder}/{name}.err >&2 2>/dev/null\n"
                f"exit $(cat {folder}/{name}.code 2>/dev/null || echo 0)\n"
            )
            (folder / name).chmod(0o755)

    def says(self, name: str, out: str = "", problem: str = "", code: int = 0) -> None:
        for ending, text in {"out": out, "err": problem, "code": str(code)}.items():
            (self.folder / f"{name}.{ending}").write_text(text)

    def calls(self, name: str) -> list[str]:
        path = self.folder / f"{name}.calls"
        return path.read_text().splitlines() if path.exists() else []


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


def test_all_jobs_are_asked_about_in_one_question_and_ended_by_one_command(commands, jobs):
    commands.says("squeue", listed(jobs))
    slurm = Slurm(SlurmOptions())
    assert {status.id for status in slurm.table(jobs).jobs.values()} == {"41", "42", "43", "44", "45"}
    slurm.cancel(jobs)
    assert len(commands.calls("squeue")) == 1
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


def test_a_job_that_slurm_holds_after_a_failed_start_is_let_go_once_and_hopeless_if_it_stays(commands, jobs):
    slurm = Slurm(SlurmOptions())
    commands.says("squeue", listed(jobs[:2], "PENDING", "launch failed requeued held", "1"))
    slurm.table(jobs)
    assert commands.calls("scontrol") == ["release 41,42"]
    status = slurm.table(jobs).jobs[jobs[0].token]
    assert status.is_hopeless
    assert len(commands.calls("scontrol")) == 1
    commands.says("squeue", listed(jobs[:2], "PENDING", "launch failed requeued held", "2"))
    slurm.table(jobs)
    assert len(commands.calls("scontrol")) == 2


@pytest.mark.parametrize("problem", ["Unable to contact slurm controller", "Invalid user", ""])
def test_a_question_that_fails_says_nothing_of_any_job(commands, jobs, problem):
    commands.says("squeue", problem=problem, code=1)
    with pytest.raises(Unreachable):
        Slurm(SlurmOptions()).table(jobs)
