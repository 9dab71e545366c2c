"""A driver as a small job of Slurm's, without a card: it is queued again when its time is over, and goes on."""

import os
import re

from ablate.core.values import digest
from ablate.execution.detached.driver_host import DRIVER_HOSTS, DriverCommand
from ablate.execution.detached.slurm_script import driver_script
from ablate.execution.driver_records import Record
from ablate.execution.pilots.cluster import JobStatus, Refused, Unreachable
from ablate.execution.profiles import Profile
from ablate.execution.slurm import commands, job_table
from ablate.execution.slurm.options import SlurmOptions
from ablate.execution.slurm.units import slurms_time

_UNKNOWN = re.compile(r"invalid job id", re.IGNORECASE)


class SlurmDriver:
    """The line to the Slurm whose commands are in PATH; ids are Slurm's own."""

    is_cluster = comes_back = True

    def __init__(self, profile: Profile) -> None:
        self._profile, self._options = profile.name, SlurmOptions.model_validate(dict(profile.options))

    def submit_driver(self, command: DriverCommand) -> str:
        script = driver_script(command, self._profile, _token(command), self._asked())
        answer = self._answer(["sbatch", "--parsable"], script, command)
        if job := job_table.submitted(answer):
            return job
        raise Unreachable(f"sbatch gave an answer without a job's number: {answer[:120]!r}")

    def _asked(self) -> dict[str, object]:
        own, every = self._options.driver, self._options
        return {
            "partition": own.partition or every.partition,
            "account": every.account or every.extra.get("account"),
            "qos": own.qos or every.qos or every.extra.get("qos"),
            "time": slurms_time(own.time) if own.time else None,
            "cpus-per-task": own.cpus,
            "mem": own.memory,
        }

    def is_driver(self, job: str, record: Record) -> bool:
        return record.job == self.describe(job)

    def status(self, job: str) -> JobStatus | None:
        words = ["squeue", "--jobs", job, "--all", "--states=all", "--Format", job_table.FORMAT]
        try:
            rows = job_table.rows(self._answer(words))
        except commands.CommandMissing as error:
            raise Unreachable(str(error)) from error
        except Refused as error:
            if _UNKNOWN.search(str(error)):
                return None
            raise Unreachable(str(error)) from error  # no answer is no word about any job
        return next((job_table.status(row) for row in rows if row.id == job), None)

    def exit_code(self, job: str) -> int:
        try:
            ended = re.search(r"\bExitCode=(\d+):(\d+)", self._answer(["scontrol", "show", "job", job]))
        except (Refused, Unreachable):
            return 1
        return int(ended[1]) or (128 + int(ended[2]) if ended[2] != "0" else 0) if ended else 1

    def cancel_driver(self, job: str) -> None:
        try:
            self._answer(["scancel", job])
        except commands.CommandMissing as error:
            raise Unreachable(str(error)) from error
        except Refused:
            return  # there is none to end

    def describe(self, job: str) -> str:
        return f"Slurm job {job} of profile {self._profile}"

    def _answer(self, words: list[str], text: str = "", command: DriverCommand | None = None) -> str:
        settings = commands.environment(command.environment if command else os.environ)
        return commands.answer(words, timeout_s=self._options.command_s, text=text, settings=settings)


def _token(command: DriverCommand) -> str:
    return f"ablate-{digest(f'driver {command.log}')[:8]}-1"


DRIVER_HOSTS.register("slurm")(SlurmDriver)
