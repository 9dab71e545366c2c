"""What `logs` prints: the log of a stage's latest attempt; and which stage is meant by a name."""

import sys
import time
from collections.abc import Callable

from ablate.cli.log_reader import LogReader
from ablate.core import plain_files, shared_folders
from ablate.core.errors import AblateError
from ablate.core.failures import Ending
from ablate.core.text import duration
from ablate.execution.driver_records import DriverWatch
from ablate.execution.life_signs import LifeSigns
from ablate.execution.workers import Workers, host_of
from ablate.planning.plan import Plan
from ablate.store.attempt import Attempt
from ablate.store.stage import Stage

POLL_S = 0.3
PLAN_S = 1.0
"""Between two plans, while what is waited for has no final key."""


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


def print_log(plan_now: Callable[[], Plan], name: str, *, is_following: bool = False) -> None:
    """The log of a stage's latest attempt; with `is_following`, until the stage is over, one attempt after another."""
    plan = plan_now()
    stage = find_stage(plan, name)
    if is_following:
        plan, stage = _awaited(plan_now, plan, stage)
    follower = _Follower(plan, stage) if is_following else None
    attempts = plan.store.attempts(stage.key12)
    if not attempts:
        raise AblateError(f"{plan.label(stage)} ({stage.key12}) was not started yet: there is no log")
    attempt, workers = attempts[-1], Workers()
    while follower and not plain_files.is_file(attempt.log) and _goes_on(attempt, workers):
        time.sleep(POLL_S)
    shown = next((one for one in reversed(attempts) if plain_files.is_file(one.log)), None)
    if shown is None:
        why = _ended(attempt, workers)
        raise AblateError(f"{plan.label(stage)} ({stage.key12}): attempt {attempt.number} has no log{why}")
    if shown != attempt:
        why = _ended(attempt, workers)
        print(f"attempt {attempt.number} has no log{why}; of attempt {shown.number}:", file=sys.stderr)
    if follower:
        follower.follow(shown)
        return
    reader = LogReader(shown.log)
    reader.print_rest()
    if not reader.has_text:
        print(f"the log of attempt {shown.number} is empty{_ended(shown, workers)}", file=sys.stderr)


def _awaited(plan_now: Callable[[], Plan], plan: Plan, stage: Stage) -> tuple[Plan, Stage]:
    """-> the stage once it was begun, or nobody is there to begin it: its key is another once its rows are made."""
    driver, is_driven = DriverWatch(plan.store, plan.study.name), True
    while not plan.store.attempts(stage.key12) and is_driven:
        time.sleep(PLAN_S if stage.is_provisional else POLL_S)
        is_driven = driver.look() is not None
        if stage.is_provisional:
            name, plan = plan.label(stage), plan_now()
            stage = find_stage(plan, name)
    return plan, stage


class _Follower:
    """Prints the logs of a stage's attempts, one after another, as they grow."""

    def __init__(self, plan: Plan, stage: Stage) -> None:
        self._store, self._stage = plan.store, stage
        self._driver = DriverWatch(plan.store, plan.study.name)
        self._workers, self._signs = Workers(), LifeSigns()

    def is_driven(self) -> bool:
        return self._driver.look() is not None

    def follow(self, attempt: Attempt | None) -> None:
        """Returns once the stage is over, or nobody is there to go on with it."""
        while attempt:
            self._print(attempt)
            attempt = self._next(attempt)
            if attempt:
                where = self._host_of(attempt)
                print(f"[attempt {attempt.number}{f' on {where}' if where else ''}]", file=sys.stderr)

    def _host_of(self, attempt: Attempt) -> str | None:
        """-> where it works, waited for while a worker may come."""
        while (host := host_of(attempt)) is None and attempt.exit is None and self.is_driven():
            time.sleep(POLL_S)
            shared_folders.look_afresh(attempt.path)
        return host

    def _print(self, attempt: Attempt) -> None:
        """Until it ends, another has taken its place, or it gives no sign of life and nobody minds it."""
        reader, is_silence_printed = LogReader(attempt.log), False
        while True:
            is_last = not self._is_at_work(attempt)
            reader.print_rest()
            if is_last:
                break
            if (silent_s := self._silent_s(attempt)) and not is_silence_printed:
                is_silence_printed = True
                who = self._workers.describe(attempt)
                print(f"[no sign of life for {duration(silent_s)} from {who}]", file=sys.stderr)
                if not self.is_driven():
                    break
            time.sleep(POLL_S)
        if not reader.has_text:
            print(f"the log of attempt {attempt.number} is empty{_ended(attempt, self._workers)}", file=sys.stderr)

    def _is_at_work(self, attempt: Attempt) -> bool:
        shared_folders.look_afresh(attempt.path)
        return _goes_on(attempt, self._workers) and self._store.attempts(attempt.key12)[-1] == attempt

    def _silent_s(self, attempt: Attempt) -> float | None:
        if self._workers.poll(attempt) != "unknown":
            return None
        return self._signs.silences([attempt]).get(attempt.path)

    def _next(self, attempt: Attempt) -> Attempt | None:
        """-> the next attempt, waited for while a driver may begin one."""
        is_printed = False
        while (latest := self._store.attempts(attempt.key12)[-1]) == attempt:
            record = attempt.exit
            may_come = record is None or Ending(record["failure"], record["message"]).table.num_retries > 0
            if self._store.done(self._stage) or not may_come or not self.is_driven():
                return None
            if not is_printed:
                is_printed = True
                ended = _ended(attempt, self._workers)
                print(f"[attempt {attempt.number} has ended{ended}; the next is waited for]", file=sys.stderr)
            time.sleep(POLL_S)
        return latest


def _goes_on(attempt: Attempt, workers: Workers) -> bool:
    return attempt.exit is None and workers.is_live(attempt)


def _ended(attempt: Attempt, workers: Workers) -> str:
    if _goes_on(attempt, workers):
        return " yet"
    record = attempt.exit or {"failure": "killed", "message": "its worker was killed"}
    return ": " + " ".join(filter(None, (record["failure"], record["message"])))
