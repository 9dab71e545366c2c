"""lm-eval's questions answered by ablate and by lm-eval's own class, interleaved: `python -m benchmarks.evaluation`."""

import argparse
import datetime
import importlib.metadata
import json
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ablate.example import assets
from benchmarks import models, table

if TYPE_CHECKING:
    from benchmarks.answerer import Answered, Setup  # imports torch, which the processes of the contenders need

WORLD = ("tiny_truth", "tiny_endings", "tiny_letters")
TUTORIAL = ("truthfulqa_mc2", "hellaswag", "commonsense_qa")
BATCH_SIZES = (1, 4, 16, 32, 64)
"""Tried for lm-eval's class; the fastest one is compared."""


def main() -> None:
    options = _options()
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        model = options.model or _new_model(options, Path(folder))
        rows = [_compared(options, model, task) for task in options.tasks]
    text = (
        f"{_header(options)}\n{table.markdown(list(rows[0]), [[str(cell) for cell in row.values()] for row in rows])}"
    )
    print(text)
    if options.out:
        _write(options, rows, text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__)
    parser.add_argument("--model", type=Path, help="a folder with weights and tokenizer; else one is made:")
    parser.add_argument("--size", type=models.Size.parse, default="10x640", help="layers x width")
    parser.add_argument("--vocabulary", type=int, default=4104)
    parser.add_argument("--tokenizer", type=Path, default=assets() / "models" / "student", help="a folder that has one")
    parser.add_argument("--tasks", nargs="+", help=f"{' '.join(TUTORIAL)} with --data; else {' '.join(WORLD)}")
    parser.add_argument("--data", nargs="+", default=[], metavar="OWNER/NAME=FOLDER", help="where the questions lie")
    parser.add_argument("--limit", type=int, help="questions of a task")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=BATCH_SIZES)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", type=Path, help="where a model is put for a while")
    parser.add_argument("--out", type=Path, help="folder for .md and .json")
    options = parser.parse_args()
    options.tasks = options.tasks or (TUTORIAL if options.data else WORLD)
    if any("=" not in pair for pair in options.data):
        parser.error("--data wants OWNER/NAME=FOLDER")
    return options


def _new_model(options: argparse.Namespace, folder: Path) -> Path:
    from transformers import AutoTokenizer

    settings = models.config(options.size, options.vocabulary, 3.5, 8.0, is_tied=False)
    models.save(folder, settings, options.dtype, options.device, options.seed)
    AutoTokenizer.from_pretrained(options.tokenizer, local_files_only=True).save_pretrained(folder)
    return folder


@dataclass
class Member:
    """A process that answers one task's requests, and what it took."""

    pipe: Connection
    rounds: list["Answered"] = field(default_factory=list)

    def answer(self, batch_size: int | None) -> "Answered":
        """By lm-eval's class at a batch size, or by ablate's."""
        self.pipe.send(batch_size)
        self.rounds.append(self.pipe.recv())
        return self.rounds[-1]

    @property
    def seconds(self) -> list[float]:
        return [one.seconds for one in self.rounds]


def _started(team: ExitStack, setup: "Setup") -> Member:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, setup), daemon=True)
    process.start()
    there.close()
    team.callback(process.terminate)
    return Member(here)


def _serve(pipe: Connection, setup: "Setup") -> None:
    from benchmarks.answerer import Answerer

    answerer = Answerer(setup)
    while True:
        pipe.send(answerer.answer(pipe.recv()))


def _compared(options: argparse.Namespace, model: Path, task: str) -> dict[str, Any]:
    """-> a row of the table. Each task has processes of its own, so that memory is its own too."""
    from benchmarks.answerer import Setup

    data = dict(pair.split("=", 1) for pair in options.data)
    setup = Setup(str(model), task, data, options.limit, options.dtype, options.device)
    batch_size = _best(setup, options.batch_sizes)
    with ExitStack() as team:
        ours, theirs = _started(team, setup), _started(team, setup)
        for number in range(options.rounds):
            print(f"{task}, round {number}: lm-eval {theirs.answer(batch_size).seconds:.2f} s", flush=True)
            print(f"{task}, round {number}: ablate {ours.answer(None).seconds:.2f} s", flush=True)
    return {"task": task, "batch size": batch_size} | _row(ours, theirs)


def _best(setup: "Setup", batch_sizes: Sequence[int]) -> int:
    """-> the batch size at which lm-eval's class is fastest, each tried once."""
    if len(batch_sizes) == 1:
        return batch_sizes[0]
    seconds = {}
    with ExitStack() as team:
        scout = _started(team, setup)
        for size in batch_sizes:
            seconds[size] = scout.answer(size).seconds
            print(f"{setup.task}, lm-eval at batch size {size}: {seconds[size]:.2f} s", flush=True)
    return min(seconds, key=lambda size: seconds[size])


def _row(ours: Member, theirs: Member) -> dict[str, Any]:
    mine, other = ours.rounds[-1], theirs.rounds[-1]
    pairs = list(zip(mine.answers, other.answers, strict=True))
    peaks = [max(one.peak for one in member.rounds) / table.GIB for member in (theirs, ours)]
    return {
        "requests": len(pairs),
        "tokens, lm-eval": other.forwarded,
        "tokens, ablate": mine.forwarded,
        "tokens fewer": f"{other.forwarded / mine.forwarded:.2f}",
        "seconds, lm-eval": f"{median(theirs.seconds):.3g}",
        "seconds, ablate": f"{median(ours.seconds):.3g}",
        "seconds less": table.ratio(theirs.seconds, ours.seconds),
        "GiB above the model, lm-eval": f"{peaks[0]:.3f}",
        "GiB, ablate": f"{peaks[1]:.3f}",
        "GiB less": f"{peaks[0] / peaks[1]:.2f}",
        "largest difference of a log-likelihood": f"{max(abs(a[0] - b[0]) for a, b in pairs):.1e}",
        "greedy flags that differ": sum(a[1] != b[1] for a, b in pairs),
    }


def _header(options: argparse.Namespace) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "lm_eval"))
    return (
        f"{datetime.date.today()}, {table.machine(options.device)}. `{_command(options)}`\n"
        f"Tokens with padding; ratios are medians over {options.rounds} rounds (range). {versions}\n"
    )


def _command(options: argparse.Namespace) -> str:
    """-> how to do it again; where things lie on this machine is left out."""
    model = (
        "--model ..."
        if options.model
        else f"--size {'x'.join(map(str, options.size))} --vocabulary {options.vocabulary}"
    )
    shown = ("limit", "rounds", "dtype", "device", "seed")
    given = " ".join(f"--{name} {vars(options)[name]}" for name in shown if vars(options)[name] is not None)
    return f"python -m benchmarks.evaluation {model} --tasks {' '.join(options.tasks)} {given}"


def _write(options: argparse.Namespace, rows: Sequence[dict[str, Any]], text: str) -> None:
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"evaluation-{options.model.name if options.model else options.vocabulary}-{options.dtype}"
    (options.out / f"{name}.json").write_text(json.dumps({"header": _header(options), "tasks": rows}, indent=1) + "\n")
    (options.out / f"{name}.md").write_text(text)


if __name__ == "__main__":
    main()
