"""What is done with attempts: asked for, claimed by one driver alone, and, once dead, given their last word."""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ablate.core import disk, failures, plain_files, shared_folders
from ablate.core.failures import Ending
from ablate.execution.workers import Workers, has_signed
from ablate.machine.slots import Slot, Spread
from ablate.store.attempt import Attempt
from ablate.store.checkpoints import Checkpoints
from ablate.store.kind import KINDS
from ablate.store.stage import Stage
from ablate.store.store import Store


def request(
    store: Store,
    stage: Stage,
    slot: Slot,
    stall_s: float,
    grace_s: float,
    shares: int | None = None,
    spread: Spread | None = None,
) -> dict[str, Any]:
    """-> attempt.json: all that a worker needs to know, in a form that a person can read.

    `shares`: of the slot; all unless given. `spread`: of a model larger than a card.
    """
    kind = KINDS[stage.kind]
    return {
        "kind": stage.kind,
        "version": stage.version,
        "payload": stage.payload,
        "key": stage.key,
        "settings": stage.settings.model_dump(mode="json", serialize_as_any=True),
        "inputs": {name: _reference(store, needed) for name, needed in stage.inputs.items()},
        "aids": {name: _reference(store, aid) for name, aid in stage.aids.items() if store.done(aid)},
        "slot": slot.record(shares),
        "num_cards": slot.num_cards(kind.cards(stage.settings)),
        "spread": spread,
        "is_online": kind.is_online,
        "stall_s": None if kind.is_online else stall_s,
        "grace_s": grace_s,
    }


def _reference(store: Store, stage: Stage) -> dict[str, str]:
    return {"key": stage.key, "folder": store.folder(stage).relative_to(store.root).as_posix()}


# who has a stage


class Claim(NamedTuple):
    """What came of claiming a stage."""

    attempt: Attempt | None
    """At work on it, or about to be; None: its result is there already."""
    is_ours: bool = False
    """Claimed now, with a request still to be written."""


def claim(store: Store, workers: Workers, stage: Stage, lost: Container[Path] = ()) -> Claim:
    """-> who has a stage: of any number of drivers that ask in the same instant, one alone is told that it is theirs.

    `lost`: attempts that are not waited for any more. What lies in the stage's place and is no result is set aside.
    """
    if is_done(store, stage):
        return Claim(None)
    if at_work := live(store, workers, stage, lost):
        return Claim(at_work)
    attempt = store.claim(stage.key12)
    shared_folders.look_afresh(store.folder(stage).parent)
    first = unended(store, stage, lost)[0]
    if first != attempt:
        withdraw(attempt, Ending("cancelled", "another run claimed it in the same instant"))
        return Claim(first)
    if is_done(store, stage):  # by another run, between the first look and the claim
        withdraw(attempt, Ending("cancelled", "another run committed it in the same instant"))
        return Claim(None)
    if plain_files.what_is(store.folder(stage)) is not None:
        store.set_aside(stage)
    return Claim(attempt, is_ours=True)


def is_done(store: Store, stage: Stage) -> bool:
    """Whether a stage has its result, and what that refers to outside runs/."""
    return store.done(stage) is not None and KINDS[stage.kind].is_present(store.folder(stage))


def unended(store: Store, stage: Stage, lost: Container[Path] = ()) -> list[Attempt]:
    """-> the attempts at a stage without an exit.json: at work, or killed; but for those given up as lost."""
    return [attempt for attempt in store.attempts(stage.key12) if attempt.exit is None and attempt.path not in lost]


def live(store: Store, workers: Workers, stage: Stage, lost: Container[Path] = ()) -> Attempt | None:
    """-> an attempt that another driver, or an earlier one of the same study, has at work; the dead are buried."""
    for attempt in unended(store, stage, lost):
        if workers.poll(attempt) != "gone":
            return attempt
        bury(attempt, workers)
    return None


# how they end


def ask_to_stop(attempt: Attempt, *, is_now: bool) -> bool:
    """-> whether the disk let us: a worker looks for the request by itself."""
    try:
        disk.write_volatile(attempt.stop_request, "now" if is_now else "")
    except OSError:
        return False
    return True


def bury(attempt: Attempt, workers: Workers) -> Ending:
    """-> the last word of an attempt whose worker is gone, written for it if it left none."""
    shared_folders.look_afresh(attempt.path)
    if ending := last_word(attempt):  # it may have come just before the worker went
        return ending
    was_signed = has_signed(attempt)
    workers.end(attempt)  # what a dead worker left at work
    is_asked = attempt.stop_request.exists()
    known = workers.ending(attempt) or Ending("killed", "its worker was killed")
    ending = Ending("cancelled", "killed on request") if is_asked else known
    try:
        if not withdraw(attempt, ending):
            return last_word(attempt) or Ending(
                "killed", "it has had its last word, which cannot be seen from here yet"
            )
    except FileNotFoundError:
        return Ending("killed", f"{attempt.path} was removed while it ran")
    except OSError as error:
        if not failures.is_of_disk(error):
            raise
        return failures.ending_of(error)  # what keeps us from writing its last word most likely kept it from its work
    if not was_signed and has_signed(attempt):
        # it signed while we wrote that it is over, and may have looked for that just before
        workers.end(attempt)
    return ending


def withdraw(attempt: Attempt, ending: Ending) -> bool:
    """Ends an attempt that has no worker. -> False where it had its last word, which this machine may not see yet."""
    record = {"failure": ending.failure, "message": ending.message, "at": None, "seconds": None}
    if attempt.create_exit(**record):
        return True
    shared_folders.look_afresh(attempt.path)
    is_damaged = attempt.exit is None and plain_files.is_file(attempt.path / "exit.json")
    if is_damaged:
        attempt.write_exit(**record)
    return is_damaged


def last_word(attempt: Attempt) -> Ending | None:
    """-> how an attempt says that it ended; None while it has not."""
    record = attempt.exit
    return Ending(record["failure"], record["message"]) if record else None


def is_further(store: Store, attempt: Attempt) -> bool:
    """Whether an attempt has a checkpoint beyond all before it."""
    before = [other for other in store.attempts(attempt.key12) if other.number < attempt.number]
    return _furthest([attempt]) > _furthest(before)


def _furthest(attempts: Sequence[Attempt]) -> tuple[int, str]:
    """-> the last step with a checkpoint, or the last part of one, by name alone; -1 for none."""
    steps = (one for attempt in attempts for one in Checkpoints(attempt.checkpoints).steps())
    saved = ((step, path.name) for step, path in steps if plain_files.is_file(path / "manifest.json"))
    return max(saved, default=(-1, ""))
