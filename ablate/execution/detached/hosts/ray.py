"""A driver as a detached actor of Ray's that holds nothing which a job could ask for: it outlives whoever made it."""

import secrets

from ablate.core.values import digest
from ablate.execution.detached.driver_host import DRIVER_HOSTS, EXPENDABLE, DriverCommand
from ablate.execution.driver_records import JOB, Record
from ablate.execution.executors.base import OFFLINE, python
from ablate.execution.pilots.cluster import JobStatus
from ablate.execution.profiles import Profile
from ablate.execution.ray_cluster.cluster import handed_over
from ablate.execution.ray_cluster.line import RayLine
from ablate.execution.ray_cluster.options import RayOptions
from ablate.execution.ray_cluster.statuses import Census, statuses

SIZES: dict[str, object] = {"num_gpus": 0, "num_cpus": 0, "memory": None, "resources": {}}
"""A driver mostly sleeps, and one that held a core would keep jobs that ask for all of them off its node."""


class RayDriver:
    """The line to a Ray cluster; ids are names of actors."""

    is_cluster, comes_back = True, False

    def __init__(self, profile: Profile) -> None:
        self._profile, self._options = profile.name, RayOptions.model_validate(dict(profile.options))
        self._line = RayLine(self._options.address, self._options.namespace, self._options.answer_s)

    def submit_driver(self, command: DriverCommand) -> str:
        name = f"ablate-driver-{digest(str(command.log))[:8]}-{secrets.token_hex(4)}"
        own = {JOB: self.describe(name), EXPENDABLE: "1"} | dict.fromkeys(OFFLINE, "1")
        keeper = python("ablate.execution.detached.driver_keeper", str(command.log), *command.words)
        job = {"token": name, "folder": str(command.folder), "command": keeper, "settings": own}
        self._line.ask("submit", jobs=[job], options=SIZES, settings=handed_over())
        return name

    def is_driver(self, job: str, record: Record) -> bool:
        return record.job == self.describe(job)

    def status(self, job: str) -> JobStatus | None:
        census = Census.model_validate(self._line.ask("census", tokens=[job]))
        return statuses(census, {}, "").get(job)

    def exit_code(self, job: str) -> int:
        return 1

    def cancel_driver(self, job: str) -> None:
        self._line.ask("cancel", tokens=[job])

    def describe(self, job: str) -> str:
        return f"Ray actor {job} of profile {self._profile}"


DRIVER_HOSTS.register("ray")(RayDriver)
