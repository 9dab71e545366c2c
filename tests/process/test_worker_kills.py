"""A real training whose processes are killed again and again, each time gone on with by a new attempt: one curve."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from support.paths import TINY
from support.toys import ordered, ours, quiet, wait_for

from ablate.core import processes
from ablate.execution import attempts
from ablate.execution.driver import driving
from ablate.execution.executors.base import supervisor_of
from ablate.execution.executors.launch import ForkServer
from ablate.execution.executors.local import Local
from ablate.execution.workers import Workers
from ablate.machine.slots import Placing
from ablate.planning.builder import make_plan
from ablate.planning.project import open_study
from ablate.store.attempt import Attempt
from ablate.store.job import read_metrics
from ablate.store.stage import Stage
from ablate.store.store import Store

SEED = 20261127
MEASURED = {"seconds", "peak_memory"}
"""Of a step's record: the machine's, not the training's."""


@pytest.fixture(scope="module")
def fork_server():
    server = ForkServer()
    yield server
    server.close()


def prepared(root: Path, num_steps: int) -> Stage:
    """-> the fine-tuning of a tiny student whose model and rows are there."""
    sets = (f"train.max_steps={num_steps}", "train.warmup_steps=2", "train.checkpoint_every_s=0.05")
    project = open_study(TINY, root, sets)
    pins = project.pins(is_online=True)
    wanted = [
        stage
        for stage in make_plan(project.study, project.rows, pins, project.store).stages
        if stage.kind in ("fetch", "rows")
    ]
    with driving(project.store, "tiny", Local(Placing(num_jobs=2, uses_fork_server=False)), quiet()) as driver:
        assert driver.run(wanted, lambda _: 1.0).exit_code == 0
    plan = make_plan(project.study, project.rows, pins, project.store)
    return next(stage for stage in plan.stages if stage.kind == "finetune" and "student" in plan.label(stage))


def curve_and_files(root: Path, stage: Stage) -> tuple[list[dict], dict[str, bytes]]:
    """-> the curve without what the machine measured, and every file of the result."""
    folder = Store(root).folder(stage)
    records = [
        {name: value for name, value in record.items() if name not in MEASURED}
        for record in read_metrics(folder / "metrics.jsonl")
    ]
    return records, {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


def begun(fork_server: ForkServer, root: Path, stage: Stage) -> Attempt:
    attempt = ordered(root, stage)
    fork_server.ask(attempt)
    wait_for(attempt.worker.is_file, 240)
    return attempt


def kill(root: Path, attempt: Attempt, dice: random.Random, step_s: float) -> None:
    """Ends worker or supervisor, now and then before the first step, mostly some steps on."""
    if dice.random() < 0.8:
        wait_for(lambda: attempt.exit or list(read_metrics(attempt.metrics)))
    time.sleep(dice.uniform(0, 3 * step_s))
    supervisor = supervisor_of(attempt)
    at_work = [process for process in ours(root) if process.pid != supervisor.pid]
    victim = processes.identity(dice.choice(at_work).pid) if at_work and dice.random() < 0.5 else supervisor
    if victim:
        processes.send(victim, signal.SIGKILL)
    wait_for(lambda: processes.contact(supervisor) == "gone" and ours(root) == [])
    attempts.bury(attempt, Workers())


@pytest.mark.parametrize("num_kills", [8, pytest.param(50, marks=pytest.mark.soak)])
def test_a_training_whose_processes_are_killed_ends_in_the_same_curve_and_weights(fork_server, tmp_path, num_kills):
    print("seed", SEED)
    dice, calm, rough = random.Random(SEED), tmp_path / "calm", tmp_path / "rough"
    num_steps = 5 * num_kills
    stage = prepared(calm, num_steps)
    shutil.copytree(calm, rough)
    undisturbed = begun(fork_server, calm, stage)
    wait_for(lambda: undisturbed.exit, 240)
    records, _ = expected = curve_and_files(calm, stage)
    assert len(records) == num_steps
    step_s = undisturbed.exit["seconds"] / num_steps
    for _ in range(num_kills):
        kill(rough, begun(fork_server, rough, stage), dice, step_s)
    last = begun(fork_server, rough, stage)
    wait_for(lambda: last.exit, 240)
    tries = Store(rough).attempts(stage.key12)
    num_killed = sum(attempt.exit["failure"] == "killed" for attempt in tries)
    assert num_killed >= num_kills - 2  # the last ones may have been late
    assert curve_and_files(rough, stage) == expected
    wait_for(lambda: ours(rough) == [])
