"""How what runs for a study is stopped, from any process."""

import time
from collections.abc import Callable

from ablate.core import disk, processes
from ablate.core.errors import AblateError
from ablate.execution import study_lock
from ablate.execution.workers import Workers, is_live
from ablate.store.attempt import Attempt
from ablate.store.store import Store

STOP_S = 60.0

NOW_S = 10.0


def stop_study(store: Store, study: str, *, is_now: bool = False) -> int:
    """Ends what runs for a study: its driver first, then what an earlier one left behind. -> number of stages ended.

    Returns once all have ended, each with a checkpoint unless `is_now`; kills those that take too long. Raises
    AblateError, having done that, when a worker does not end whose executor is not installed here.
    """
    patience_s = NOW_S if is_now else STOP_S
    running, driver = _at_work(store, study), study_lock.driver_of(store, study)
    if driver:
        disk.write_volatile(study_lock.stop_request(store, study), "now" if is_now else "")
        _wait(lambda: processes.contact(driver) == "gone" or study_lock.driver_of(store, study) is None, patience_s)
    for attempt in _at_work(store, study):
        disk.write_volatile(attempt.stop_request, "now" if is_now else "")
    workers = Workers()
    _wait(lambda: not any(_is_there(attempt, workers) for attempt in running), patience_s)
    left = [attempt for attempt in running if _is_there(attempt, workers)]
    for attempt in left:
        _kill(attempt, workers)
    problems = [f"{attempt.path}: {problem}" for attempt in left if (problem := workers.problem(attempt))]
    if problems:
        raise AblateError("asked to stop, and has not ended yet:\n" + "\n".join(problems))
    return len(running)


def _at_work(store: Store, study: str) -> list[Attempt]:
    folders = store.runs.glob("attempts/*")
    unended = (attempt for folder in folders for attempt in store.attempts(folder.name) if attempt.exit is None)
    return [attempt for attempt in unended if (attempt.request or {}).get("study") == study and is_live(attempt)]


def _is_there(attempt: Attempt, workers: Workers) -> bool:
    """Whether there is still a worker to wait for: it lives on for a moment after its last word."""
    contact = workers.poll(attempt)
    return contact == "alive" or (contact == "unknown" and attempt.exit is None)


def _kill(attempt: Attempt, workers: Workers) -> None:
    if workers.poll(attempt) == "alive":
        workers.end(attempt)
        attempt.write_exit(failure="cancelled", message="killed on request", at=None, seconds=None)


def _wait(is_over: Callable[[], bool], patience_s: float) -> None:
    until = time.monotonic() + patience_s
    while not is_over() and time.monotonic() < until:
        time.sleep(0.1)
