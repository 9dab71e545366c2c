"""A pilot job: one job of a cluster that holds its card and works on one attempt after another, in a folder of its own.

A driver and a pilot talk by files alone, so that any driver, on any machine that sees runs/, can go on with any pilot.
"""

from dataclasses import dataclass
from pathlib import Path

from ablate.core.values import digest


@dataclass(frozen=True)
class PilotJob:
    """The folder of one: runs/jobs/<study>/<n>, claimed by making it."""

    path: Path

    @property
    def study(self) -> str:
        return self.path.parent.name

    @property
    def number(self) -> int:
        return int(self.path.name)

    @property
    def token(self) -> str:
        """A name that no other job has, whatever its root: the cluster knows the job by it."""
        return f"ablate-{digest(str(self.path.parent.resolve()))[:8]}-{self.number}"

    @property
    def request(self) -> Path:
        """job.json: which profile it is of, for which slot, and how a driver wants it; written before it is sent."""
        return self.path / "job.json"

    @property
    def inbox(self) -> Path:
        """A folder of files 1.json, 2.json, ...: the attempts that it is to work on, in that order."""
        return self.path / "inbox"

    @property
    def pilot(self) -> Path:
        """pilot.json: who works here (node, process, the cluster's id, restarts before) and when the time is over."""
        return self.path / "pilot.json"

    @property
    def heartbeat(self) -> Path:
        return self.path / "heartbeat"

    @property
    def stop_request(self) -> Path:
        """Exists once a driver has no more work for it."""
        return self.path / "stop"

    @property
    def exit(self) -> Path:
        """exit.json: it has left by itself, after a last look into its inbox, and why."""
        return self.path / "exit.json"
