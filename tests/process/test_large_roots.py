"""A root of many stages and large files is read piece by piece: in little memory, and in a time to be foreseen."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.faulty import without_waiting
from support.report_study import ONE_TABLE, bench
from support.toys import toy

from ablate.core import disk
from ablate.core.disk_operations import through
from ablate.store.store import Store

MOST_MB = 150
SPARSE_BYTES = 1 << 30


def lines(num: int) -> Iterator[str]:
    for step in range(1, num + 1):
        figures = {"kd_loss": 1 + 1 / step, "class_loss": 2.0, "loss": 1.5 + 1 / step, "tokens": 512, "seconds": 0.5}
        yield json.dumps({"step": step, **figures, "lr": 1e-4}) + "\n"


def commit(store: Store, number: int, num_lines: int = 0) -> None:
    stage = toy(steps=3, seed=number)
    attempt = store.claim(stage.key12)
    attempt.out.mkdir(parents=True)
    disk.write_json(attempt.out / "result.json", {"value": number, "steps": 3})
    disk.write_json(attempt.staging / "stage.json", {"payload": stage.payload, "settings": {}, "provenance": {}})
    if num_lines:
        attempt.metrics.write_text("".join(lines(num_lines)))
        (attempt.out / "large").touch()
        os.truncate(attempt.out / "large", SPARSE_BYTES)
    store.commit(attempt, stage.folder, None)
    attempt.write_exit(failure="ok", message="")


def peak_mb(*arguments: str) -> float:
    """-> of a program and its children, the most memory that one of them had."""
    code = (
        "import resource, subprocess, sys; "
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL); "
        "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    printed = subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    returncode, megabytes = printed.stdout.split()
    assert returncode == "0"
    return float(megabytes)


def ablate(root: Path, *arguments: str) -> Sequence[str]:
    return [sys.executable, "-m", "ablate", "--root", str(root), *arguments]


@pytest.mark.parametrize(
    ("num_stages", "num_lines"), [(20, 20_000), pytest.param(300, 1_000_000, marks=pytest.mark.soak)]
)
def test_verify_and_gc_of_many_stages_and_large_files_take_little_memory(tmp_path, num_stages, num_lines):
    with through(without_waiting):
        for number in range(num_stages):
            commit(Store(tmp_path), number, num_lines if number == 1 else 0)
    assert peak_mb(*ablate(tmp_path, "verify")) < MOST_MB
    assert peak_mb(*ablate(tmp_path, "gc", "--dry-run")) < MOST_MB


READ = """
import sys
from dataclasses import replace
from pathlib import Path
from support.report_study import ONE_TABLE, bench
from ablate.report.exhibits.curves import read_curve
from ablate.results.collect import collect
cell = collect(bench(Path(sys.argv[1]), ablations=ONE_TABLE).plan()).cells[-1]
curve = read_curve("it", {}, replace(cell, curve=Path(sys.argv[2])))
if curve:
    assert len(curve.smooth["loss"]) == len(curve.positions(True)) == curve.num_steps == int(sys.argv[3])
"""
BYTES_A_STEP = 8 * 16
"""Five columns, three smoothed losses, where they are drawn, and what is held on the way: 12 numbers as measured. Each
step was a dict before, of ten times as much."""


def test_a_long_curve_takes_some_numbers_of_memory_a_step(tmp_path):
    path, num = tmp_path / "metrics.jsonl", 100_000
    path.write_text("".join(lines(num)))
    read = [sys.executable, "-c", READ, str(tmp_path)]
    assert peak_mb(*read, str(path), str(num)) - peak_mb(*read, str(tmp_path / "none"), "0") < num * BYTES_A_STEP / 1e6


WRITE = """
import sys
from pathlib import Path
from support.report_study import ONE_TABLE, bench
from ablate.report.write import write_report
write_report(bench(Path(sys.argv[1]), ablations=ONE_TABLE).plan())
"""


@pytest.mark.soak
def test_a_report_with_a_curve_of_a_million_steps_takes_bounded_time_and_memory(tmp_path):
    study = bench(tmp_path, ablations=ONE_TABLE)
    study.commit(*study.plan().cells)
    before = peak_mb(sys.executable, "-c", WRITE, str(tmp_path))
    trained = next(cell.trained for cell in study.plan().cells if cell.row.model == "distill")
    disk.remove_tree(study.store.folder(trained))
    study._commit(trained, {"metrics.jsonl": "".join(lines(1_000_000)).encode()})
    began = time.monotonic()
    assert peak_mb(sys.executable, "-c", WRITE, str(tmp_path)) - before < 250
    assert time.monotonic() - began < 120
    assert ",1000000," in (tmp_path / "reports/small/tables/qwen2-losses.csv").read_text()
