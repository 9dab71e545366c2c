"""The pilot jobs of one study, as its driver uses them: an attempt goes to one that is idle, else to a new one."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ablate.core import disk
from ablate.execution.executors.base import supervisor_of
from ablate.execution.pilots.cluster_line import ClusterLine
from ablate.execution.pilots.options import PilotOptions
from ablate.execution.pilots.pilot_job import PilotJob, claim_job, open_jobs
from ablate.execution.profiles import Profile
from ablate.store.attempt import Attempt

NOTE = ".pilot.json"
"""In an attempt's folder: which entries of which jobs it is; by the dot, exit.json does not list it."""


class Place(NamedTuple):
    """Where an attempt was handed in."""

    job: PilotJob
    number: int

    @property
    def is_passed(self) -> bool:
        """Whether a pilot has been at the entry, or has passed it over, and is at another or at none."""
        beat = self.job.beat
        return beat.num_taken >= self.number and beat.at != self.number

    @property
    def is_gone(self) -> bool:
        """Whether files say that no pilot is at the entry, nor will be."""
        return self.is_passed or self.job.is_closed

    def is_gone_for(self, attempt: Attempt) -> bool:
        """The same, and whether another pilot was first, while this one's job queues."""
        return self.is_gone or (supervisor_of(attempt) is not None and not self.job.pilot.exists())

    def holds(self, attempt: Attempt) -> bool:
        """Whether the entry is an attempt's."""
        entry = self.job.entry(self.number)
        return entry is not None and self.job.attempt(entry) == attempt


@dataclass
class PooledJob:
    """A job that this driver may hand attempts to."""

    job: PilotJob
    num_entries: int = 0
    attempt: Attempt | None = None
    """The last that it was given."""
    is_leaving: bool = False
    """It was asked to go, or takes no more."""

    @property
    def is_free(self) -> bool:
        is_idle = self.attempt is None or self.attempt.exit is not None
        return is_idle and not self.is_leaving and not self.job.is_closed

    @property
    def has_waiting(self) -> bool:
        """Whether its attempt waits for it to begin."""
        attempt = self.attempt
        is_queued = attempt is not None and not self.job.pilot.exists() and not self.job.is_closed
        return bool(is_queued and attempt and attempt.exit is None and supervisor_of(attempt) is None)

    def hand_in(self, attempt: Attempt) -> bool:
        """-> False where it takes no more."""
        here, before = Place(self.job, self.num_entries + 1), places_of(attempt)
        _note_places(attempt, [here, *before])
        self.is_leaving = not self.job.hand_in(here.number, attempt)
        if self.is_leaving:
            _note_places(attempt, before)
        else:
            self.num_entries, self.attempt = here.number, attempt
        return not self.is_leaving

    def close(self) -> bool:
        """Has its pilot go once it has no more work. -> whether none has come yet, and none will find any."""
        self.is_leaving = True
        with contextlib.suppress(OSError):  # it leaves by itself after a while
            disk.write_volatile(self.job.stop_request, "")
            return not self.job.pilot.exists() and self.job.hand_in(self.num_entries + 1, None)
        return False


class PilotPool:
    """Jobs of one study under one profile, with those of earlier drivers: of the same options, so they are alike."""

    def __init__(self, folder: Path, profile: Profile, options: PilotOptions, line: ClusterLine) -> None:
        self.folder, self._profile, self._options, self._line = folder, profile, options, line
        alike = [job for job in open_jobs(folder) if job.profile.address == profile.address]
        self._jobs = {job.path: self._adopted(job) for job in alike}

    def submit(self, attempt: Attempt, **wishes: object) -> None:
        """Hands an attempt to a pilot that is idle, or to a new job, which is sent with the next look."""
        for one in sorted(self._free(), key=lambda one: not one.job.pilot.exists()):
            if self._has_time(one.job) and one.hand_in(attempt):
                return
        job, it = claim_job(self.folder), self._options
        limits = {"time_s": it.time_s, "idle_s": it.idle_s, "margin_s": it.margin_s, "device": it.device}
        job.write(job.request, **self._profile.record(), **limits, **wishes)
        new = PooledJob(job)
        new.hand_in(attempt)
        self._jobs[job.path] = new  # not before: one that is never sent gets no work
        self._line.send(job)

    def move_to_idle(self) -> None:
        """Has attempts whose jobs still queue done by pilots that are idle: whichever comes first works on them."""
        idle = [one for one in self._free() if one.job.pilot.exists() and self._has_time(one.job)]
        waiting = [one for one in self._jobs.values() if one.has_waiting] if idle else []
        for one, other in zip(idle, waiting, strict=False):
            with contextlib.suppress(OSError):  # it stays where it is
                if other.attempt and one.hand_in(other.attempt):
                    other.attempt = None

    def num_idle(self) -> int:
        """-> how many pilots wait for work."""
        return sum(one.job.pilot.exists() for one in self._free())

    def send_away_idle(self) -> None:
        """What has no work goes, or never comes."""
        for one in list(self._free()):
            self._send_away(one)

    def cancel(self, job: PilotJob) -> None:
        """Ends a job whose pilot has not come, unless another driver has work for it."""
        if one := self._jobs.get(job.path):
            self._send_away(one)

    def _send_away(self, one: PooledJob) -> None:
        if one.close():
            self._line.cancel(one.job)

    def _free(self) -> Iterator[PooledJob]:
        return (one for one in list(self._jobs.values()) if one.is_free)

    def _has_time(self, job: PilotJob) -> bool:
        ends_at = job.record(job.pilot).get("ends_at")
        return ends_at is None or ends_at - time.time() > self._options.margin_s

    def _adopted(self, job: PilotJob) -> PooledJob:
        self._line.adopt(job)
        entries = job.entries()
        last = job.attempt(entries[-1]) if entries else None
        is_leaving = job.stop_request.exists() or (bool(entries) and last is None)
        return PooledJob(job, len(entries), last, is_leaving)


def place_of(attempt: Attempt) -> Place | None:
    """-> where an attempt was handed in last; None where it was not, yet."""
    return next(iter(places_of(attempt)), None)


def places_of(attempt: Attempt) -> list[Place]:
    """-> where an attempt was handed in, the last first."""
    record = disk.read_json(attempt.path / NOTE)
    places = record.get("places", []) if isinstance(record, dict) else []
    return [Place(PilotJob(attempt.path.parents[3] / path), number) for path, number in places]


def _note_places(attempt: Attempt, places: Sequence[Place]) -> None:
    names = [(place.job.path.relative_to(place.job.root).as_posix(), place.number) for place in places]
    disk.write_volatile(attempt.path / NOTE, disk.json_text({"places": names}))


def jobs_folder(attempt: Attempt) -> Path:
    """-> the folder of the jobs of an attempt's study."""
    return attempt.path.parents[2] / "jobs" / str((attempt.request or {}).get("study", "none"))
