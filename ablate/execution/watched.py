"""An attempt that a driver waits for: whether it goes on, is lost, hangs, or how it ended."""

import time
from dataclasses import dataclass, field

from ablate.core import plain_files, shared_folders
from ablate.core.failures import Ending
from ablate.execution import attempts
from ablate.execution.workers import Workers, has_signed, is_on_another_host
from ablate.store.attempt import Attempt
from ablate.store.stage import Stage
from ablate.store.store import Store

ASK_S = 0.5
"""Between two such questions: an end is mostly told by the attempt itself, which costs less to look for."""
FAR_LOOK_S = 0.5
"""Between two looks at the folder of an attempt of a cluster: there may be hundreds, on a disk that many share."""
FAR_ASK_S = 2.0
FAR_MOST_S = 5.0
"""Both get rarer by a hundredth of how long the stage has run, up to this: so long at most its card may lie idle after
it, and hundreds of long stages are no load on the disk.
"""
EXPLAIN_S = 15.0
"""For a cluster to say why it has stopped a stage, which has told its own end already."""
LOST_S = 60.0
"""Without a heartbeat so long, a worker that cannot be asked counts as lost."""
OUTAGE_S = 3600.0
"""The same for one that has not begun, so that no heartbeat is due yet: a cluster that is out of reach for a while
goes on with its queue after it, and a second try would only stand behind the first."""
STALL_S = 1800.0
"""Where a request does not say how long a stage may show no sign of life."""


@dataclass
class Watched:
    """One attempt, and what was last seen of it; all times by this process's clock."""

    attempt: Attempt
    is_ours: bool
    """Started by this driver, so that its end counts."""
    _heartbeat: str = field(default="", init=False)
    _alive_at: float = field(default_factory=time.monotonic, init=False)
    """When the heartbeat was last seen to change; before there is one, when it signed, or its executor last vouched
    for it."""
    _over_at: float | None = field(default=None, init=False)
    """When its end was seen for the first time, while its result, or why it was stopped, was not to be seen."""
    _looked_at: float = field(default=float("-inf"), init=False)
    """When its folder was looked at last."""
    _asked_at: float = field(default=float("-inf"), init=False)
    """When the executor was asked last whether the worker is still there."""
    _begun_at: float = field(default_factory=time.monotonic, init=False)
    """When it was last seen to wait for its turn, or its end came near."""

    def ending(self, workers: Workers) -> Ending | None:
        """-> how the attempt ended, or None while it goes on."""
        now, is_here = time.monotonic(), workers.is_local(self.attempt)
        rarely_s = min(FAR_MOST_S, (now - self._begun_at) / 100)
        if now < self._looked_at + (0.0 if is_here else max(FAR_LOOK_S, rarely_s)):
            return None
        self._looked_at = now
        if ending := attempts.last_word(self.attempt):
            return ending if is_here or ending.failure != "preempted" else self._explained(ending, workers)
        if now < self._asked_at + (ASK_S if is_here else max(FAR_ASK_S, rarely_s)):
            return None
        self._asked_at = now
        shared_folders.look_afresh(self.attempt.path)  # for a last word that was looked for in vain
        is_begun = has_signed(self.attempt)
        if not is_begun:
            self._begun_at = now
        match workers.poll(self.attempt):
            case "gone":
                return attempts.bury(self.attempt, workers)
            case "unknown":
                return self._lost(workers)
            case "alive" if is_begun:
                return self._hung(workers)
        self._alive_at = now  # it has not begun: where it waits for its turn, that is no silence
        return None

    def look_soon(self) -> None:
        """It was asked to end."""
        self._begun_at, self._looked_at = time.monotonic(), float("-inf")

    def _explained(self, stopped: Ending, workers: Workers) -> Ending | None:
        """-> how what a cluster stopped counts; None while it has not said yet whether a user cancelled it."""
        self._over_at = self._over_at or time.monotonic()
        why = workers.ending(self.attempt)
        if why and why.failure == "cancelled":
            return why
        return stopped if why or time.monotonic() - self._over_at > EXPLAIN_S else None

    def awaits_result(self, store: Store, stage: Stage) -> bool:
        """Whether the result of one that ended well elsewhere is not to be seen here yet, and will be soon."""
        if attempts.is_done(store, stage) or not is_on_another_host(self.attempt):
            return False
        shared_folders.look_afresh(store.folder(stage).parent)
        self._over_at = self._over_at or time.monotonic()
        return time.monotonic() - self._over_at < shared_folders.LATE_S

    def _lost(self, workers: Workers) -> Ending | None:
        is_queued = not has_signed(self.attempt) and workers.problem(self.attempt) is None
        patience_s = OUTAGE_S if is_queued else LOST_S
        if self._silent_s() < patience_s:
            return None
        who = workers.describe(self.attempt)
        workers.end(self.attempt)  # for whenever it is in reach again
        why = f"no heartbeat for {patience_s:g} s from {who}, which cannot be asked from here"
        return Ending("lost", f"{why}: it may go on all the same")

    def _hung(self, workers: Workers) -> Ending | None:
        silent_s = self._silent_s()
        if silent_s < self._patience_s():
            return None
        who = workers.describe(self.attempt)
        workers.end(self.attempt)  # it was stopped, or hangs in the kernel: only a kill is left
        ending = Ending("stalled", f"the supervisor, {who}, gave no sign of life for {silent_s:.0f} s")
        attempts.withdraw(self.attempt, ending)
        return ending

    def _silent_s(self) -> float:
        heartbeat, now = _sign_of_life(self.attempt), time.monotonic()
        if heartbeat != self._heartbeat:
            self._heartbeat, self._alive_at = heartbeat, now
        return now - self._alive_at

    def _patience_s(self) -> float:
        """For a supervisor that is there: what a stage is given, and never less than one that cannot be asked."""
        return max(LOST_S, (self.attempt.request or {}).get("stall_s") or STALL_S)


def _sign_of_life(attempt: Attempt) -> str:
    try:
        return plain_files.read_text(attempt.heartbeat)
    except OSError:
        return "signed" if has_signed(attempt) else ""
