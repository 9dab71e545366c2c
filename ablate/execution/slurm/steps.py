"""The nodes of an allocation as a cluster: every pilot is a step of the job that we run in, begun by an srun.

A step ends with its srun, and all end with the allocation. An srun is in a session of its own, so the driver may be
killed; but whoever ends the shell of salloc, or the script of sbatch, ends the allocation.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Annotated

import psutil
from pydantic import Field

from ablate.core import disk, plain_files, processes
from ablate.core.failures import Ending
from ablate.core.values import Int, Num
from ablate.execution.pilots.cluster import JobStatus, Refused, Table, Unreachable
from ablate.execution.pilots.options import PilotOptions
from ablate.execution.pilots.pilot_job import PilotJob
from ablate.execution.slurm import commands, job_table
from ablate.execution.slurm.allocation import Allocation

NAME = "--job-name="
LOG_BYTES = 4096


class SrunOptions(PilotOptions):
    """How the steps share an allocation: one for each `cards` cards, or for each processor where there are none."""

    cpus: Annotated[Int, Field(ge=1)] | None = None
    """Of each."""
    command_s: Annotated[Num, Field(gt=0)] = 30.0
    """For one of Slurm's commands to answer."""


class Srun:
    """The line to an allocation's nodes; None: this process runs in none, and can only ask."""

    def __init__(self, options: SrunOptions, allocation: Allocation | None) -> None:
        self._options, self._allocation = options, allocation
        self._ours: dict[str, subprocess.Popen[bytes]] = {}
        """By token, of this process."""

    def submit(self, jobs: Sequence[PilotJob]) -> None:
        if self._allocation is None:
            raise Refused("kind srun wants an allocation: run it in a shell of salloc's, or in a script of sbatch's")
        for job in jobs:
            self._ours[job.token] = self._begin(job, self._allocation)

    def _begin(self, job: PilotJob, allocation: Allocation) -> "subprocess.Popen[bytes]":
        """An srun waits by itself until there is room for its step."""
        with disk.opened_to_append(job.log) as log:
            try:
                return subprocess.Popen(
                    [*self._words(job, allocation), sys.executable, "-P", "-m", PILOT, str(job.path.absolute())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment(allocation),
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                raise Refused("there is no command 'srun' here") from error

    def _words(self, job: PilotJob, allocation: Allocation) -> list[str]:
        words = ["srun", f"--jobid={allocation.job}", "--nodes=1", "--ntasks=1", "--exact", "--mem=0"]
        cpus = self._options.cpus or allocation.cpus_of(self._options.cards)
        words += [f"--cpus-per-task={cpus}", f"{NAME}{job.token}"]
        return [*words, f"--gres=gpu:{self._options.cards}"] if self._options.device == "cuda" else words

    def table(self, jobs: Sequence[PilotJob]) -> Table:
        asked_at = time.monotonic()
        waiting = _sruns()  # before the steps: one that has begun meanwhile is in both
        ended = {job.token: status for job in jobs if (status := self._ended(job))}
        begun = job_table.steps(self._ask(["squeue", *job_table.STEPS, "--user", str(os.getuid())]))
        queued = {
            token: JobStatus("queued", f"srun {process.pid}", why="waits for room in the allocation")
            for token, process in waiting.items()
        }
        return Table(asked_at, queued | ended | begun)

    def _ended(self, job: PilotJob) -> JobStatus | None:
        """-> how a step's srun of this process has ended, None while it runs."""
        process = self._ours.get(job.token)
        if process is None or process.poll() is None:
            return None
        why = _last_line(job) or f"srun ended with code {process.returncode}"
        is_lost = "node fail" in why.lower()
        return JobStatus("over", f"srun {process.pid}", why=why, ending=Ending("lost", why) if is_lost else None)

    def cancel(self, jobs: Sequence[PilotJob]) -> None:
        tokens = {job.token for job in jobs}
        waiting = _sruns()
        begun = job_table.steps(self._ask(["squeue", *job_table.STEPS, "--user", str(os.getuid())]))
        ids = [status.id for token, status in begun.items() if token in tokens]
        for token in tokens & waiting.keys() - begun.keys():
            _end(waiting[token])
        if ids:
            self._ask(["scancel", *ids])

    def _ask(self, words: Sequence[str]) -> str:
        try:
            return commands.answer(words, timeout_s=self._options.command_s)
        except Refused as error:
            raise Unreachable(str(error)) from error


PILOT = "ablate.execution.pilots.pilot"


def environment(allocation: Allocation) -> Mapping[str, str]:
    """-> of an srun and its step: nothing that says how the allocation's own tasks are laid out."""
    ends_at = {"SLURM_JOB_END_TIME": f"{allocation.ends_at:.0f}"} if allocation.ends_at else {}
    return commands.environment() | ends_at


def _sruns() -> dict[str, psutil.Process]:
    """-> the sruns of pilots on this machine, by token."""
    sruns: dict[str, psutil.Process] = {}
    for process in psutil.process_iter(["name", "cmdline"]):
        if process.info["name"] == "srun":
            tokens = [word.removeprefix(NAME) for word in process.info["cmdline"] or () if word.startswith(NAME)]
            sruns |= dict.fromkeys(tokens, process)
    return sruns


def _end(process: psutil.Process) -> None:
    identity = processes.identity(process.pid)
    if identity:
        processes.kill_session(identity)


def _last_line(job: PilotJob) -> str:
    try:
        lines = plain_files.read_bytes(job.log)[-LOG_BYTES:].decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.startswith("srun:")), "")
