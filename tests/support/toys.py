"""A driver for toy stages, as a library for the tests and as a command that they can kill; a small real study."""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from ablate.core import processes
from ablate.execution import attempts
from ablate.execution.driver import Summary, driving
from ablate.execution.executors.local import Local
from ablate.execution.live_view import PlainLog, Tally
from ablate.execution.run_context import Options
from ablate.machine.slots import Placing, Slot
from ablate.stages.toy import ToySettings
from ablate.store.attempt import Attempt
from ablate.store.job import read_metrics
from ablate.store.stage import Stage
from ablate.store.store import Store
from support.paths import TINY

TOYS = Path(__file__)


SHORTER = (
    "train.max_steps=40",
    "train.warmup_steps=2",
    "train.checkpoint_every_s=0.2",
    "evaluate.limit=10",
    "data.limit=128",
)
"""Of the embedded study, so that a part of it takes seconds."""
SET_SHORTER = [part for one in SHORTER for part in ("--set", one)]


def one_table(folder: Path) -> Path:
    """-> the embedded study with one of its ablations: to draw the others takes longer than to make their cells."""
    study = yaml.safe_load(TINY.read_text())
    study["ablations"] = {"finetuned_student": study["ablations"]["finetuned_student"]}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def toy(*inputs: Stage, **settings: Any) -> Stage:
    """A toy stage that counts on from its inputs."""
    return Stage("toy", 1, ToySettings(**settings), {f"input_{number}": needed for number, needed in enumerate(inputs)})


def quiet(write: Callable[[str], None] | None = lambda _: None) -> PlainLog:
    return PlainLog(Tally(lambda _: 1.0, 2), lambda stage: stage.folder, write)


def drive(
    root: Path,
    stages: Sequence[Stage],
    *,
    study: str = "toys",
    options: Options | None = None,
    placing: Placing | None = None,
    write: Callable[[str], None] | None = None,
    costs: Callable[[Stage], float] = lambda stage: stage.settings.steps,
) -> Summary:
    """Runs the stages as `ablate run` would; `costs` knows toys alone."""
    executor = Local(placing or Placing(num_jobs=2, uses_fork_server=False))
    with driving(Store(root), study, executor, quiet(write), options) as driver:
        return driver.run(stages, costs)


def ordered(root: Path, stage: Stage, *, stall_s: float = 1800, grace_s: float = 30, **changed: Any) -> Attempt:
    """An attempt at a stage, ready for a worker."""
    store, slot = Store(root), Slot("cpu", frozenset({"heavy"}))
    attempt = store.claim(stage.key12)
    me = processes.identity()
    assert me
    origin = {"label": "a toy", "study": "toys", "driver": me.model_dump()}
    attempt.write_request(attempts.request(store, stage, slot, stall_s, grace_s) | origin | changed)
    return attempt


def ours(root: Path) -> list[psutil.Process]:
    """Living processes, but for this one, that have anything to do with a root."""
    living = []
    for one in psutil.process_iter(["cmdline", "status", "cwd"]):
        is_here = str(root) in " ".join(one.info["cmdline"] or []) or str(root) in (one.info["cwd"] or "")
        if is_here and one.info["status"] != psutil.STATUS_ZOMBIE and one.pid != os.getpid():
            living.append(one)
    return living


def wait_for(is_true: Callable[[], Any], seconds: float = 60.0) -> None:
    """Asks again where a folder that it lists is moved or removed meanwhile, or a process that it looks into ends."""
    until = time.monotonic() + seconds
    while not _is_true_now(is_true):
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.02)


def _is_true_now(is_true: Callable[[], Any]) -> bool:
    try:
        return bool(is_true())
    except (FileNotFoundError, psutil.NoSuchProcess):
        return False


def value_of(root: Path, stage: Stage) -> int:
    """What a committed toy counted to."""
    return json.loads((Store(root).folder(stage) / "out/result.json").read_text())["value"]


def metrics_of(root: Path, stage: Stage) -> list[int]:
    """The steps that a committed toy wrote, in order."""
    return [record["step"] for record in read_metrics(Store(root).folder(stage) / "metrics.jsonl")]


def checkpointed(root: Path) -> bool:
    return any(root.glob("runs/attempts/*/*/checkpoints/step-*/manifest.json"))


def chain(length: int, **settings: Any) -> list[Stage]:
    """Toys each of which needs the one before."""
    stages: list[Stage] = []
    for number in range(length):
        stages.append(toy(*stages[-1:], **settings | {"seed": number}))
    return stages


if __name__ == "__main__":
    folder, length, step_s, uses_fork_server, steps = sys.argv[1:]
    stages = chain(int(length), steps=int(steps), step_s=float(step_s))
    sys.exit(
        drive(Path(folder), stages, placing=Placing(num_jobs=2, uses_fork_server=uses_fork_server == "warm")).exit_code
    )
