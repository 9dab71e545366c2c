"""Whether stages can run where a profile says: a cluster asked, stages sent there and watched, their nodes seen."""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.core import disk
from ablate.core.doctor_line import Line, State
from ablate.core.errors import AblateError
from ablate.core.text import duration
from ablate.execution import study_lock
from ablate.execution.driver import driving
from ablate.execution.fleet import Fleet, Place, place_of
from ablate.execution.outcomes import Outcome
from ablate.execution.pilots.cluster import Unreachable
from ablate.execution.profiles import Profile
from ablate.execution.run_context import Options
from ablate.execution.workers import has_signed
from ablate.machine.slots import Placing
from ablate.stages.machine_check import MachineCheckSettings, machine
from ablate.store.attempt import Attempt
from ablate.store.stage import Stage
from ablate.store.store import Store

STUDY = "doctor"
SAY_EVERY_S = 15.0
LEAVE_S = 60.0
"""For jobs that have no more work to be gone."""
NUM_NODES = 2
"""That are looked at together, where the profile has so many jobs."""


def doctor(root: Path, profile: Profile, wait_s: float, say: Callable[[str], None]) -> Iterator[Line]:
    """-> one line a thing, as it is tried; `say` hears what is waited for. Leaves nothing.

    Raises KeyboardInterrupt, all undone, when asked to stop.
    """
    try:
        place = place_of(profile, Placing(uses_fork_server=False))
        slots = place.slots()
    except AblateError as error:
        yield Line(
            "problem", "profile", f"{profile.name}: {error}", "`ablate schema --executors` lists what is possible"
        )
        return
    options = json.dumps(dict(profile.options)) if profile.options else "nothing else said"
    yield Line("ok", "profile", f"{profile.name}: {profile.kind}, {options}")
    lines = list(_answers(place))
    yield from lines
    if any(line.state == "problem" for line in lines):
        return
    num_jobs = min(NUM_NODES, sum("heavy" in slot.takes for slot in slots))
    with _folder(root) as folder:
        yield from _Visit(Store(folder), place, num_jobs, wait_s, say).lines()
        yield from _leaving(folder)


def _answers(place: Place) -> Iterator[Line]:
    """-> what the executor itself tells."""
    check = getattr(place.executor, "check", None)
    try:
        yield from check() if check else ()
    except (AblateError, Unreachable) as error:
        yield Line("problem", place.profile.kind, str(error), "whether its commands work here by themselves")


@contextlib.contextmanager
def _folder(root: Path) -> Iterator[Path]:
    """-> a root of its own beside the studies' runs/, removed in the end."""
    there = next(path for path in (root.resolve(), *root.resolve().parents) if path.is_dir())
    folder = Path(tempfile.mkdtemp(prefix=".ablate-doctor-", dir=there))
    try:
        yield folder
    finally:
        disk.remove_tree(folder)


def _leaving(folder: Path) -> Iterator[Line]:
    """Sees pilot jobs out. -> those that do not leave."""
    until = time.monotonic() + LEAVE_S
    while (jobs := _open_jobs(folder)) and time.monotonic() < until:
        time.sleep(0.1)
    if jobs:
        advice = "whether the cluster still lists it, and its own command to cancel it"
        yield Line("warning", "jobs", f"{len(jobs)} had not left after {duration(LEAVE_S)}", advice)


def _open_jobs(folder: Path) -> list[Path]:
    """-> the pilot jobs that have not left yet."""
    jobs = (path for path in folder.glob(f"runs/jobs/{STUDY}/*") if path.name.isdecimal())
    return [job for job in jobs if not (job / "exit.json").exists() and not (job / "over.json").exists()]


class _Visit:
    """Stages that look at their machines, run at once as a study's would be; it hears how that goes."""

    def __init__(self, store: Store, place: Place, num_jobs: int, wait_s: float, say: Callable[[str], None]) -> None:
        self._store, self._place, self._wait_s, self._say = store, place, wait_s, say
        self._stages = [Stage("machine_check", 1, MachineCheckSettings(number=number)) for number in range(num_jobs)]
        self._began_at = self._said_at = time.monotonic()
        self._waited_s: dict[str, float] = {}
        """Key of a stage -> from its submission until its worker came."""
        self._where: dict[str, str] = {}
        self._is_late = False

    def lines(self) -> Iterator[Line]:
        answers = Options(is_fail_fast=True, grace_s=5.0)
        with driving(self._store, STUDY, Fleet([self._place]), self, answers) as driver:
            summary = driver.run(self._stages, lambda _: 1.0)
        if summary.interrupted and not self._is_late:
            raise KeyboardInterrupt
        for stage in self._stages:
            yield self._line(stage, summary.outcomes[stage.key])
        nodes = [node for stage in self._stages if (node := self._node(stage))]
        for node in {node["host"]: node for node in nodes}.values():
            yield from _compared(node, machine())

    def _node(self, stage: Stage) -> dict[str, Any] | None:
        """-> what a stage wrote of its machine."""
        return disk.read_json(self._store.folder(stage) / "out/machine.json")

    def _line(self, stage: Stage, outcome: Outcome) -> Line:
        what, where = f"a stage on {self._place.profile.name}", self._where.get(stage.key, "")
        if outcome.phase == "done":
            waited = f"after {duration(self._waited_s.get(stage.key, 0.0))}"
            return Line("ok", what, f"run by {where}, which came {waited}")
        if self._is_late:
            state: State = "problem" if not self._waited_s else "warning"
            text = f"it did not come to an end within {duration(self._wait_s)}: {where}"
            return Line(state, what, text, "--wait SECONDS, or what the queue says of such jobs")
        log = "".join(attempt.log.read_text(errors="replace")[-400:] for attempt in self._attempts(stage)[-1:])
        return Line("problem", what, f"{outcome.message} {log}".strip(), "what the job's node says by itself")

    def _attempts(self, stage: Stage) -> list[Attempt]:
        return [attempt for attempt in self._store.attempts(stage.key12) if attempt.log.is_file()]

    # as a listener

    def begin(self, stages: Sequence[Stage], num_done: int) -> None:
        self._began_at = time.monotonic()

    def started(self, stage: Stage, attempt: Attempt, *, is_found: bool) -> None:
        """It is handed to the executor, which is not yet a worker."""

    def ended(self, stage: Stage, outcome: Outcome) -> None:
        if outcome.phase == "waiting":
            self._say(f"to be tried again: {outcome.message}")

    def note(self, text: str) -> None:
        self._say(text)

    def tick(self, running: Mapping[str, Attempt]) -> None:
        now = time.monotonic()
        passed_s = now - self._began_at
        for key, attempt in running.items():
            if key not in self._waited_s and has_signed(attempt):
                self._waited_s[key] = passed_s
                self._where[key] = self._place.executor.describe(attempt)
        if now - self._said_at > SAY_EVERY_S and running:
            self._said_at = now
            who = ", ".join(map(self._place.executor.describe, running.values()))
            self._say(f"waiting for {who} ({duration(passed_s)} of {duration(self._wait_s)})")
        if passed_s > self._wait_s and not self._is_late:
            self._is_late = True
            disk.write_volatile(study_lock.stop_request(self._store, STUDY), "now")


def _compared(node: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[Line]:
    """-> a node beside this machine: what results may depend on, and where models are found."""
    host = node["host"]
    yield Line("ok", host, f"{node['device']}, {node['cores']} cores, {node['memory_bytes'] >> 30} GiB")
    pairs = {"python": (node["python"], here["python"])} | {
        name: (node["versions"].get(name), here["versions"].get(name))
        for name in sorted({*node["versions"], *here["versions"]})
    }
    other = [
        f"{name} {there or 'not there'} ({ours or 'not here'} here)"
        for name, (there, ours) in pairs.items()
        if there != ours
    ]
    if other:
        advice = "one environment for all machines: results of other versions differ in their last digits"
        yield Line("warning", f"libraries of {host}", ", ".join(other), advice)
    else:
        yield Line("ok", f"libraries of {host}", f"python {node['python']} and all else as here")
    yield _hub_cache(host, node["hub_cache"], here["hub_cache"])


def _hub_cache(host: str, there: Sequence[Any], here: Sequence[Any]) -> Line:
    what = f"models on {host}"
    if list(there) == list(here):
        return Line("ok", what, f"found where they are fetched to, {here[0]}")
    advice = "HF_HOME, in this environment and in the job's, on a file system that both see"
    return Line("warning", what, f"looked for in {there[0]}, which is not {here[0]} of this machine", advice)
