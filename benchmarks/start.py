"""Starting stages from a fork server and from nothing: `python -m benchmarks.start STUDY`, on a scratch root.

The study is run whole, from a fork server and with fresh ones (ABLATE_START=fresh), in turns. Then single workers are
started both ways, in turns, from the moment a driver decides to the first line of work: of a stage that only counts,
and of one of the study's trainings, whose first line is its first optimizer step.
"""

import argparse
import datetime
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import ablate
from ablate.core import disk, processes
from ablate.execution import attempts
from ablate.execution.executors.base import supervisor_of
from ablate.execution.executors.launch import ForkServer, start_fresh
from ablate.machine.slots import Slot
from ablate.stages.toy import ToySettings
from ablate.store.attempt import Attempt
from ablate.store.stage import Stage
from ablate.store.store import Store
from benchmarks import table

LONGEST_S = 120.0
LOOK_S = 0.002
WAYS = ("warm", "fresh")


class Seconds(NamedTuple):
    """Of a whole run."""

    wall: float
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="PATH=VALUE")
    parser.add_argument("--runs", type=int, default=2, help="whole runs each way")
    parser.add_argument("--starts", type=int, default=10, help="single starts each way")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ablate-start-") as folder:
        _measure(options, Path(folder))


def _measure(options: argparse.Namespace, folder: Path) -> None:
    study = Path(shutil.copytree(options.study.parent, folder / "studies")) / options.study.name
    whole: dict[str, list[Seconds]] = {way: [] for way in WAYS}
    for number in range(options.runs):
        for way in WAYS:
            whole[way].append(_run(study, options.overrides, folder / f"{way}-{number}", way))
            print(f"whole study, {way}: {whole[way][-1].wall:.1f} s, {whole[way][-1].cpu:.1f} CPU s", flush=True)
    print(f"\n{datetime.date.today()}, {table.machine('cpu')}")
    for name in Seconds._fields:
        _print_ratio(f"whole study, {name} seconds", *([getattr(one, name) for one in whole[way]] for way in WAYS))
    root = folder / "warm-0"
    trainings = (one for one in ablate.plan(study, options.overrides, root=root).stages if one.kind == "finetune")
    for name, stage in (("a stage that counts", Stage("toy", 1, ToySettings())), ("a training", next(trainings))):
        _print_ratio(f"seconds to the first line of {name}", *_starts(Store(root), stage, options.starts))


def _print_ratio(what: str, warm: Sequence[float], fresh: Sequence[float]) -> None:
    print(f"{what}: warm {median(warm):.3g}, fresh {median(fresh):.3g}, {table.ratio(fresh, warm)}", flush=True)


def _run(study: Path, overrides: list[str], root: Path, way: str) -> Seconds:
    sets = [part for one in overrides for part in ("--set", one)]
    env = os.environ | {"ABLATE_START": "" if way == "warm" else way}
    command = [sys.executable, "-m", "ablate", "--root", str(root), "run", str(study), *sets]
    before, began = os.times(), time.monotonic()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.monotonic() - began, os.times()
    return Seconds(wall, after.children_user + after.children_system - before.children_user - before.children_system)


def _starts(store: Store, stage: Stage, num: int) -> tuple[list[float], list[float]]:
    """-> seconds from the decision to the first line, of warm and of fresh workers."""
    line, seconds = ForkServer(), {way: list[float]() for way in WAYS}
    try:
        _start(store, stage, line.ask)  # waits for the imports
        for _ in range(num):
            seconds["warm"].append(_start(store, stage, line.ask))
            seconds["fresh"].append(_start(store, stage, start_fresh))
    finally:
        line.close()
    return seconds["warm"], seconds["fresh"]


def _start(store: Store, stage: Stage, submit: Callable[[Attempt], object]) -> float:
    began = time.monotonic()
    attempt = store.claim(stage.key12)
    me = processes.identity()
    assert me
    origin = {"label": stage.kind, "study": "start", "driver": me.model_dump()}
    attempt.write_request(
        attempts.request(store, stage, Slot("cpu", frozenset({"heavy"})), LONGEST_S, LONGEST_S) | origin
    )
    started = submit(attempt)
    while not (attempt.metrics.is_file() and attempt.metrics.stat().st_size):
        if time.monotonic() - began > LONGEST_S:
            raise SystemExit(f"no line within {LONGEST_S:.0f} s; see {attempt.log}")
        time.sleep(LOOK_S)
    seconds = time.monotonic() - began
    supervisor = supervisor_of(attempt)
    if supervisor:
        processes.kill_session(supervisor)
    if isinstance(started, subprocess.Popen):
        started.wait()
    disk.remove_tree(attempt.path)
    return seconds


if __name__ == "__main__":
    main()
