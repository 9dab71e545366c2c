"""A driver in a session of its own on this machine: it outlives the terminal and the login that started it."""

import subprocess

from ablate.core import disk, processes
from ablate.core.processes import Identity
from ablate.execution.detached.driver_host import DRIVER_HOSTS, DriverCommand
from ablate.execution.driver_records import JOB, Record
from ablate.execution.executors.base import LOCAL
from ablate.execution.pilots.cluster import JobStatus
from ablate.execution.profiles import Profile


class LocalSession:
    """Processes that have no terminal. Their ids are identities, so that no other process is taken for one."""

    is_cluster = comes_back = False

    def __init__(self, profile: Profile) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def submit_driver(self, command: DriverCommand) -> str:
        with disk.opened_to_append(command.log) as log:
            self._process = subprocess.Popen(
                command.words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(command.environment) | {JOB: "detached"},
                cwd=command.folder,
                start_new_session=True,
            )
        identity = processes.identity(self._process.pid)
        return identity.model_dump_json() if identity else ""

    def is_driver(self, job: str, record: Record) -> bool:
        return record.driver == _identity(job)

    def status(self, job: str) -> JobStatus | None:
        if self._process and self._process.poll() is not None:
            return JobStatus("over", job)
        driver = _identity(job)
        contact = processes.contact(driver) if driver else "gone"
        return None if contact == "unknown" else JobStatus("running" if contact == "alive" else "over", job)

    def exit_code(self, job: str) -> int:
        code = self._process.returncode if self._process else None
        return 1 if code is None else code if code >= 0 else 128 - code

    def cancel_driver(self, job: str) -> None:
        driver = _identity(job)
        if driver and processes.contact(driver) == "alive":
            processes.kill_session(driver)

    def describe(self, job: str) -> str:
        return str(_identity(job) or "a process that has ended")


def _identity(job: str) -> Identity | None:
    return Identity.model_validate_json(job) if job else None


DRIVER_HOSTS.register(LOCAL)(LocalSession)
