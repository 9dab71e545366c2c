"""The pilot: what a cluster runs as one job. It holds a card, and works on one attempt after another, as `local`."""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from ablate.core import disk, processes, shared_folders
from ablate.core.processes import Identity
from ablate.execution.executors.base import supervisor_of
from ablate.execution.executors.local import Local
from ablate.execution.pilots import job_environment
from ablate.execution.pilots.pilot_job import Beat, Entry, PilotJob
from ablate.execution.place_record import JOB
from ablate.execution.supervisor import TIED
from ablate.machine.slots import Placing
from ablate.store.attempt import Attempt

TICK_S = 0.1
BEAT_S = 1.0
SILENT_S = 3.0
"""Without a heartbeat so long, another pilot that signed in this folder is gone."""
SAVE_S = 15.0
"""Beside a stage's grace: for what it leaves to be written down before the job's time is over."""
REQUEST_S = 20.0
"""For the request of an attempt, which was written before its entry, to be seen here."""
NUM_GONE = 3
"""So many times in a row a worker is gone before it counts: one that is being forked has not signed yet."""
AWAY_S = 600.0
"""For a disk to come back, as a supervisor waits for it."""
STUCK_S = 60.0
"""A pilot that is to leave and cannot say so leaves all the same."""


def main(arguments: list[str]) -> None:
    """Works in the folder of one job."""
    me = processes.identity()
    assert me
    os.environ |= {TIED: me.model_dump_json(), JOB: job_environment.cluster_id()}
    pilot = Pilot(PilotJob(Path(arguments[0]).absolute()))
    pilot.run()


class Pilot:
    """One turn of one job: a cluster may begin it anew, and what an earlier turn was at is gone then."""

    def __init__(self, job: PilotJob) -> None:
        self.job = job
        self.signed_as: dict[str, object] = {}
        self.request = job.record(job.request)
        self.started_at = time.monotonic()
        self.signals: list[int] = []
        self.beat = Beat()
        self.beaten_at = 0.0
        self.attempt: Attempt | None = None
        """It works on this one."""
        self.num_gone = 0
        self.idle_since = self.started_at
        self.leave_since: float | None = None
        self.stop_at: float | None = None
        """When what is at work is killed, once it was asked to save a checkpoint."""
        self.is_given_up = False
        """Nothing waits for it any more: its job counts as over, or another pilot has signed in its place."""
        self.ends_at = job_environment.ends_at() or self._ends_at()
        is_warm, device = self.request.get("fork_server", True), self.request.get("device", "cpu")
        self.local = Local(Placing(num_jobs=1, uses_fork_server=is_warm), has_assigned_card=device == "cuda")

    def _ends_at(self) -> float | None:
        time_s = self.request.get("time_s")
        return time.time() + time_s if time_s else None

    def run(self) -> None:
        """Until it has no more work, no more time, or is told to go."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, lambda caught, _: self.signals.append(caught))
        if not self._has_signed():
            return
        with contextlib.closing(self.local):
            why = self._work()
        if self.is_given_up:
            return
        with contextlib.suppress(OSError):  # the cluster says that it is over
            self.job.write(self.job.exit, why=why)

    def _has_signed(self) -> bool:
        """-> False where nothing is to be done here, or another pilot does it."""
        me, earlier = processes.identity(), self.job.record(self.job.pilot)
        if me is None or self.job.is_closed or (earlier and self._is_another_at_work(earlier)):
            return False
        self.signed_as = me.model_dump()
        signature = {
            "process": self.signed_as,
            "cluster_id": job_environment.cluster_id(),
            "num_restarts": job_environment.num_restarts(),
            "ends_at": self.ends_at,
        }
        if earlier:
            self.job.write(self.job.pilot, **signature)
        elif not disk.create(self.job.pilot, disk.json_text(signature), is_durable=False):
            return False  # another came in the same instant
        self._say(Beat(1))
        return True

    def _is_another_at_work(self, earlier: dict[str, object]) -> bool:
        """Whether whoever signed before lives: a cluster may start one job twice."""
        if job_environment.num_restarts() > int(str(earlier.get("num_restarts", 0))):
            return False
        if processes.contact(Identity.model_validate(earlier["process"])) == "gone":
            return False
        seen = self.job.beat
        until = time.monotonic() + SILENT_S
        while time.monotonic() < until:
            if self.job.beat != seen:
                return True
            time.sleep(TICK_S)
        return False

    # its work

    def _work(self) -> str:
        """-> why it leaves."""
        well_at = time.monotonic()
        while time.monotonic() - well_at < AWAY_S:
            with contextlib.suppress(OSError):  # a disk that is away for a moment must not end a training
                if why := self._turn():
                    return why
                well_at = time.monotonic()
            time.sleep(TICK_S)
        return "its folder cannot be read any more"

    def _turn(self) -> str | None:
        self._beat()
        if self.is_given_up:
            if self.attempt:
                self.local.end(self.attempt)
            return "nothing waits for it any more"
        if self.attempt:
            self._mind(self.attempt)
            return None
        if entry := self.job.entry(self.beat.num_taken + 1):
            return self._take(entry)
        why = self._why_leave()
        self.leave_since = (self.leave_since or time.monotonic()) if why else None
        return why if why and self._has_closed() else None

    def _take(self, entry: Entry) -> str | None:
        """Begins an entry, or passes it over: it was withdrawn, an earlier turn was at it, or there is no time."""
        attempt, number = self.job.attempt(entry), self.beat.num_taken + 1
        if attempt is None:
            return "another pilot has closed the inbox"
        shared_folders.awaited(lambda: attempt.request, attempt.path, REQUEST_S)
        is_free = attempt.request and attempt.exit is None and not attempt.worker.exists()
        if not is_free or self._must_go or self.job.kill_request(number).exists():
            self._say(Beat(self.beat.beats + 1, number))
            return None
        self._say(Beat(self.beat.beats + 1, number, number))
        self.attempt, self.num_gone = attempt, 0
        with contextlib.suppress(OSError):  # whoever waits for it sees that nobody came
            self.local.submit(attempt)
        return None

    def _mind(self, attempt: Attempt) -> None:
        if self.job.kill_request(self.beat.num_taken).exists():
            self.local.end(attempt)
        if self._must_go:
            self._have_saved(attempt)
        self.num_gone = 0 if self.local.poll(attempt) == "alive" else self.num_gone + 1
        if self.num_gone >= (1 if attempt.exit else NUM_GONE):
            self.attempt, self.idle_since = None, time.monotonic()
            self._say(Beat(self.beat.beats + 1, self.beat.num_taken))

    def _have_saved(self, attempt: Attempt) -> None:
        """Asks what is at work to save a checkpoint, and ends it when it takes too long."""
        supervisor, grace_s = supervisor_of(attempt), (attempt.request or {}).get("grace_s", 0.0)
        if self.stop_at is None and supervisor:
            processes.send(supervisor, signal.SIGTERM)
            self.stop_at = time.monotonic() + grace_s + SAVE_S
        elif self.stop_at is None:
            self.stop_at = time.monotonic() + SAVE_S
        elif time.monotonic() > self.stop_at:
            self.local.end(attempt)

    # its end

    @property
    def _left_s(self) -> float:
        return self.ends_at - time.time() if self.ends_at else float("inf")

    @property
    def _must_go(self) -> bool:
        """Whether the cluster wants its card back now."""
        grace_s = (self.attempt.request or {}).get("grace_s", 0.0) if self.attempt else 0.0
        return bool(self.signals) or self._left_s < grace_s + SAVE_S

    def _why_leave(self) -> str | None:
        if self.signals:
            return f"the cluster sent {signal.Signals(self.signals[0]).name}"
        if self._left_s < self.request.get("margin_s", 0.0):
            return "its time is nearly over"
        if self.job.stop_request.exists():
            return "there is no more work for it"
        if time.monotonic() - self.idle_since > self.request.get("idle_s", 0.0):
            return "it had no work for a while"
        return None if self.job.path.exists() else "its folder was removed"

    def _has_closed(self) -> bool:
        """Whether no entry can come any more."""
        try:
            return self.job.hand_in(self.beat.num_taken + 1, None)
        except OSError:
            return time.monotonic() - (self.leave_since or 0.0) > STUCK_S or not self.job.path.exists()

    def _beat(self) -> None:
        if time.monotonic() - self.beaten_at >= BEAT_S:
            for folder in (self.job.path, self.job.inbox):
                shared_folders.look_afresh(folder)
            self._say(self.beat._replace(beats=self.beat.beats + 1))
            self.is_given_up = self.job.over.exists() or self._is_replaced()

    def _is_replaced(self) -> bool:
        """Whether the cluster has begun the job elsewhere, which this node was not to learn."""
        signed: object = self.job.record(self.job.pilot).get("process", self.signed_as)
        return signed != self.signed_as

    def _say(self, beat: Beat) -> None:
        self.beat, self.beaten_at = beat, time.monotonic()
        with contextlib.suppress(OSError):  # a full disk must not end a training
            disk.write_volatile(self.job.heartbeat, json.dumps(beat))


if __name__ == "__main__":
    main(sys.argv[1:])
