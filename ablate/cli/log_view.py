"""What `logs` prints: the log of a stage's latest attempt; and which stage is meant by a name."""

import io
import sys
import time

from ablate.core import plain_files
from ablate.core.errors import AblateError
from ablate.execution import study_lock
from ablate.execution.workers import Workers
from ablate.planning.plan import Plan
from ablate.store.attempt import Attempt
from ablate.store.stage import Stage

POLL_S = 0.3
CHUNK = 1 << 16
"""Characters read and printed at once."""


def find_stage(plan: Plan, name: str) -> Stage:
    """-> the stage by its key (or how that begins), its folder's name, its label, or the cell it makes the model of.

    Raises AblateError for none and for several.
    """
    by_cell = [cell.trained or cell.evaluate for cell in plan.cells if name in (cell.name, cell.name.split("@")[0])]
    key = name.rpartition("-")[2]
    by_key = [stage for stage in plan.stages if len(key) >= 4 and stage.key.startswith(key)]
    by_label = [stage for stage in plan.stages if name in (label := plan.label(stage), label.partition(" ")[2])]
    matches = {stage.key: stage for stage in by_cell or by_key or by_label}
    if len(matches) != 1:
        stages = "\n".join(f"  {stage.folder}  {plan.label(stage)}" for stage in matches.values() or plan.stages)
        problem = "several stages of this study" if matches else "no stage of this study; it has"
        raise AblateError(f"{name!r} is {problem}\n{stages}")
    return next(iter(matches.values()))


def print_log(plan: Plan, name: str, *, is_following: bool = False) -> None:
    """The log of a stage's latest attempt; with `is_following`, until the attempt ends."""
    stage = find_stage(plan, name)
    while is_following and not plan.store.attempts(stage.key12) and study_lock.driver_of(plan.store, plan.study.name):
        time.sleep(POLL_S)
    attempts = plan.store.attempts(stage.key12)
    if not attempts:
        raise AblateError(f"{plan.label(stage)} ({stage.key12}) was not started yet: there is no log")
    attempt, workers = attempts[-1], Workers()
    while is_following and not plain_files.is_file(attempt.log) and _goes_on(attempt, workers):
        time.sleep(POLL_S)
    shown = next((one for one in reversed(attempts) if plain_files.is_file(one.log)), None)
    if shown is None:
        why = _ended(attempt, workers)
        raise AblateError(f"{plan.label(stage)} ({stage.key12}): attempt {attempt.number} has no log{why}")
    if shown != attempt:
        why = _ended(attempt, workers)
        print(f"attempt {attempt.number} has no log{why}; of attempt {shown.number}:", file=sys.stderr)
    if not _follow(shown, workers, is_following=is_following):
        print(f"the log of attempt {shown.number} is empty{_ended(shown, workers)}", file=sys.stderr)


def _follow(attempt: Attempt, workers: Workers, *, is_following: bool) -> bool:
    """-> whether there was anything in the log."""
    has_text = False
    with io.TextIOWrapper(plain_files.opened(attempt.log), errors="replace") as file:
        while True:
            is_last = not is_following or not _goes_on(attempt, workers)
            while text := file.read(CHUNK):
                has_text = True
                print(text, end="", flush=True)
            if is_last:
                return has_text
            time.sleep(POLL_S)


def _goes_on(attempt: Attempt, workers: Workers) -> bool:
    return attempt.exit is None and workers.is_live(attempt)


def _ended(attempt: Attempt, workers: Workers) -> str:
    if _goes_on(attempt, workers):
        return " yet"
    record = attempt.exit or {"failure": "killed", "message": "its worker was killed"}
    return ": " + " ".join(filter(None, (record["failure"], record["message"])))
