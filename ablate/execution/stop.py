"""How what runs for a study is stopped, from any process."""

import time
from collections.abc import Callable

from ablate.core import disk, processes
from ablate.core.errors import AblateError
from ablate.execution import study_lock
from ablate.execution.workers import Workers, has_signed
from ablate.store.attempt import Attempt
from ablate.store.store import Store

STOP_S = 60.0

NOW_S = 10.0


def stop_study(store: Store, study: str, *, is_now: bool = False) -> int:
    """Ends what runs for a study: its driver first, then what an earlier one left behind. -> number of stages ended.

    Returns once all have ended, each with a checkpoint unless `is_now`; kills those that take too long. Raises
    AblateError, having done that, when it cannot be told whether a worker of an executor that is not this machine's
    has ended.
    """
    patience_s = NOW_S if is_now else STOP_S
    workers = Workers()
    running, driver = _at_work(store, study, workers), study_lock.driver_of(store, study)
    if driver:
        disk.write_volatile(study_lock.stop_request(store, study), "now" if is_now else "")
        _wait(lambda: processes.contact(driver) == "gone" or study_lock.driver_of(store, study) is None, patience_s)
    for attempt in _at_work(store, study, workers):
        disk.write_volatile(attempt.stop_request, "now" if is_now else "")
    _wait(lambda: not any(_is_there(attempt, workers) for attempt in running), patience_s)
    left = [attempt for attempt in running if _is_there(attempt, workers)]
    problems = [f"{attempt.path}: {problem}" for attempt in left if (problem := _kill(attempt, workers))]
    if problems:
        raise AblateError("asked to stop, and has not ended yet:\n" + "\n".join(problems))
    return len(running)


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


def _kill(attempt: Attempt, workers: Workers) -> str | None:
    """-> why it cannot be told whether the worker has ended, or None."""
    contact = workers.poll(attempt)
    if contact == "alive":
        workers.end(attempt)
        attempt.write_exit(failure="cancelled", message="killed on request", at=None, seconds=None)
    if contact != "unknown" or workers.is_local(attempt) or attempt.exit is not None:
        return None
    workers.end(attempt)
    return workers.problem(attempt) or f"nothing can be heard of {workers.describe(attempt)}"


def _wait(is_over: Callable[[], bool], patience_s: float) -> None:
    until = time.monotonic() + patience_s
    while not is_over() and time.monotonic() < until:
        time.sleep(0.1)
