"""How good a made-up model is at each task, by its recipe: as torchtune's tutorial printed it, or by a rule."""

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from ablate.planning.plan import Cell
from support.paths import STUDIES

STUDENT = {"hellaswag": 0.6, "truthfulqa_mc2": 0.44, "commonsense_qa": 0.55, "gsm8k": 0.33, "mmlu_stem": 0.4}
TEACHER = {"hellaswag": 0.79, "truthfulqa_mc2": 0.54, "commonsense_qa": 0.77, "gsm8k": 0.76, "mmlu_stem": 0.58}
COLUMNS = {"truthfulqa_mc2": 0, "hellaswag": 2, "commonsense_qa": 3}
"""Of the published scores, the one that decides a task."""
KNOWN = {"pair", "lr", "kd_ratio", "loss", "temperature", "teacher", "student", "batch_size", "answers"}


def skill_of(cell: Cell) -> Mapping[str, float]:
    """-> by a rule: a best learning rate and KD ratio, a better teacher, small effects of all else."""
    model, setting = cell.row.model, cell.row.setting
    share = {"student/baseline": 0.0, "student/finetuned": 0.1, "teacher/baseline": 0.95, "teacher/finetuned": 1.0}
    part = _part(setting.distill) if model == "distill" else share[model]
    harm = 0.08 if setting.pair == "qwen2" else 0.0
    return {task: max(0.2, low + part * (TEACHER[task] - low) - harm) for task, low in STUDENT.items()}


def _part(recipe: Any) -> float:
    """-> which part of the way to the teacher a distilled student comes."""
    part = 0.42 - 0.22 * abs(math.log10(recipe.lr / 3e-4)) ** 1.5 + 0.18 * (recipe.kd_ratio - 0.5)
    part += 0.08 * (recipe.teacher == "finetuned") - 0.03 * (recipe.student == "finetuned")
    part -= 0.04 * abs(math.log2(recipe.temperature)) + 0.03 * (recipe.answers == "teacher")
    part += {"forward_kl": 0.0, "reverse_kl": 0.03, "jsd": 0.02, "tvd": -0.1}.get(recipe.loss.name, 0.01)
    rest = {name: value for name, value in recipe.model_dump(mode="json").items() if name not in KNOWN}
    return part + 0.05 * (hashlib.sha256(json.dumps(rest).encode()).digest()[0] / 255 - 0.5)


def published_skill(cell: Cell) -> Mapping[str, float]:
    """-> what the tutorial's table says of a row."""
    scores = _published_scores(cell)
    return {task: scores[column] for task, column in COLUMNS.items()}


def _published_scores(cell: Cell) -> list[float]:
    pair = _tables()[cell.row.setting.pair]
    if cell.row.model != "distill":
        scores: list[float] = pair[cell.row.model]
        return scores
    recipe = cell.row.setting.distill
    for entry in pair["kd"]:
        if all(entry[name] == getattr(recipe, name) for name in ("teacher", "student", "lr", "kd_ratio")):
            return list(entry["scores"])
    raise LookupError(f"no published scores of {cell.name}")


@cache
def _tables() -> dict[str, Any]:
    tables: dict[str, Any] = yaml.safe_load((STUDIES / "published.yaml").read_text())
    return tables
