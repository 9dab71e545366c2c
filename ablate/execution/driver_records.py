"""Who drives a study, as the files in its folder say: numbered records, each made by one driver alone, and a heartbeat.

A record is claimed by creating it, which only one process of any machine can: no lock of the file system is needed.
"""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from ablate.core import disk, plain_files, processes, temporary_files
from ablate.core.processes import Identity
from ablate.store.store import Store

FIELDS = frozenset({"driver", "since", "job"})
"""Of a record."""
JOB = "ABLATE_DRIVER_JOB"
"""In the environment of a detached driver: what it is to the machine or the cluster, in words."""
NUM_KEPT = 2
"""Records: a machine that lists the folder late must not find a number free that was taken."""
CONTAINER_S = 3.0
"""Without a heartbeat so long, a driver in another container of this machine counts as gone."""
PATIENCE_S = 30.0
"""The same of another machine: shared file systems show a file late, by some seconds."""

_held: set[Path] = set()
"""Folders of the studies that this process drives: a record of ours may outlast that, where a disk is full."""


@dataclass(frozen=True)
class Record:
    """Says who drives a study, or drove it last."""

    path: Path
    number: int
    driver: Identity | None = None
    """None where the record is not what was written."""
    since: str = ""
    job: str = ""

    @property
    def has_left(self) -> bool:
        """Whether the driver has ended by itself."""
        return self.path.name.endswith(".left.json")


class Sighting(NamedTuple):
    """A driver that lives, as far as can be told."""

    record: Record
    silent_s: float = 0.0
    """Since it gave its last sign of life; 0 where the system knows that it runs."""
    patience_s: float = 0.0
    """After so long it counts as gone."""
    is_sure: bool = True
    """False until it was seen to give a sign of life."""

    def __str__(self) -> str:
        who = str(self.record.driver or "another process")
        return f"{who} ({self.record.job})" if self.record.job else who


def last_record(store: Store, study: str) -> Record | None:
    """-> the record with the highest number."""
    numbered = _numbered(store, study)
    return _read(*numbered[-1]) if numbered else None


def claim(store: Store, study: str, me: Identity, last: Record | None) -> Record | None:
    """-> the record after `last`, ours alone; None where another was first."""
    number = last.number + 1 if last else 1
    path = store.study_folder(study) / f"driver.{number}.json"
    if not disk.create_sealed(path, {"driver": me.model_dump(), "since": _now(), "job": os.environ.get(JOB, "")}):
        return None
    numbered = _numbered(store, study)
    if any(other >= number and place != path for other, place in numbered):  # the folder was listed as it had been
        disk.unlink(path)
        return None
    for _, old in numbered[:-1]:
        temporary_files.sweep(old, is_ours_too=True)
    for _, old in numbered[:-NUM_KEPT]:
        disk.unlink(old)
    _held.add(path.parent)
    return _read(number, path)


def leave(record: Record) -> None:
    """Says that its driver, this process, drives no more. Raises OSError; who comes next sees that we are gone."""
    _held.discard(record.path.parent)
    disk.rename(record.path, record.path.with_name(f"driver.{record.number}.left.json"))


def heartbeat_of(store: Store, study: str) -> Path:
    return store.study_folder(study) / "heartbeat"


@dataclass
class DriverWatch:
    """Looks at a study's driver again and again; one that cannot be asked from here is judged by its heartbeat, and
    that by the clock of this process.
    """

    store: Store
    study: str
    _seen: tuple[int, str] | None = field(default=None, init=False)
    """Number of the record and the heartbeat, as they were at the last look."""
    _seen_at: float = field(default=0.0, init=False)
    _is_beating: bool = field(default=False, init=False)

    def look(self) -> Sighting | None:
        """-> the driver, None where nobody drives, or who did is gone."""
        record = last_record(self.store, self.study)
        if record is None or record.has_left or _is_over(record):
            return None
        match processes.contact(record.driver) if record.driver else "unknown":
            case "gone":
                return None
            case "alive":
                return Sighting(record)
        return self._judged(record)

    def _judged(self, record: Record) -> Sighting | None:
        seen, now = (record.number, _text(heartbeat_of(self.store, self.study))), time.monotonic()
        if seen != self._seen:
            self._is_beating = self._seen is not None and self._seen[0] == record.number
            self._seen, self._seen_at = seen, now
        silent_s, patience_s = now - self._seen_at, _patience_s(record)
        if silent_s >= patience_s:
            self._is_beating = False
            return None
        return Sighting(record, silent_s, patience_s, is_sure=self._is_beating)


def _patience_s(record: Record) -> float:
    is_here = record.driver is None or record.driver.host == processes.host()
    return CONTAINER_S if is_here else PATIENCE_S


def _is_over(record: Record) -> bool:
    """Whether it is of this process, which drives no more."""
    return record.driver == processes.identity() and record.path.parent not in _held


def _read(number: int, path: Path) -> Record:
    fields = disk.read_sealed(path, FIELDS) or {}
    try:
        driver = Identity.model_validate(fields["driver"])
        return Record(path, number, driver, str(fields["since"]), str(fields["job"]))
    except (KeyError, ValueError):
        return Record(path, number)


def _numbered(store: Store, study: str) -> list[tuple[int, Path]]:
    return sorted(_records(store, study))


def _records(store: Store, study: str) -> Iterator[tuple[int, Path]]:
    for path, what in store.entries("studies", study):
        if what == "a file" and (match := re.fullmatch(r"driver\.([1-9]\d*)(\.left)?\.json", path.name)):
            yield int(match[1]), path


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _text(path: Path) -> str:
    try:
        return plain_files.read_text(path)
    except OSError:
        return ""
