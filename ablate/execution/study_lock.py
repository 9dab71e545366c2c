"""One driver a study: who drives it now, how another is told, and how it is asked to stop."""

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ablate.core import disk, plain_files, processes
from ablate.core.errors import HeldError
from ablate.core.processes import Identity
from ablate.store.store import Store

PULSE_S = 3.0
"""Without a heartbeat so long, a driver on another machine counts as gone."""


def stop_request(store: Store, study: str) -> Path:
    """Exists once somebody asked the study's driver to stop."""
    return store.study_folder(study) / "stop"


def is_urgent(request: Path) -> bool:
    """Whether what runs is to be killed, without a last checkpoint."""
    return _text(request).strip() == "now"


def beat(store: Store, study: str, number: int) -> None:
    """Says to other machines that the driver lives."""
    disk.write_volatile(store.study_folder(study) / "heartbeat", f"{number}\n")


def driver_of(store: Store, study: str) -> Identity | None:
    """-> who drives a study, as far as can be told, or None."""
    driver = _driver(_record(store.study_folder(study)))
    if driver is None:
        return None
    contact = processes.contact(driver)
    is_there = contact == "alive" or (contact == "unknown" and _beats(store.study_folder(study) / "heartbeat"))
    return driver if is_there else None


@contextlib.contextmanager
def held(store: Store, study: str) -> Iterator[Identity]:
    """Drives a study alone. Raises HeldError when another live run does."""
    folder = store.study_folder(study)
    disk.make_folder(folder)
    lock = FileLock(folder / "driver.lock", thread_local=False)
    me = processes.identity()
    assert me is not None
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _held_error(store, study) from None
    try:
        # the lock says so for everyone on some file systems: what is written counts too
        other = driver_of(store, study)
        if other and other != me:
            raise _held_error(store, study)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        disk.write_json(folder / "driver.json", {"driver": me.model_dump(), "since": now})
        disk.unlink(stop_request(store, study))
        yield me
    finally:
        if _record(folder).get("driver") == me.model_dump():
            with contextlib.suppress(OSError):  # who comes next sees that we are gone
                disk.unlink(folder / "driver.json")
        lock.release()


def _held_error(store: Store, study: str) -> HeldError:
    record = _record(store.study_folder(study))
    driver = _driver(record)
    who = f"{driver} since {record.get('since')}" if driver else "another process"
    return HeldError(
        f"study {study!r} is being run by {who}. `ablate status` shows how far it is, `ablate stop` ends it,"
        " and another --root keeps apart from it"
    )


def _record(folder: Path) -> dict[str, Any]:
    record = disk.read_json(folder / "driver.json")
    return record if isinstance(record, dict) else {}


def _driver(record: dict[str, Any]) -> Identity | None:
    """-> who is named; None where nobody is, or the file is not what was written: the lock still holds then."""
    try:
        return Identity.model_validate(record["driver"])
    except (KeyError, ValueError):
        return None


def _beats(path: Path) -> bool:
    before, until = _text(path), time.monotonic() + PULSE_S
    while time.monotonic() < until:
        if _text(path) != before:
            return True
        time.sleep(0.2)
    return False


def _text(path: Path) -> str:
    try:
        return plain_files.read_text(path)
    except OSError:
        return ""
