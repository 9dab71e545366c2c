"""How what runs for a study is stopped, from any process."""

import time
from collections.abc import Callable

from ablate.core import disk, processes
from ablate.execution import study_lock
from ablate.execution.executors.base import supervisor_of
from ablate.execution.status import is_live
from ablate.store.attempt import Attempt
from ablate.store.store import Store

STOP_S = 60.0

NOW_S = 10.0


def stop_study(store: Store, study: str, *, is_now: bool = False) -> int:
    """Ends what runs for a study: its driver first, then what an earlier one left behind. -> number of stages ended.

    Returns once all have ended, each with a checkpoint unless `is_now`; kills those that take too long.
    """
    patience_s = NOW_S if is_now else STOP_S
    running, driver = _at_work(store, study), study_lock.driver_of(store, study)
    if driver:
        disk.write_volatile(study_lock.stop_request(store, study), "now" if is_now else "")
        _wait(lambda: processes.contact(driver) == "gone" or study_lock.driver_of(store, study) is None, patience_s)
    for attempt in _at_work(store, study):
        disk.write_volatile(attempt.stop_request, "now" if is_now else "")
    _wait(lambda: not any(map(_is_there, running)), patience_s)
    for attempt in filter(_is_there, running):
        _kill(attempt)
    return len(running)


def _at_work(store: Store, study: str) -> list[Attempt]:
    folders = store.runs.glob("attempts/*")
    unended = (attempt for folder in folders for attempt in store.attempts(folder.name) if attempt.exit is None)
    return [attempt for attempt in unended if (attempt.request or {}).get("study") == study and is_live(attempt)]


def _is_there(attempt: Attempt) -> bool:
    """Whether there is still a worker to wait for: it lives on for a moment after its last word."""
    supervisor = supervisor_of(attempt)
    contact = processes.contact(supervisor) if supervisor else "gone"
    return contact == "alive" or (contact == "unknown" and attempt.exit is None)


def _kill(attempt: Attempt) -> None:
    supervisor = supervisor_of(attempt)
    if supervisor and processes.contact(supervisor) == "alive":
        processes.kill_session(supervisor)
        attempt.write_exit(failure="cancelled", message="killed on request", at=None, seconds=None)


def _wait(is_over: Callable[[], bool], patience_s: float) -> None:
    until = time.monotonic() + patience_s
    while not is_over() and time.monotonic() < until:
        time.sleep(0.1)
