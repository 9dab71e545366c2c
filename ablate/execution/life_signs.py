"""How long workers that cannot be asked from here have given no sign of life: for a reader; it decides nothing."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ablate.core import plain_files, shared_folders
from ablate.store.attempt import Attempt

SILENT_S = 60.0
"""So long without one is worth a word."""
CONFIRM_S = 4.0
"""Machines' clocks differ: of those whose files look old, a heartbeat is waited for so long."""
LOOK_S = 0.2


class _Seen(NamedTuple):
    heartbeat: str
    at: float
    """When it was seen to change, by this process's clock; first, when its file says, by the clocks of machines."""


@dataclass
class LifeSigns:
    """Heartbeats of attempts, looked at again and again."""

    _seen: dict[Path, _Seen] = field(default_factory=dict)
    _confirmed: set[Path] = field(default_factory=set)
    """Those whose silence was listened to."""

    def silences(self, attempts: Iterable[Attempt]) -> dict[Path, float]:
        """-> folder of an attempt: seconds without a sign of life, for those that are silent."""
        silent = self._silent(attempts)
        until = time.monotonic() + CONFIRM_S
        while any(self._is_to_be_confirmed(attempt) for attempt in silent) and time.monotonic() < until:
            time.sleep(LOOK_S)
            silent = self._silent(silent)
        for attempt in silent:
            self._confirmed.add(attempt.path)
        return {attempt.path: self._silent_s(attempt) for attempt in silent}

    def _is_to_be_confirmed(self, attempt: Attempt) -> bool:
        return attempt.path not in self._confirmed

    def _silent(self, attempts: Iterable[Attempt]) -> list[Attempt]:
        return [attempt for attempt in attempts if self._silent_s(attempt) >= SILENT_S]

    def _silent_s(self, attempt: Attempt) -> float:
        now, heartbeat = time.monotonic(), _heartbeat(attempt)
        before = self._seen.get(attempt.path)
        if before is None:
            self._seen[attempt.path] = _Seen(heartbeat, now - _age_s(attempt))
        elif before.heartbeat != heartbeat:
            self._seen[attempt.path] = _Seen(heartbeat, now)
            self._confirmed.discard(attempt.path)
        return now - self._seen[attempt.path].at


def _heartbeat(attempt: Attempt) -> str:
    shared_folders.look_afresh(attempt.path)
    try:
        return plain_files.read_text(attempt.heartbeat)
    except OSError:
        return ""


def _age_s(attempt: Attempt) -> float:
    """-> since its heartbeat was written, or, before there is one, its request."""
    for path in (attempt.heartbeat, attempt.path / "attempt.json"):
        if plain_files.is_file(path):
            return max(0.0, time.time() - path.stat().st_mtime)
    return 0.0
