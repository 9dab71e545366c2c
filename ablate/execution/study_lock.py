"""One driver a study: who drives it now, how another is told, and how it is asked to stop."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ablate.core import disk, plain_files, processes, shared_folders
from ablate.core.errors import HeldError
from ablate.core.processes import Identity
from ablate.execution import driver_records
from ablate.execution.driver_records import DriverWatch, Sighting
from ablate.store.store import Store

BEAT_S = 1.0
LOOK_S = 0.2
SAY_EVERY_S = 4.0
"""While a driver on another machine is waited for, and gives no sign of life."""
READER_S = 5.0
"""So long who only wants to know looks for a sign of life, and says then how it is."""


def stop_request(store: Store, study: str) -> Path:
    """Exists once somebody asked the study's driver to stop."""
    return store.study_folder(study) / "stop"


def is_urgent(request: Path) -> bool:
    """Whether what runs is to be killed, without a last checkpoint."""
    try:
        return plain_files.read_text(request).strip() == "now"
    except OSError:
        return False


def beat(store: Store, study: str, number: int) -> None:
    """Says to other machines that the driver lives."""
    disk.write_volatile(driver_records.heartbeat_of(store, study), f"{number}\n")


def sighting(
    store: Store, study: str, patience_s: float = math.inf, say: Callable[[str], None] = lambda _: None
) -> Sighting | None:
    """-> a study's driver; of one on another machine a sign of life is waited for, for so long at most."""
    return sighted(DriverWatch(store, study), patience_s, say)


def sighted(
    watch: DriverWatch, patience_s: float = math.inf, say: Callable[[str], None] = lambda _: None
) -> Sighting | None:
    """See `sighting`."""
    begun_at, say_at = time.monotonic(), SAY_EVERY_S
    while (seen := watch.look()) and not seen.is_sure:
        waited_s = time.monotonic() - begun_at
        if waited_s >= patience_s:
            return seen
        if waited_s >= say_at:
            say_at += SAY_EVERY_S
            say(f"the study's driver, {seen}, gave no sign of life for {waited_s:.0f} s of {seen.patience_s:g}")
        time.sleep(LOOK_S)
    return seen


def driver_of(store: Store, study: str) -> Identity | None:
    """-> who drives a study, as far as can be told, or None."""
    seen = sighting(store, study)
    return seen.record.driver if seen else None


def is_superseded(store: Store, study: str, me: Identity) -> bool:
    """Whether another drives the study now: this process was silent for so long that it counted as gone."""
    record = driver_records.last_record(store, study)
    return record is not None and record.driver is not None and record.driver != me


@contextlib.contextmanager
def held(store: Store, study: str, say: Callable[[str], None] = lambda _: None) -> Iterator[Identity]:
    """Drives a study alone. Raises HeldError when another live run does."""
    disk.make_folder(store.study_folder(study))
    me = processes.identity()
    assert me is not None
    record = None
    while record is None:
        # first the number, then the look: what another claims in between is found when ours is taken
        last = driver_records.last_record(store, study)
        if seen := sighting(store, study, say=say):
            raise _held_error(store, study, seen)
        record = driver_records.claim(store, study, me, last)
    try:
        disk.unlink(stop_request(store, study))
        with _beating(store, study):
            yield me
    finally:
        if not is_superseded(store, study, me):
            with contextlib.suppress(OSError):  # who comes next sees that we are gone
                driver_records.leave(record)


@contextlib.contextmanager
def _beating(store: Store, study: str) -> Iterator[None]:
    """A heart of its own: a driver that plans for a minute, or waits for a disk, is not gone."""
    is_over = threading.Event()

    def live() -> None:
        number = 1
        while not is_over.wait(BEAT_S):
            number += 1
            _try_to_beat(store, study, number)

    _try_to_beat(store, study, 1)
    heart = threading.Thread(target=live, daemon=True)
    heart.start()
    try:
        yield
    finally:
        is_over.set()
        heart.join()


def _try_to_beat(store: Store, study: str, number: int) -> None:
    with contextlib.suppress(OSError):  # a full disk must not end a run
        beat(store, study, number)
    shared_folders.look_afresh(store.study_folder(study))  # for a request to stop


def _held_error(store: Store, study: str, seen: Sighting) -> HeldError:
    since = f" since {seen.record.since}" if seen.record.since else ""
    log = store.study_folder(study) / "run.log"
    printed = f" (what it prints is in {log})" if seen.record.job and log.is_file() else ""
    return HeldError(
        f"study {study!r} is being run by {seen}{since}{printed}. `ablate status --watch` shows how it goes,"
        " `ablate stop` ends it, and another --root keeps apart from it"
    )
