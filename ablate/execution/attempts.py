"""What has become of attempts, told by their folders and by the executor; the dead get their last word here."""

import time
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.core import failures, processes
from ablate.core.failures import Ending
from ablate.execution.executors.base import Executor, supervisor_of
from ablate.machine.slots import Slot
from ablate.store.attempt import Attempt
from ablate.store.kind import KINDS
from ablate.store.stage import Stage
from ablate.store.store import Store

ASK_S = 0.5
"""Between two such questions: an end is mostly told by the attempt itself, which costs less to look for."""
LOST_S = 60.0
"""Without a heartbeat so long, a worker that cannot be asked counts as lost."""
STALL_S = 1800.0
"""Where a request does not say how long a stage may show no sign of life."""


@dataclass
class Watched:
    """An attempt that a driver waits for."""

    attempt: Attempt
    is_ours: bool
    """Started by this driver, so that its end counts."""
    pulse: tuple[str, float]
    """Last heartbeat read, and when it changed, by this process's clock."""
    ask_at: float = 0.0
    """When the executor is asked next whether the worker is still there."""


def request(
    store: Store, stage: Stage, slot: Slot, stall_s: float, grace_s: float, shares: int | None = None
) -> dict[str, Any]:
    """-> attempt.json: all that a worker needs to know, in a form that a person can read.

    `shares`: of the slot; all unless said.
    """
    kind = KINDS[stage.kind]
    return {
        "kind": stage.kind,
        "version": stage.version,
        "payload": stage.payload,
        "key": stage.key,
        "settings": stage.settings.model_dump(mode="json", serialize_as_any=True),
        "inputs": {name: _named(store, of) for name, of in stage.inputs.items()},
        "aids": {name: _named(store, of) for name, of in stage.aids.items() if store.done(of)},
        "slot": slot.record(shares),
        "is_online": kind.is_online,
        "stall_s": None if kind.is_online else stall_s,
        "grace_s": grace_s,
    }


def _named(store: Store, stage: Stage) -> dict[str, str]:
    return {"key": stage.key, "folder": store.folder(stage).relative_to(store.root).as_posix()}


def unended(store: Store, stage: Stage, lost: Container[Path] = ()) -> list[Attempt]:
    """-> the attempts at a stage without an exit.json: at work, or killed; but for those given up as lost."""
    return [of for of in store.attempts(stage.key12) if of.exit is None and of.path not in lost]


def live(store: Store, executor: Executor, stage: Stage, lost: Container[Path] = ()) -> Attempt | None:
    """-> an attempt that another driver, or an earlier one of the same study, has at work."""
    for attempt in unended(store, stage, lost):
        if executor.poll(attempt) != "gone":
            return attempt
        bury(attempt)
    return None


def ending_of(watched: Watched, executor: Executor) -> Ending | None:
    """-> how an attempt ended, or None while it goes on."""
    said = _said(watched.attempt)
    if said:
        return said
    now = time.monotonic()
    if now < watched.ask_at:
        return None
    watched.ask_at = now + ASK_S
    contact = executor.poll(watched.attempt)
    if contact == "gone":
        return bury(watched.attempt)
    silent_s, who = _silent_s(watched), supervisor_of(watched.attempt)
    if contact == "unknown":
        why = f"no heartbeat for {LOST_S:g} s from {who}, which cannot be asked from here: it may go on all the same"
        return Ending("lost", why) if silent_s >= LOST_S else None
    if who is None or silent_s < _patience_s(watched.attempt):
        return None
    executor.end(watched.attempt)  # it was stopped, or hangs in the kernel: only a kill is left
    ending = Ending("stalled", f"the supervisor, {who}, gave no sign of life for {silent_s:.0f} s")
    withdraw(watched.attempt, ending)
    return ending


def bury(attempt: Attempt) -> Ending:
    """-> the last word of an attempt whose worker is gone, written for it if it left none."""
    said = _said(attempt)  # it may have said so just before it went
    if said:
        return said
    leader = supervisor_of(attempt)
    if leader:
        processes.kill_orphans(leader, attempt.path)
    is_asked = attempt.stop_request.exists()
    ending = Ending("cancelled", "killed on request") if is_asked else Ending("killed", "its worker was killed")
    try:
        withdraw(attempt, ending)
    except OSError as error:
        if not failures.is_of_disk(error):
            raise
        return failures.ending_of(error)  # what keeps us from writing its last word most likely kept it from its work
    late = None if leader else supervisor_of(attempt)
    if late:  # it signed while we wrote that it is over, and may have looked for that just before
        processes.kill_session(late)
    return ending


def withdraw(attempt: Attempt, ending: Ending) -> None:
    """Ends an attempt that has no worker."""
    attempt.write_exit(failure=ending.failure, message=ending.message, at=None, seconds=None)


def is_further(store: Store, attempt: Attempt) -> bool:
    """Whether an attempt has a checkpoint beyond all before it."""
    before = [other for other in store.attempts(attempt.key12) if other.number < attempt.number]
    return _furthest([attempt]) > _furthest(before)


def _said(attempt: Attempt) -> Ending | None:
    record = attempt.exit
    return Ending(record["failure"], record["message"]) if record else None


def _silent_s(watched: Watched) -> float:
    """-> seconds since the heartbeat was last seen to change."""
    beat, now = _heartbeat(watched.attempt), time.monotonic()
    if beat != watched.pulse[0]:
        watched.pulse = beat, now
    return now - watched.pulse[1]


def _patience_s(attempt: Attempt) -> float:
    """For a supervisor that is there: what a stage is given, and never less than one that cannot be asked."""
    return max(LOST_S, (attempt.request or {}).get("stall_s") or STALL_S)


def _heartbeat(attempt: Attempt) -> str:
    try:
        return attempt.heartbeat.read_text()
    except OSError:
        return ""


def _furthest(attempts: Sequence[Attempt]) -> int:
    """-> the last step with a checkpoint, by name alone; -1 for none."""
    steps = [int(path.parent.name[5:]) for of in attempts for path in of.checkpoints.glob("step-*/manifest.json")]
    return max(steps, default=-1)
