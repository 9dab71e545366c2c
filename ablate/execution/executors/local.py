"""Workers on this machine, on its cards or cores."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ablate.core import descendants, processes
from ablate.core.failures import Ending
from ablate.core.processes import Contact, Identity
from ablate.core.values import Frozen, Int
from ablate.execution.executors import machine
from ablate.execution.executors.base import EXECUTORS, LOCAL, supervisor_of
from ablate.execution.executors.launch import READY_S, ForkServer, start_fresh
from ablate.machine import gpus
from ablate.machine.slots import Placing, Slot, Taken
from ablate.store.attempt import Attempt

START_S = READY_S + 60.0
"""For a worker of another, living driver to come up, which may wait for its fork server first."""
CLAIM_S = 2.0
"""For a driver to write the request of an attempt that it has claimed."""


class LocalOptions(Frozen):
    """What a profile may say of this machine; --gpus and --jobs come before it."""

    gpus: tuple[Int | str, ...] | None = None
    """Numbers or UUIDs of the cards to use; all unless given."""
    jobs: Annotated[Int, Field(ge=1)] | None = None
    """Stages at once where there is no card; one a core unless given."""


class Local:
    """Supervisors as processes of this machine, each in a session of its own, so that they outlive the driver."""

    name = LOCAL
    options = LocalOptions

    def __init__(self, placing: Placing, nvml: Any = None, *, has_assigned_card: bool = False) -> None:
        self._placing = _with_options(placing)
        self._nvml = nvml
        """NVIDIA's library, or one like it."""
        self._has_assigned_card = has_assigned_card
        """A cluster has assigned this process a card; workers have it from the environment."""
        self._is_warm = placing.uses_fork_server and os.environ.get("ABLATE_START") != "fresh"
        self._fork_server: ForkServer | None = None
        self._fresh: dict[Path, subprocess.Popen[bytes]] = {}
        self._seen_at: dict[Path, float] = {}

    def slots(self) -> Sequence[Slot]:
        return self._slots

    @cached_property
    def _slots(self) -> list[Slot]:
        return machine.slots(self._placing, self._nvml)

    def taken(self, at_work: Sequence[Attempt]) -> Mapping[str, Taken]:
        if not any(slot.gpu for slot in self._slots):
            return {}
        return machine.taken(self._slots, gpus.cards(self._nvml), at_work)

    def begin(self, jobs: Path) -> None:
        """Workers alone outlive a driver here."""

    def submit(self, attempt: Attempt) -> None:
        self._seen_at[attempt.path] = time.monotonic()
        if self._is_warm and self._fork_server is None:
            self._fork_server = ForkServer(has_assigned_card=self._has_assigned_card)
        if self._fork_server and self._fork_server.is_usable and not (attempt.request or {})["is_online"]:
            self._fork_server.ask(attempt)
        else:
            self._fresh[attempt.path] = start_fresh(attempt)

    def poll(self, attempt: Attempt) -> Contact:
        self._pump()
        fresh = self._fresh.get(attempt.path)
        if fresh and fresh.poll() is not None:
            return "gone"
        supervisor = supervisor_of(attempt)
        if supervisor:
            return processes.contact(supervisor)
        if fresh:
            return "alive"
        if self._fork_server and self._fork_server.has_lost(attempt):
            return "gone"
        return "alive" if attempt.exit is None and self._is_expected(attempt) else "gone"

    def end(self, attempt: Attempt) -> None:
        supervisor = supervisor_of(attempt)
        if supervisor is None:
            if attempt.path in self._fresh:
                self._fresh[attempt.path].kill()
        elif (contact := processes.contact(supervisor)) != "unknown":  # of another machine, or container
            if contact == "gone":
                processes.kill_orphans(supervisor, attempt.path)
            processes.kill_session(supervisor)
            descendants.kill_marked(descendants.mark_of(attempt.path))

    def ending(self, attempt: Attempt) -> Ending | None:
        return None

    def describe(self, attempt: Attempt) -> str:
        return str(supervisor_of(attempt) or "a worker that has not come up yet")

    def look(self, num_waiting: int) -> Sequence[str]:
        return ()

    def close(self) -> None:
        if self._fork_server:
            self._fork_server.close()
            self._fork_server = None

    def _pump(self) -> None:
        for attempt in self._fork_server.refused() if self._fork_server else ():
            self._seen_at[attempt.path] = time.monotonic()
            self._fresh[attempt.path] = start_fresh(attempt)

    def _is_expected(self, attempt: Attempt) -> bool:
        """Whether a worker that has not signed yet may still come."""
        if self._fork_server and self._fork_server.is_asked(attempt):
            self._seen_at[attempt.path] = time.monotonic()  # its time begins once it is forked
            return True
        request = attempt.request
        if request and processes.contact(Identity.model_validate(request["driver"])) == "gone":
            return False  # should it come all the same, it finds that it is over
        first = self._seen_at.setdefault(attempt.path, time.monotonic())
        return time.monotonic() - first < (START_S if request else CLAIM_S)


def _with_options(placing: Placing) -> Placing:
    """-> what the user said, on the command line or in a profile."""
    options = LocalOptions.model_validate(dict(placing.options))
    gpus = tuple(map(str, options.gpus)) if options.gpus else None
    return replace(placing, gpus=placing.gpus or gpus, num_jobs=placing.num_jobs or options.jobs)


EXECUTORS.register(LOCAL)(Local)
