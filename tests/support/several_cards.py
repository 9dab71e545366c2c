"""A small study as it comes out with one card a stage, and with two (without cards, processes)."""

import csv
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from ablate.execution.profiles import HERE, Profile
from ablate.execution.study_run import RunOptions, run_cells
from ablate.machine.slots import Placing
from ablate.planning.project import open_study
from ablate.report.write import write_report
from ablate.store.manifest import read_sound

STUDY = {
    "name": "shared",
    "dtype": "float32",
    "data": {"source": "builtin:tiny/data/train.jsonl", "limit": 24, "train_on_prompt": False},
    "pairs": {"p": {role: {"model": f"builtin:tiny/models/{role}"} for role in ("teacher", "student")}},
    "train": {"max_steps": 3, "batch_size": 8, "warmup_steps": 1, "lr": 3e-3, "lora": {"rank": 4, "alpha": 8}},
    "evaluate": {"tasks": ["tiny_letters"], "limit": 8, "include_path": "builtin:tiny/tasks", "allow_code": True},
    "ablations": {"a": {"grid": {"distill.kd_ratio": [0.5]}}},
}


WORK = ("finetune", "distill", "evaluate")


class Came(NamedTuple):
    """Of a run."""

    keys: set[str]
    rows: list[dict[str, str]]
    """Of results.csv."""
    places: set[tuple[str, int, int]]
    """Slot, cards and processes, as results of trainings and evaluations say."""


def run(folder: Path, *overrides: str, profile: Profile = HERE) -> Came:
    (folder / "s.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    project = open_study(folder / "s.yaml", folder / "root", overrides)
    placing = Placing(num_jobs=2 if profile == HERE else None)
    came = run_cells(project, RunOptions(("a/kd_ratio=*",), (profile,), placing))
    assert came.summary.exit_code == 0, came.troubles
    with (write_report(came.plan) / "results.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    stages = [stage for stage in came.plan.stages if stage.kind in WORK and came.plan.store.done(stage)]
    assert {stage.kind for stage in stages} == set(WORK)
    records = [read_sound(came.plan.store.folder(stage), "stage.json")["provenance"] for stage in stages]
    places = {(record["slot"], len(record.get("cards", ())), record.get("processes", 1)) for record in records}
    return Came({stage.key for stage in came.plan.stages}, rows, places)


def as_numbers(row: dict[str, str]) -> dict[str, str | float]:
    return row | {name: float(row[name]) for name in ("value", "stderr") if row[name]}


def nearly(row: dict[str, str | float], rel: float) -> dict[str, Any]:
    """-> what is equal to it to rounding."""
    return {name: pytest.approx(value, rel=rel) if isinstance(value, float) else value for name, value in row.items()}


def on_one_and_two(folder: Path) -> tuple[Came, Came]:
    """-> of the study with a card a stage, and of the same with two."""
    (folder / "one").mkdir()
    one = run(folder / "one", "train.cards=1", "evaluate.cards=1")
    shutil.copytree(folder / "one", folder / "two", symlinks=True)
    for kind in WORK:
        for stage in (folder / "two/root/runs/stages").glob(f"{kind}-*"):
            shutil.rmtree(stage)
    return one, run(folder / "two", "train.cards=2", "evaluate.cards=2")


def require_alike(one: Came, two: Came, rel: float) -> None:
    assert {places[1:] for places in one.places} == {(0, 1)}
    assert two.keys == one.keys
    assert list(map(as_numbers, two.rows)) == [nearly(as_numbers(row), rel) for row in one.rows]
