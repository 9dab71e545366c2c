"""The driver's line to a cluster: one thread that sends, cancels and asks, so that a command that hangs hangs alone."""

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from statistics import median

from ablate.core import disk, plain_files, processes, secrets
from ablate.core.failures import Ending, ending_of
from ablate.core.processes import Identity
from ablate.execution.pilots.cluster import Cluster, JobStatus, Refused, Unreachable
from ablate.execution.pilots.job_tables import JobTables, now_here
from ablate.execution.pilots.options import PilotOptions
from ablate.execution.pilots.pilot_job import PilotJob, is_asked_to_leave

CLOSE_S = 20.0
"""For what is still to be said when a run ends."""
WAIT_NOTE_S = 60.0
"""A job that waits so long is a note, then again each time after twice as long."""
OUTAGE_S = 10.0
"""A cluster that does not answer for so long gets no more work."""
SILENT_S = 300.0
"""A pilot that has work, and shows no sign of life for so long, hangs."""
LOG_BYTES = 400
AGAIN_S = 600.0
"""What goes wrong at every look is a note so often."""


class ClusterLine:
    """Jobs that a driver minds. Everything is gathered for the next look: one call for each of the three."""

    def __init__(self, name: str, cluster: Cluster, options: PilotOptions) -> None:
        self._name, self._cluster, self._options = name, cluster, options
        self.tables = JobTables(cluster, options.missing_s)
        self._lock = threading.Lock()
        self._open: dict[str, PilotJob] = {}
        """By token: those of which something may still come."""
        self._unsent: list[PilotJob] = []
        self._unsure: dict[str, float] = {}
        """By token: when a job was sent that was perhaps not taken; it is sent again once it is known to lack."""
        self._heard: dict[str, JobStatus] = {}
        """What was written down of them last."""
        self._cancels: dict[str, PilotJob] = {}
        self._kills: dict[str, tuple[PilotJob, Callable[[], bool], float]] = {}
        """Token -> a job whose pilot was asked to kill, whether it has, and when that is too late."""
        self._notes: list[str] = []
        self._noted: dict[str, float] = {}
        """What went wrong -> when it was noted."""
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._sent_at = float("-inf")
        self._waiting_since: float | None = None
        self._wait_note_s = WAIT_NOTE_S
        self._outage_since: float | None = None
        self._sent: dict[str, float] = {}
        """By token: when a job was sent that has not begun."""
        self._waits_s: deque[float] = deque(maxlen=9)

    # for the driver

    def send(self, job: PilotJob) -> None:
        """Has a job submitted with the next look."""
        with self._lock:
            self._open[job.token] = job
            self._unsent.append(job)

    def mind(self, job: PilotJob) -> None:
        """A job of another driver: from now on this one asks about it."""
        with self._lock:
            self._open[job.token] = job

    def adopt(self, job: PilotJob) -> None:
        """A job of an earlier driver is this one's from now on: looked up, and sent if it may not have been."""
        if not job.is_sent:
            self._unsure[job.token] = time.monotonic()
        self.mind(job)

    def cancel(self, job: PilotJob) -> None:
        """Has a job ended with the next look, or never sent."""
        with self._lock:
            self._open.setdefault(job.token, job)
            self._cancels[job.token] = job
        self._start()

    def cancel_unless(self, job: PilotJob, is_done: Callable[[], bool], after_s: float) -> None:
        """Has a job cancelled if it has not done by then what its pilot was asked for."""
        with self._lock:
            self._kills.setdefault(job.token, (job, is_done, time.monotonic() + after_s))
        self._start()

    def look(self) -> list[str]:
        """-> what a reader should know, each once. What was gathered is sent soon after."""
        if self._open:
            self._start()
        with self._lock:
            notes, self._notes = self._notes, []
        return notes

    @property
    def outage(self) -> str | None:
        """-> why the cluster cannot be asked, once that lasts."""
        since = self._outage_since
        return self.tables.problem if since and time.monotonic() - since >= OUTAGE_S else None

    @property
    def wait_s(self) -> float:
        """-> how long a job sent now is thought to queue: as those before it, and no shorter than some do already."""
        now = time.monotonic()
        so_far = max((now - sent_at for sent_at in list(self._sent.values())), default=0.0)
        return max(so_far, median(self._waits_s)) if self._waits_s else so_far

    def close(self) -> None:
        """Sends what is still to be sent, and ends the thread, or leaves it where it hangs."""
        self._closing.set()
        if self._thread:
            self._thread.join(CLOSE_S)

    # the thread

    def _start(self) -> None:
        if self._thread is None and not self._closing.is_set():
            self._thread = threading.Thread(target=self._run, name=f"line to {self._name}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._closing.is_set():
            due_at = time.monotonic() + self._options.look_s
            self._try(self._look)
            self._closing.wait(max(0.0, due_at - time.monotonic()))
        self._try(self._send_cancels)
        self._try(self._send_all)

    def _try(self, act: Callable[[], None]) -> None:
        """A disk that is full, or an answer that is none: it counts as an outage, and the next look may do better."""
        try:
            act()
        except Exception as error:  # code of others: whatever it does, the run goes on
            self.tables.problem = ending_of(error).message
            self._outage_since = self._outage_since or time.monotonic()
            self._note_rarely(f"the cluster's answer could not be used ({self.tables.problem})")

    def _look(self) -> None:
        self._mind_kills()
        self._send_cancels()
        self._send_jobs()
        with self._lock:
            asked = [job for job in self._open.values() if job not in self._unsent]
        if asked and not self.tables.ask(asked):
            self._outage_since = self._outage_since or time.monotonic()
            return
        self._heed(asked)
        self._outage_since = None

    def _mind_kills(self) -> None:
        now = time.monotonic()
        with self._lock:
            due = [(job, is_done) for job, is_done, late_at in self._kills.values() if late_at < now]
            for job, is_done in due:
                del self._kills[job.token]
                if not is_done():
                    self._cancels[job.token] = job

    def _send_cancels(self) -> None:
        with self._lock:
            unsent = [job for job in self._unsent if job.token in self._cancels]
            self._unsent = [job for job in self._unsent if job.token not in self._cancels]
            wanted = [job for job in self._cancels.values() if job not in unsent]
        for job in unsent:
            self._cancels.pop(job.token, None)
            self._end(job, Ending("cancelled", "it was not needed any more before it was sent"))
        if not wanted:
            return
        try:
            self._cluster.cancel(wanted)
        except Unreachable as error:
            self._note_rarely(f"{_jobs(len(wanted))} to be cancelled: {str(error) or 'it does not answer'}")
            return
        for job in wanted:
            self._cancels.pop(job.token, None)
            self._end(job, Ending("killed", "its job was cancelled by the run"))

    def _send_jobs(self, *, is_last: bool = False) -> None:
        with self._lock:
            jobs = _consecutive(self._unsent)
            is_due = time.monotonic() - self._sent_at >= 60.0 / self._options.submissions_per_minute
            if not jobs or not (is_due or is_last):
                return
            self._unsent = self._unsent[len(jobs) :]
        self._sent_at = time.monotonic()
        self._unsure |= dict.fromkeys((job.token for job in jobs), self._sent_at)
        try:
            self._cluster.submit(jobs)
        except Unreachable as error:
            self._note_rarely(f"{_jobs(len(jobs))} to be sent again: {str(error) or 'it does not answer'}")
        except Refused as error:
            for job in jobs:
                self._end(job, Ending("unfit", f"{self._name} refuses the job: {error}"))
        else:
            for job in jobs:
                self._acknowledge(job)

    def _send_all(self) -> None:
        while self._unsent:
            self._send_jobs(is_last=True)

    def _acknowledge(self, job: PilotJob) -> None:
        self._unsure.pop(job.token, None)
        self._sent[job.token] = time.monotonic()
        job.write(job.acknowledged, **now_here())

    # what a table says

    def _heed(self, asked: Sequence[PilotJob]) -> None:
        for job in asked:
            status = self.tables.status(job)
            if status and status != self._heard.get(job.token):
                self._keep(job, status)
            if status and job.token in self._unsure:
                self._acknowledge(job)
            if job.token in self._sent and job.pilot.exists():
                self._waits_s.append(time.monotonic() - self._sent.pop(job.token))
            if job.exit.exists() and not (is_asked_to_leave(job) and status and status.phase == "running"):
                if status and status.phase == "queued":  # it was taken twice, and the other still waits for its turn
                    self.cancel(job)
                self._forget(job)
            elif self.tables.is_missing(job):
                self._heed_missing(job)
            elif status and self.tables.is_over(job):
                self._end(job, status.ending or Ending("killed", _end_in_words(job, status)))
            elif status and status.phase == "queued" and status.is_hopeless:
                self._end(job, Ending("unfit", f"job {status.id} would wait for ever: {status.why}"))
                self.cancel(job)
            elif status and status.phase == "running" and self._hangs(job):
                self._note(f"job {status.id} shows no sign of life and is cancelled")
                self.cancel(job)
        self._note_waiting(asked)

    def _keep(self, job: PilotJob, status: JobStatus) -> None:
        """Writes down what a reader elsewhere may want to know."""
        self._heard[job.token] = status
        words = {"phase": status.phase, "id": status.id, "node": status.node, "why": status.why}
        with contextlib.suppress(OSError):
            disk.write_volatile(job.heard, disk.json_text(words))

    def _hangs(self, job: PilotJob) -> bool:
        is_silent = self.tables.silent_s(job) > SILENT_S
        return is_silent and job.entry(job.beat.num_taken + 1) is not None

    def _heed_missing(self, job: PilotJob) -> None:
        sent_at = self._unsure.get(job.token)
        if sent_at is not None:
            if self.tables.asked_at - sent_at >= self._options.missing_s:  # it was missed before it was sent, too
                self._send_again(job)
        elif not (self.tables.is_missing_unsent(job) and _has_sender(job)):
            self._end(job, Ending("lost", f"the cluster does not know job {job.token} any more"))

    def _send_again(self, job: PilotJob) -> None:
        with self._lock:
            self._unsure.pop(job.token, None)
            self._unsent.append(job)
        self.tables.forget(job)

    def _end(self, job: PilotJob, ending: Ending) -> None:
        """Nothing comes of a job any more, for every process that asks."""
        disk.create(job.over, disk.json_text(ending._asdict()), is_durable=False)
        self._forget(job)

    def _forget(self, job: PilotJob) -> None:
        with self._lock:
            self._open.pop(job.token, None)
            self._kills.pop(job.token, None)
            self._sent.pop(job.token, None)
        self._unsure.pop(job.token, None)

    # for the reader

    def _note_waiting(self, asked: Sequence[PilotJob]) -> None:
        statuses = [status for job in asked if (status := self.tables.status(job))]
        reasons = Counter(status.why for status in statuses if status.phase == "queued" and status.why)
        if not reasons:
            self._waiting_since, self._wait_note_s = None, WAIT_NOTE_S
            return
        self._waiting_since = self._waiting_since or time.monotonic()
        if time.monotonic() - self._waiting_since >= self._wait_note_s:
            self._wait_note_s *= 2
            self._note("; ".join(f"{_jobs(num)}: {why}" for why, num in reasons.most_common()))

    def _note_rarely(self, text: str) -> None:
        now = time.monotonic()
        if now - self._noted.get(text, float("-inf")) >= AGAIN_S:
            self._noted[text] = now
            self._note(text)

    def _note(self, text: str) -> None:
        with self._lock:
            self._notes.append(f"{self._name}: {text}")


def _end_in_words(job: PilotJob, status: JobStatus) -> str:
    """-> that a job ended; where no pilot came of it, what its script said last."""
    words = f"job {status.id} ended: {status.why or 'no reason'}"
    if job.pilot.exists():
        return words
    if printed := _printed(job):
        return f"{words}, before its pilot began; {job.log} ends with {printed.splitlines()[-1]!r}"
    return f"{words}, before its pilot began, and nothing was written to {job.log}: its node must see that folder"


def _printed(job: PilotJob) -> str:
    """-> the end of what a job's script and its pilot have printed, without tokens."""
    with contextlib.suppress(OSError):
        return secrets.hidden(plain_files.read_bytes(job.log)[-LOG_BYTES:].decode(errors="replace").strip())
    return ""


def _has_sender(job: PilotJob) -> bool:
    """Whether the driver that is to send a job is another, of this machine, and lives."""
    driver = job.record(job.request).get("driver")
    if driver is None:
        return False
    who = Identity.model_validate(driver)
    return who != processes.identity() and processes.contact(who) == "alive"


def _consecutive(jobs: Sequence[PilotJob]) -> list[PilotJob]:
    """-> the first of them that have numbers one after the other in one study."""
    return [job for place, job in enumerate(jobs) if (job.study, job.number) == (jobs[0].study, jobs[0].number + place)]


def _jobs(num: int) -> str:
    return "1 job waits" if num == 1 else f"{num} jobs wait"
