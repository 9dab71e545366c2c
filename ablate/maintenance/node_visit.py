"""Stages that look at their machines, as a driver hears of them: when each began, what is waited for, what it found."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from ablate.core import disk
from ablate.core.doctor_line import Line
from ablate.core.text import duration
from ablate.execution import study_lock
from ablate.execution.executors.base import Executor
from ablate.execution.outcomes import Outcome
from ablate.execution.workers import has_signed
from ablate.maintenance import shared_folder_checks
from ablate.stages.machine_check import with_sender
from ablate.store import folder_probe
from ablate.store.attempt import Attempt
from ablate.store.folder_probe import Findings, NoAnswer
from ablate.store.stage import Stage
from ablate.store.store import Store

STUDY = "doctor"
SAY_EVERY_S = 15.0
RUN_S = 900.0
"""For a stage that has begun: a file system that shows everything a minute late takes long to try."""
ANSWER_S = 5.0
"""For what was asked of a stage that has ended to be known."""


class Visit:
    """The listener of a run of `machine_check` stages. Those that do not begin in time are given up."""

    def __init__(
        self, store: Store, executor: Executor, shared: Path | None, wait_s: float, say: Callable[[str], None]
    ) -> None:
        self._store, self._executor, self._shared = store, executor, shared
        self._wait_s, self._say = wait_s, say
        self._began_at = self._said_at = time.monotonic()
        self._asked: dict[str, FolderQuestion] = {}
        self._numbers: dict[str, int] = {}
        """By key of the stage."""
        self.waited_s: dict[str, float] = {}
        """Key of a stage -> from its submission until its worker came."""
        self.where: dict[str, str] = {}
        """Key of a stage -> who works, or is to work, on it."""
        self.is_late = False

    def folder_lines(self, stage: Stage, host: str) -> Iterator[Line]:
        """-> what this machine and the node of a stage have found out about the folder that both see."""
        if question := self._asked.get(stage.key):
            yield from question.lines(f"{host} and here")

    # as a listener

    def begin(self, stages: Sequence[Stage], done: Collection[str]) -> None:
        self._began_at = time.monotonic()

    def started(self, stage: Stage, attempt: Attempt, *, is_found: bool) -> None:
        self._numbers[stage.key] = stage.settings.model_dump()["number"]

    def ended(self, stage: Stage, outcome: Outcome) -> None:
        if outcome.phase == "waiting":
            self._say(f"to be tried again: {outcome.message}")

    def note(self, text: str) -> None:
        self._say(text)

    def tick(self, running: Mapping[str, Attempt]) -> None:
        passed_s = time.monotonic() - self._began_at
        for key, attempt in running.items():
            if key not in self.waited_s and has_signed(attempt):
                self._begin(key, attempt, passed_s)
        if time.monotonic() - self._said_at > SAY_EVERY_S and running:
            self._said_at = time.monotonic()
            who = ", ".join(map(self._executor.describe, running.values()))
            self._say(f"waiting for {who} ({duration(passed_s)} of {duration(self._wait_s)})")
        if running and not self.is_late and all(self._is_late(key, passed_s) for key in running):
            self.is_late = True
            self.where |= {key: self._executor.describe(attempt) for key, attempt in running.items()}
            disk.write_volatile(study_lock.stop_request(self._store, STUDY), "now")

    def _begin(self, key: str, attempt: Attempt, passed_s: float) -> None:
        self.waited_s[key], self.where[key] = passed_s, self._executor.describe(attempt)
        if self._shared:
            self._asked[key] = FolderQuestion(with_sender(self._shared, self._numbers[key]))

    def _is_late(self, key: str, passed_s: float) -> bool:
        limit_s = self.waited_s[key] + RUN_S if key in self.waited_s else self._wait_s
        return passed_s > limit_s


class FolderQuestion:
    """What a node is asked about a folder that it sees too, in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self._findings: Findings | str = "it was not asked to the end"
        self._thread = threading.Thread(target=self._ask, args=(folder,), daemon=True)
        self._thread.start()

    def _ask(self, folder: Path) -> None:
        try:
            self._findings = folder_probe.ask(folder)
        except (NoAnswer, OSError, TypeError, ValueError) as error:  # of files that are gone, or not what they were
            self._findings = str(error)

    def lines(self, who: str) -> Iterator[Line]:
        self._thread.join(ANSWER_S)
        yield from lines_of(self._findings, who)


def lines_of(findings: Findings | str, who: str) -> Iterator[Line]:
    """-> what two machines have found out, or why nothing; `who`: names of the two."""
    if isinstance(findings, str):
        yield Line("problem", f"folder, {who}", findings, "a --root on a file system that both see, by one path")
        return
    for line in shared_folder_checks.lines(findings):
        yield line._replace(what=f"{line.what}, {who}")
