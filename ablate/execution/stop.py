"""How what runs for a study is stopped, from any process."""

import contextlib
import time
from collections.abc import Callable, Sequence

from ablate.core import disk
from ablate.core.errors import AblateError
from ablate.core.text import duration
from ablate.execution import driver_records, study_lock
from ablate.execution.detached import detach
from ablate.execution.driver_records import DriverWatch
from ablate.execution.fleet import Fleet
from ablate.execution.life_signs import LifeSigns
from ablate.execution.pilots.cluster import Unreachable
from ablate.execution.workers import Workers, has_signed
from ablate.store.attempt import Attempt
from ablate.store.store import Store

STOP_S = 60.0

NOW_S = 10.0


def stop_study(store: Store, study: str, *, is_now: bool = False) -> int:
    """Ends what runs for a study: its driver first, then what an earlier one left behind. -> number of stages ended.

    Returns once all have ended, each with a checkpoint unless `is_now`; kills those that take too long. Raises
    AblateError, having done that, when it cannot be told from here whether the driver or a worker has ended: each is
    asked by a file, which it finds wherever it runs.
    """
    patience_s = NOW_S if is_now else STOP_S
    workers, signs, word = Workers(), LifeSigns(), "now" if is_now else ""
    running, problems = _at_work(store, study, workers), []
    driver_problem = _driver_problem(store, study, word, patience_s)
    if driver_problem:
        problems.append(driver_problem)
    for attempt in _at_work(store, study, workers):
        disk.write_volatile(attempt.stop_request, word)
    _wait(lambda: not _awaited(running, workers, signs), patience_s)
    left = [attempt for attempt in running if _is_there(attempt, workers)]
    problems += [f"{attempt.path}: {problem}" for attempt in left if (problem := _kill(attempt, workers, signs))]
    if not driver_problem:
        _send_jobs_away(store, study)
    if problems:
        raise AblateError(
            "asked to stop, and has not ended yet, as far as can be told from here:\n" + "\n".join(problems)
        )
    return len(running)


def _driver_problem(store: Store, study: str, word: str, patience_s: float) -> str | None:
    """Asks the driver to end, and takes its job out of the queue, or off its node, where it is a job.

    -> why it cannot be told that it has ended, or None.
    """
    watch = DriverWatch(store, study)
    seen = study_lock.sighted(watch, study_lock.READER_S)
    if seen:
        disk.write_volatile(study_lock.stop_request(store, study), word)
        _wait(lambda: watch.look() is None, patience_s)
    record = driver_records.last_record(store, study)
    has_left = seen is not None and record is not None and record.has_left
    try:
        detach.cancel(store, study, is_to_wait=has_left)
    except Unreachable as error:
        return f"the driver's job: its cluster cannot be asked ({error})"
    if still := watch.look():
        return f"its driver, {still}, {'has not ended yet' if still.is_sure else 'gives no sign of life'}"
    return None


def _at_work(store: Store, study: str, workers: Workers) -> list[Attempt]:
    unended = (attempt for attempt in store.all_attempts() if attempt.exit is None)
    of_study = (attempt for attempt in unended if (attempt.request or {}).get("study") == study)
    return [attempt for attempt in of_study if workers.is_live(attempt)]


def _is_there(attempt: Attempt, workers: Workers) -> bool:
    """Whether there is still a worker to wait for: it lives on for a moment after its last word."""
    if workers.is_local(attempt) and not has_signed(attempt):
        return False  # should it still come, it finds the request
    contact = workers.poll(attempt)
    return contact == "alive" or (contact == "unknown" and attempt.exit is None)


def _awaited(attempts: Sequence[Attempt], workers: Workers, signs: LifeSigns) -> list[Attempt]:
    """-> those that may still end by themselves: one that waits in a queue, or was silent for long, will not."""
    there = [attempt for attempt in attempts if has_signed(attempt) and _is_there(attempt, workers)]
    silent = signs.silences(attempt for attempt in there if workers.poll(attempt) == "unknown")
    return [attempt for attempt in there if attempt.path not in silent]


def _kill(attempt: Attempt, workers: Workers, signs: LifeSigns) -> str | None:
    """-> why it cannot be told whether the worker has ended, or None."""
    contact = workers.poll(attempt)
    if contact == "alive":
        workers.end(attempt)
        attempt.write_exit(failure="cancelled", message="killed on request", at=None, seconds=None)
    if contact != "unknown" or attempt.exit is not None:
        return None
    workers.end(attempt)
    silent_s = signs.silences([attempt]).get(attempt.path)
    silence = f" for {duration(silent_s)}" if silent_s else ""
    return workers.problem(attempt) or f"nothing can be heard of {workers.describe(attempt)}{silence}"


def _send_jobs_away(store: Store, study: str) -> None:
    """What a driver that was killed has left idle on a cluster, or in its queue."""
    with contextlib.closing(Fleet(())) as fleet:
        fleet.begin(store.jobs_folder(study))


def _wait(is_over: Callable[[], bool], patience_s: float) -> None:
    until = time.monotonic() + patience_s
    while not is_over() and time.monotonic() < until:
        time.sleep(0.1)
