"""A pilot job: one job of a cluster that holds its card and works on one attempt after another, in a folder of its own.

A driver and a pilot talk by files alone, so that any driver, on any machine that sees runs/, can go on with any pilot.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ablate.core import disk, plain_files
from ablate.core.values import digest
from ablate.execution.profiles import Profile, profile_in
from ablate.store.attempt import Attempt
from ablate.store.store import is_number


class Beat(NamedTuple):
    """A heartbeat: what a pilot is at."""

    beats: int = 0
    num_taken: int = 0
    """Entries of its inbox that it has begun, or passed over."""
    at: int | None = None
    """The entry that it works on."""


class Entry(NamedTuple):
    """One file of an inbox."""

    attempt: str | None
    """Its folder below the root; None: the pilot takes no more."""


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

    @cached_property
    def token(self) -> str:
        """A name that no other job has, whatever its root: the cluster knows the job by it."""
        return f"ablate-{digest(str(self.path.parent.resolve()))[:8]}-{self.number}"

    @property
    def root(self) -> Path:
        """The folder that holds runs/."""
        return self.path.parents[3]

    @property
    def request(self) -> Path:
        """job.json: which profile it is of, with its options, and how a driver wants it; written before it is sent."""
        return self.path / "job.json"

    @property
    def acknowledged(self) -> Path:
        """sent.json: the cluster has taken it, and when."""
        return self.path / "sent.json"

    @property
    def is_sent(self) -> bool:
        """Whether the cluster is known to have had it."""
        return self.acknowledged.exists() or self.pilot.exists()

    @property
    def profile(self) -> Profile:
        """-> the profile that it was sent for, as that was then."""
        return profile_in(self.record(self.request))

    @property
    def inbox(self) -> Path:
        """A folder of files 1.json, 2.json, ...: the attempts that it is to work on, in that order.

        Each is made once, by whoever is first: a driver that hands in an attempt, or the pilot that takes no more.
        """
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

    @property
    def over(self) -> Path:
        """over.json: a driver has seen that nothing comes of it any more, and why; a pilot that comes all the same
        leaves at once.
        """
        return self.path / "over.json"

    @property
    def absence(self) -> Path:
        """absent.json: since when the cluster does not list it."""
        return self.path / "absent.json"

    @property
    def heard(self) -> Path:
        """heard.json: what the cluster said of it last, for a reader on any machine."""
        return self.path / "heard.json"

    @property
    def log(self) -> Path:
        """What the pilot itself prints, where the cluster writes it down."""
        return self.path / "log.txt"

    def kill_request(self, number: int) -> Path:
        """Exists once an entry's worker is to be killed."""
        return self.path / f"kill-{number}"

    # the inbox

    def hand_in(self, number: int, attempt: Attempt | None) -> bool:
        """-> whether the entry is now this attempt's, or, with none, whether the inbox is closed by it."""
        path = attempt.path.relative_to(self.root).as_posix() if attempt else None
        return disk.create(self.inbox / f"{number}.json", json.dumps({"attempt": path}), is_durable=False)

    def entry(self, number: int) -> Entry | None:
        """-> an entry, None where there is none yet."""
        record = disk.read_json(self.inbox / f"{number}.json")
        return Entry(record.get("attempt")) if isinstance(record, dict) else None

    def attempt(self, entry: Entry) -> Attempt | None:
        """-> what an entry asks for; None where it closes the inbox."""
        return Attempt(self.root / entry.attempt) if entry.attempt else None

    def entries(self) -> list[Entry]:
        """-> all, in order."""
        entries: list[Entry] = []
        while entry := self.entry(len(entries) + 1):
            entries.append(entry)
        return entries

    # what a pilot and its drivers say

    @property
    def beat(self) -> Beat:
        """-> the last heartbeat; the first where there is none, or none that can be read."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return Beat(*json.loads(plain_files.read_text(self.heartbeat)))
        return Beat()

    @property
    def is_closed(self) -> bool:
        """Whether files say that no pilot will work here any more."""
        return self.exit.exists() or self.over.exists()

    def write(self, path: Path, **record: object) -> None:
        """Writes one of its files. None is missed after a crash: an attempt that no pilot comes to is tried again."""
        disk.write_volatile(path, disk.json_text(record))

    def record(self, path: Path) -> dict[str, Any]:
        """-> what one of its files says; nothing where it is not there, or torn."""
        record = disk.read_json(path)
        return record if isinstance(record, dict) else {}


def is_asked_to_leave(job: PilotJob) -> bool:
    """Whether its pilot has left for a SIGTERM: the cluster alone can say whose."""
    return "SIGTERM" in str(job.record(job.exit).get("why"))


def claim_job(jobs: Path) -> PilotJob:
    """-> a new job in a study's folder of jobs; making its folder is the claim."""
    disk.make_folder(jobs)
    number = max((job.number for job in jobs_in(jobs)), default=0)
    while True:
        number += 1
        job = PilotJob(jobs / str(number))
        with contextlib.suppress(FileExistsError):
            disk.make_new_folder(job.path)
            disk.make_new_folder(job.inbox)
            return job


def open_jobs(jobs: Path) -> list[PilotJob]:
    """-> those in a study's folder of jobs of which something may still come."""
    return [job for job in jobs_in(jobs) if job.request.exists() and not job.is_closed]


def jobs_in(jobs: Path) -> Iterator[PilotJob]:
    """-> the jobs in a study's folder of jobs, oldest first."""
    with contextlib.suppress(OSError):
        names = [entry.path.name for entry in plain_files.listed(jobs) if entry.what == "a folder"]
        yield from (PilotJob(jobs / str(number)) for number in sorted(int(name) for name in names if is_number(name)))
