"""A whole evaluate stage and the command line of lm-eval, start included: `python -m benchmarks.stage STAGE`."""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from ablate.execution import fork_server
from ablate.execution.executors.base import environment
from ablate.stages.evaluate import Evaluate, EvaluateSettings
from ablate.stages.inputs import fetched
from ablate.store.checkpoints import Checkpoints
from ablate.store.job import Job, MetricsLog
from benchmarks import table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stage", description=__doc__)
    parser.add_argument("stage", type=Path, help="a finished evaluate stage of a model without adapters")
    parser.add_argument("--limit", type=int, help="questions of a task; else all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16], help="of lm-eval; the fastest is compared")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        _fork_stage(options.stage, options.limit, options.inside)
        return
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        _compare(options, Path(folder))


def _compare(options: argparse.Namespace, folder: Path) -> None:
    print("first evaluation with this tokenizer:", flush=True)
    _ours(options, folder, 0)
    first = {size: _theirs(options, folder, size) for size in options.batch_sizes}
    size = min(first, key=lambda size: first[size])
    ours, theirs = [], [first[size]]
    for number in range(1, options.rounds + 1):
        ours.append(_ours(options, folder, number))
        if number > 1:
            theirs.append(_theirs(options, folder, size))
    apart = _apart(folder / "0" / "out" / "results.json", next((folder / f"lm-eval-{size}").rglob("results_*.json")))
    print(f"\n{datetime.date.today()}, {table.machine('cpu')}: CPU seconds")
    print(f"lm-eval's command line at batch size {size}: {median(theirs):.1f}")
    for name, seconds in (
        ("a stage, forked from the warm process as a run does it", [one.forked for one in ours]),
        ("a stage in a fresh process, imports included", [one.whole for one in ours]),
    ):
        print(f"{name}: {median(seconds):.1f}, {table.ratio(theirs, seconds)} times less")
    print(f"largest difference of a metric: {apart:.1e}")


class Seconds(NamedTuple):
    """CPU time of a stage of ours."""

    whole: float
    """With the imports."""
    forked: float
    """From the fork to the end."""


def _ours(options: argparse.Namespace, folder: Path, number: int) -> Seconds:
    limit = [] if options.limit is None else ["--limit", str(options.limit)]
    inside = folder / str(number)
    command = ["-m", "benchmarks.stage", str(options.stage), *limit, "--inside", str(inside)]
    whole = _seconds("ablate", command, environment({"slot": {"gpu": None, "threads": 1}, "is_online": False}))
    return Seconds(whole, float((inside / "seconds").read_text()))


def _theirs(options: argparse.Namespace, folder: Path, size: int) -> float:
    stage, settings = _record_and_settings(options.stage)
    model = fetched(_input(options.stage, stage["payload"]["inputs"]["model"])).path
    limit = [] if options.limit is None else ["--limit", str(options.limit)]
    args = ["--model", "hf", "--model_args", f"pretrained={model},dtype={settings.recipe.dtype}", "--device", "cpu"]
    args += ["--tasks", ",".join(settings.recipe.task_names), "--batch_size", str(size)]
    return _seconds(
        f"lm-eval, batch size {size}",
        ["-m", "lm_eval", *args, *limit, "--output_path", str(folder / f"lm-eval-{size}")],
    )


def _seconds(name: str, args: Sequence[str], env: Mapping[str, str] | None = None) -> float:
    """-> CPU seconds of a process and all that it starts."""
    before = os.times()
    subprocess.run([sys.executable, *args], env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"{name}: {seconds:.1f} s", flush=True)
    return seconds


def _fork_stage(folder: Path, limit: int | None, into: Path) -> None:
    """As a worker does it: imports first, then a fork whose CPU seconds are written down."""
    fork_server.warm_up()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _run_stage(folder, limit, into)
            code = 0
        finally:
            os._exit(code)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit("the stage failed")
    (into / "seconds").write_text(str(usage.ru_utime + usage.ru_stime))


def _run_stage(folder: Path, limit: int | None, into: Path) -> None:
    """The stage again, of all questions or `limit`, into another folder; its tokens are kept beside that."""
    stage, settings = _record_and_settings(folder)
    inputs = {name: _input(folder, key) for name, key in stage["payload"]["inputs"].items()}
    for part in ("out", "checkpoints"):
        (into / part).mkdir(parents=True)
    job = Job(
        settings=settings.model_copy(update={"recipe": settings.recipe.model_copy(update={"limit": limit})}),
        inputs=inputs,
        out=into / "out",
        metrics=MetricsLog(into / "metrics.jsonl"),
        checkpoints=Checkpoints(into / "checkpoints"),
        tokens=into.parent / "tokens",
    )
    Evaluate().run(job)


def _record_and_settings(folder: Path) -> tuple[dict[str, Any], EvaluateSettings]:
    stage = json.loads((folder / "stage.json").read_text())
    return stage, EvaluateSettings.model_validate(stage["settings"])


def _input(folder: Path, key: str) -> Path:
    return next(folder.parent.glob(f"*-{key[:12]}"))


def _apart(ours: Path, theirs: Path) -> float:
    mine, other = json.loads(ours.read_text())["tasks"], json.loads(theirs.read_text())["results"]
    pairs = (
        (score["value"], other[task][f"{name},none"]) for task in mine for name, score in mine[task]["metrics"].items()
    )
    return max(abs(float(value) - float(expected)) for value, expected in pairs)


if __name__ == "__main__":
    main()
