"""Measures one optimizer step of every contender, interleaved: `python -m benchmarks.step --help`."""

import argparse
import datetime
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import models, rows, table
from benchmarks.contenders import CAPTURES, ENTRIES
from benchmarks.setup import Setup
from benchmarks.table import Measurement
from benchmarks.team import Team, tuned

TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}
"""Relative, between the first losses of contenders; in bfloat16 some compute the loss in 16 bits."""
BASES = ("vector", "finetune", "hidden", "beside")


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        measurements = _measure(options, folder)
    if unlike := [*table.unlike(measurements, TOLERANCE[options.dtype])]:
        raise SystemExit("these contenders do not do the same work:\n" + "\n".join(unlike))
    text = _report(options, measurements)
    print(text)
    if options.out:
        _write(options, measurements, text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=16, help="rows of one step, a multiple of 4")
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--teacher", type=models.Size.parse, default="10x640", help="layers x width")
    parser.add_argument("--student", type=models.Size.parse, default="5x320")
    parser.add_argument("--contenders", nargs="+", choices=ENTRIES, help="all; liger only with --device cuda")
    parser.add_argument("--base", nargs="+", choices=ENTRIES, help=f"columns of ratios; {' '.join(BASES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1, help="rounds that are not counted")
    parser.add_argument("--runs", type=int, default=10, help="trainings that share one teacher, in the second table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH", help="another Python for NAME")
    parser.add_argument("--tuned", choices=("ours", "all", "none"), default="ours", help="who gets workers' allocator")
    parser.add_argument("--scratch", type=Path, help="where the models are put for a while")
    parser.add_argument("--out", type=Path, help="folder for .md and .json")
    options = parser.parse_args()
    options.contenders = options.contenders or [n for n in ENTRIES if n != "liger" or options.device == "cuda"]
    options.base = options.base or [n for n in BASES if n in options.contenders] or options.contenders[:1]
    if missing := {*options.base} - {*options.contenders}:
        parser.error(f"--base {' '.join(sorted(missing))} is not among --contenders")
    if options.rows % 4 or any("=" not in pair for pair in options.python):
        parser.error("--rows wants a multiple of 4, --python NAME=PATH")
    return options


def _measure(options: argparse.Namespace, folder: str) -> dict[str, Measurement]:
    models.save_pair(
        Path(folder), options.teacher, options.student, options.vocabulary, options.dtype, options.device, options.seed
    )
    pythons = dict(pair.split("=", 1) for pair in options.python)
    with Team(pythons, tuned(options.tuned, options.contenders)) as team:
        for form in {*CAPTURES} & {*options.contenders}:
            _capture(options, folder, form)
        members = [team.start(_setup(options, folder, name)) for name in options.contenders]
        for number in range(options.warmup + options.rounds):
            for member in members:
                member.step()
                print(f"round {number}: {member.name} {member.steps[-1]['seconds']:.2f} s", flush=True)
    return {member.name: _measurement(member.steps, member.versions, options.warmup) for member in members}


def _capture(options: argparse.Namespace, folder: str, form: str) -> None:
    """Keeps what the cached contender reads, in a process that ends before the others start."""
    with Team({}, ()) as team:
        team.start(_setup(options, folder, CAPTURES[form])).step()


def _setup(options: argparse.Namespace, folder: str, name: str) -> Setup:
    return Setup(name, folder, options.vocabulary, options.rows, options.seed, options.dtype, options.device)


def _measurement(steps: Sequence[Mapping[str, Any]], versions: Mapping[str, str], warmup: int) -> Measurement:
    return Measurement(
        seconds=tuple(step["seconds"] for step in steps[warmup:]),
        peak=max(step["peak"] for step in steps),
        forwarded=steps[-1]["forwarded"],
        losses=steps[0]["losses"],
        versions=versions,
    )


def _report(options: argparse.Namespace, measurements: Mapping[str, Measurement]) -> str:
    real = sum(len(ids) for ids in rows.make(options.rows, options.vocabulary, options.seed))
    unit = "CPU s" if options.device == "cpu" else "s"
    return "\n".join(
        [
            f"{datetime.date.today()}, {table.machine(options.device)}. `{_command(options)}`",
            f"{options.rows} rows of {real} tokens in all; ratios are medians over {options.rounds} rounds (range).",
            table.versions(measurements) + "\n",
            table.steps(measurements, options.base, real, unit),
            table.shared_teacher(measurements, options.runs),
        ]
    )


def _command(options: argparse.Namespace) -> str:
    """-> how to do it again; where things lie on this machine is left out."""
    shown = {"vocabulary", "rows", "dtype", "device", "rounds", "warmup", "runs", "seed", "tuned"}
    given = " ".join(f"--{name} {value}" for name, value in vars(options).items() if name in shown)
    sizes = " ".join(f"--{name} {'x'.join(map(str, getattr(options, name)))}" for name in ("teacher", "student"))
    return f"python -m benchmarks.step {given} {sizes} --contenders {' '.join(options.contenders)}"


def _write(options: argparse.Namespace, measurements: Mapping[str, Measurement], text: str) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"{options.device}-{options.dtype}-{options.vocabulary}"
    record = {
        "date": str(datetime.date.today()),
        "command": _command(options),
        "machine": table.machine(options.device),
        "contenders": table.as_json(measurements),
    }
    (options.out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    (options.out / f"{name}.md").write_text(text)


if __name__ == "__main__":
    main()
