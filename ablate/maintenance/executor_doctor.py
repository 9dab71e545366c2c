"""Whether stages can run where a profile says: a cluster asked, stages sent there and watched, their nodes seen."""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ablate.core import disk
from ablate.core.doctor_line import Line
from ablate.core.errors import AblateError
from ablate.core.text import duration
from ablate.execution.driver import driving
from ablate.execution.executors.base import LOCAL
from ablate.execution.fleet import Fleet, Place, place_of
from ablate.execution.outcomes import Outcome
from ablate.execution.pilots.cluster import Refused, Unreachable
from ablate.execution.pilots.pilot_job import PilotJob, jobs_in
from ablate.execution.profiles import Profile
from ablate.execution.run_context import Options
from ablate.machine.slots import Placing, Slot
from ablate.maintenance import node_lines
from ablate.maintenance.node_visit import STUDY, Visit
from ablate.stages.machine_check import MachineCheckSettings, machine
from ablate.store.stage import Stage
from ablate.store.store import Store

LEAVE_S = 60.0
"""For jobs that have no more work to be gone."""
REFUSED = "what the profile asks for; `ablate schema --executors` lists what it may say"
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
        advice = "`ablate schema --executors` lists what is possible"
        yield Line("problem", "profile", f"{profile.name}: {error}", advice)
        return
    options = json.dumps(dict(profile.options)) if profile.options else "nothing else"
    yield Line("ok", "profile", f"{profile.name}: {profile.kind}, {options}")
    lines = list(_answers(place))
    yield from lines
    if any(line.state == "problem" for line in lines):
        return
    num_jobs = min(NUM_NODES, sum("heavy" in slot.takes for slot in slots))
    with _folder(root) as folder:
        yield from _visited(folder, place, num_jobs, wait_s, say)
        yield from _leaving(folder)


def _answers(place: Place) -> Iterator[Line]:
    """-> what the executor itself tells."""
    check = getattr(place.executor, "check", None)
    try:
        yield from check() if check else ()
    except (AblateError, Refused, Unreachable) as error:
        yield Line("problem", place.profile.kind, str(error), "whether its commands work here by themselves")


# a root that goes again


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


def _open_jobs(folder: Path) -> list[PilotJob]:
    """-> the pilot jobs that have begun and not left yet; the others were taken back when the run ended."""
    return [job for job in jobs_in(folder / "runs" / "jobs" / STUDY) if job.pilot.exists() and not job.is_closed]


# stages that look at their machines


def _visited(folder: Path, place: Place, num_jobs: int, wait_s: float, say: Callable[[str], None]) -> Iterator[Line]:
    """-> what came of stages that were run as a study's would be, and what they saw."""
    store, shared = Store(folder), None if place.profile.kind == LOCAL else folder / "shared"
    if shared:
        disk.make_folder(shared)
    path = str(shared) if shared else None
    settings = [MachineCheckSettings(number=number, shared=path) for number in range(num_jobs)]
    stages = [Stage("machine_check", 1, one) for one in settings]
    visit = Visit(store, place.executor, shared, wait_s, say)
    with driving(store, STUDY, Fleet([place]), visit, Options(grace_s=5.0)) as driver:
        summary = driver.run(stages, lambda _: 1.0)
    if summary.interrupted and not visit.is_late:
        raise KeyboardInterrupt
    what, outcomes = f"a stage on {place.profile.name}", summary.outcomes
    yield from dict.fromkeys(_outcome(store, visit, stage, what, outcomes[stage.key]) for stage in stages)
    yield from _seen(store, visit, stages, next((slot for slot in place.slots() if slot.is_card), None))


def _outcome(store: Store, visit: Visit, stage: Stage, what: str, outcome: Outcome) -> Line:
    where = visit.where.get(stage.key, "nobody")
    if outcome.phase == "done":
        return Line("ok", what, f"run by {where}, which came after {duration(visit.waited_s.get(stage.key, 0.0))}")
    if visit.is_late:
        text = f"waited for without an end: {where}"
        return Line("problem", what, text, "--wait SECONDS, or what the queue says of such jobs")
    logs = [attempt.log for attempt in store.attempts(stage.key12) if attempt.log.is_file()]
    log = logs[-1].read_text(errors="replace")[-400:] if logs else ""
    advice = (
        REFUSED
        if outcome.failure == "unfit"
        else "the node must see this folder by the same path, and this environment"
    )
    return Line("problem", what, f"{outcome.message} {log}".strip(), advice)


def _seen(store: Store, visit: Visit, stages: list[Stage], slot: Slot | None) -> Iterator[Line]:
    """-> what the stages that ended well wrote of their machines, each machine once.

    `slot`: one with cards, as the profile says it; None: it has none.
    """
    pairs = [(stage, disk.read_json(store.folder(stage) / "out/machine.json")) for stage in stages]
    seen = [(stage, node) for stage, node in pairs if node]
    for host, (stage, node) in {node["host"]: (stage, node) for stage, node in seen}.items():
        yield from node_lines.compared(node, machine())
        yield from node_lines.cards(node, slot) if slot else ()
        yield from visit.folder_lines(stage, host)
    yield from node_lines.between([node for _, node in seen])
