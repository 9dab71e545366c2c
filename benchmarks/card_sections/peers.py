"""The same rows through ablate and through those of torchtune, TRL and Liger that are installed."""

import importlib.util
import re
import subprocess
import sys
from typing import Any

from benchmarks.card_sections.sizes import Card
from benchmarks.team import ROOT

LIBRARIES = {"torchtune": "torchtune", "trl": "trl", "liger": "liger_kernel"}
OURS = ("finetune", "beside", "vector")


def measure(card: Card) -> dict[str, Any]:
    there = [name for name, library in LIBRARIES.items() if importlib.util.find_spec(library)]
    there = [name for name in there if name != "liger" or not card.is_cpu]
    num_rows = min(card.num_rows)
    command = [sys.executable, "-m", "benchmarks.step", "--device", card.device, "--dtype", card.dtype]
    command += ["--vocabulary", str(card.vocabulary), "--rows", str(num_rows), "--scratch", card.scratch]
    command += ["--teacher", _size(card.teacher), "--student", _size(card.student)]
    command += ["--rounds", "1" if card.is_cpu else "3", "--contenders", *OURS, "peft", *there]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"benchmarks.step ended with code {ended.returncode}: {ended.stderr[-2000:]}")
    return {"report": ended.stdout, "missing": sorted(LIBRARIES.keys() - {*there})}


def _size(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


def show(measured: dict[str, Any]) -> str:
    lines = [line for line in measured["report"].splitlines() if not re.match(r"round \d+:", line)]
    missing = measured["missing"]
    lacking = f"\nNot installed, so not measured: {', '.join(missing)}.\n" if missing else ""
    return "\n".join(lines) + "\n" + lacking
