"""A driver of toys on a real Slurm, as a command that tests can kill: their settings and inputs as JSON."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from ablate.execution.driver import Summary, driving
from ablate.execution.executors.base import EXECUTORS
from ablate.execution.run_context import Options
from ablate.machine.slots import Placing
from ablate.store.stage import Stage
from ablate.store.store import Store
from support.toys import quiet, toy

OPTIONS: dict[str, Any] = {
    "look_s": 0.5,
    "idle_s": 3.0,
    "margin_s": 0.0,
    "missing_s": 5.0,
    "submissions_per_minute": 600,
    "fork_server": False,
    "network": True,
    "command_s": 20,
}
"""Of a profile for tests, which wait for it."""


def stages_of(toys: Sequence[dict[str, Any]]) -> list[Stage]:
    """Settings of toys -> the toys; `needs` says by number what comes before one."""
    stages: list[Stage] = []
    for settings in toys:
        needs = [stages[number] for number in settings.get("needs", ())]
        stages.append(toy(*needs, **{name: value for name, value in settings.items() if name != "needs"}))
    return stages


def drive(root: Path, study: str, toys: Sequence[dict[str, Any]], kind: str, options: dict[str, Any]) -> Summary:
    """Runs toys as a study of that name would run its stages."""
    stages = stages_of(toys)
    executor = EXECUTORS[kind](Placing(profile=kind, options=OPTIONS | options))
    chosen = Options(stall_s=600, grace_s=5.0, poll_s=0.1)
    with driving(Store(root), study, executor, quiet(lambda line: print(line, flush=True)), chosen) as driver:
        return driver.run(stages, lambda stage: stage.settings.steps)


def driver(
    root: Path,
    toys: Sequence[dict[str, Any]],
    settings: dict[str, str],
    *,
    study: str = "toys",
    kind: str = "slurm",
    within: Sequence[str] = (),
    out: IO[str] | int = subprocess.PIPE,
    **options: Any,
) -> "subprocess.Popen[str]":
    """-> such a run in a process of its own, with an environment, begun by another command where one is given."""
    words = [str(root), study, json.dumps(toys), kind, json.dumps(options)]
    return subprocess.Popen(
        [*within, sys.executable, "-m", "support.slurm_toys", *words],
        stdout=out,
        stderr=subprocess.STDOUT,
        text=True,
        env=settings,
    )


if __name__ == "__main__":
    folder, name, given, its_kind, further = sys.argv[1:]
    sys.exit(drive(Path(folder), name, json.loads(given), its_kind, json.loads(further)).exit_code)
