"""Made-up results of every stage of a plan, on disk as workers leave them: trainings, evaluations, failures, halves."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ablate.core import disk, processes
from ablate.core.disk_operations import through
from ablate.data.steps import num_steps
from ablate.planning.plan import Cell, Plan
from ablate.store.attempt import Attempt
from ablate.store.checkpoints import Checkpoints
from ablate.store.stage import Stage
from support.faulty import without_waiting
from support.planned import TRAIN
from support.shown_questions import GROUPS, Answerer, answers, group_result, samples_file, task_result

START = datetime(2026, 11, 23, 8, tzinfo=UTC)
DEVICE = "NVIDIA H100 80GB HBM3"
VERSIONS = {
    "torch": "2.13.0",
    "transformers": "5.24.0",
    "lm_eval": "0.4.13",
    "tokenizers": "0.23.3",
    "datasets": "5.2.0",
}
TRAININGS = ("finetune", "distill")
TOKENS_A_ROW = 211


@dataclass
class MadeUp:
    """Puts results of a plan's stages on disk, as if two cards had worked on them."""

    plan: Plan
    skill: Callable[[Cell], Mapping[str, float]]
    """Of a cell's model, each task's share of right answers."""
    share: float = 1.0
    """Of each task's questions that are asked."""
    ends: Callable[[Cell], float] = lambda cell: 0.9
    _free_at: list[float] = field(default_factory=lambda: [0.0, 0.0])
    _done_at: dict[str, float] = field(default_factory=dict)

    def all(self, but: Callable[[Stage], bool] = lambda stage: False) -> None:
        """Commits all stages but some, and those that need one of these."""
        without: set[str] = set()
        with through(without_waiting):
            for stage in self.plan.all_stages:
                if self.plan.store.done(stage):
                    continue
                if but(stage) or any(needed.key in without for needed in stage.inputs.values()):
                    without.add(stage.key)
                else:
                    self.commit(stage)

    def commit(self, stage: Stage, **how: Any) -> None:
        """`how`: of a training, `nan_from` a step on; `notes` of any."""
        notes = how.pop("notes", {})
        files, seconds = self._files(stage, **how)
        if how.get("nan_from"):
            how["diverged"] = f"diverged at step {how.pop('nan_from')}: loss is nan"
        attempt = self.plan.store.claim(stage.key12)
        provenance = {
            "attempts": attempt.number,
            "device": DEVICE,
            "host": "node07",
            "notes": notes,
            "python": "3.11.7",
        }
        provenance |= {"seconds": seconds, "started": self._began(stage, seconds), "versions": VERSIONS, "threads": 8}
        record = {"payload": stage.payload, "provenance": provenance, **how}
        for name, data in (files | {"stage.json": json.dumps(record).encode()}).items():
            put(attempt.staging / name, data)
        attempt.write_exit(failure="ok", message="", at=START.isoformat(), seconds=seconds)
        self.plan.store.commit(attempt, stage.folder, None)

    def _began(self, stage: Stage, seconds: float) -> str:
        ready = max([self._done_at.get(needed.key, 0.0) for needed in stage.inputs.values()], default=0.0)
        card = min(range(2), key=lambda number: self._free_at[number])
        begin = max(ready, self._free_at[card])
        self._free_at[card] = self._done_at[stage.key] = begin + seconds
        return (START + timedelta(seconds=begin)).isoformat(timespec="seconds")

    def _files(self, stage: Stage, nan_from: int | None = None, **_: Any) -> tuple[dict[str, bytes], float]:
        if stage.kind in TRAININGS:
            records = curve(stage, nan_from=nan_from)
            files = {"metrics.jsonl": lines(records)} | ({} if nan_from else self._held_out(stage, records[-1]))
            return files, sum(record["seconds"] for record in records)
        if stage.kind == "evaluate":
            return self._evaluation(stage)
        if stage.kind == "teacher_cache":
            return {"out/index.json": b"{}"}, 4100.0
        summary = {"train": TRAIN, "holdout": TRAIN | {"rows": 0}}
        return {"out/summary.json": json.dumps(summary).encode()}, 3000.0

    def _held_out(self, stage: Stage, last: Mapping[str, Any]) -> dict[str, bytes]:
        if not self.plan.study.data.holdout:
            return {}
        losses = {"class_loss": last["class_loss"] * 1.04, "tokens": 54_016}
        if "kd_loss" in last:
            losses |= {"forward_kl": last["kd_loss"] * 1.06, "reverse_kl": last["kd_loss"] * 1.2}
        return {"out/holdout.json": json.dumps(losses).encode()}

    def _evaluation(self, stage: Stage) -> tuple[dict[str, bytes], float]:
        recipe: Any = stage.settings.recipe
        cell = next(cell for cell in self.plan.cells if cell.evaluate.key == stage.key)
        trained = cell.trained or cell.evaluate
        skill = dict(self.skill(cell))
        who = Answerer(_without_seed(trained), cell.seed, skill, self.ends(cell))
        tasks: dict[str, Any] = {}
        files = {}
        for name in recipe.task_names:
            for task in GROUPS.get(name, (name,)):
                records = answers(task, self.share, who._replace(skill={task: skill[name]}))
                tasks[task] = task_result(task, records)
                files[f"out/samples/{task}.jsonl"] = samples_file(records)
            if name in GROUPS:
                tasks[name] = group_result({task: tasks[task] for task in GROUPS[name]})
        about = {"lm_eval": stage.settings.lm_eval, "dtype": recipe.dtype, "batch_size": recipe.batch_size}
        results = about | {"limit": recipe.limit, "num_fewshot": recipe.num_fewshot, "tasks": tasks}
        num = sum(task["n"] for task in tasks.values())
        return files | {"out/results.json": json.dumps(results).encode()}, 40 + 0.12 * num

    # what is not done

    def fail(self, stage: Stage, failure: str, message: str, *, at: int | None = None) -> None:
        attempt = self._begun(stage, at) if at else self.plan.store.claim(stage.key12)
        attempt.write_exit(failure=failure, message=message, at=START.isoformat(), seconds=60.0)

    def run(self, stage: Stage, at: int, *, is_live: bool = True, saved: int = 0) -> Attempt:
        """Has a training come to a step, with a checkpoint of an earlier one; it runs, or was cut short by a signal."""
        attempt = self._begun(stage, at)
        if saved:
            Checkpoints(attempt.checkpoints).save(saved, lambda folder: put(folder / "state.json", b"{}"))
        if is_live:
            elsewhere = processes.Identity(host="node07", boot="b", namespace="n", pid=7, started=1)
            put(attempt.worker, elsewhere.model_dump_json().encode())  # nobody here can tell that it is not there
        else:
            attempt.write_exit(failure="cancelled", message="stopped on request", at=START.isoformat(), seconds=60.0)
        return attempt

    def _begun(self, stage: Stage, at: int) -> Attempt:
        attempt = self.plan.store.claim(stage.key12)
        attempt.write_request({"kind": stage.kind, "key": stage.key, "payload": stage.payload})
        self.go_on(attempt, stage, at)
        return attempt

    def go_on(self, attempt: Attempt, stage: Stage, at: int) -> None:
        """Has an attempt come to a step."""
        records = curve(stage)[:at]
        put(attempt.metrics, lines(records))
        pace = at / sum(record["seconds"] for record in records)
        figures = {"loss": records[-1]["loss"], "tokens_per_s": 21_000}
        progress = {"done": at, "total": steps_of(stage), "unit": "step", "pace": pace}
        put(attempt.progress, json.dumps(progress | figures).encode())


def steps_of(stage: Stage) -> int:
    recipe: Any = stage.settings.recipe
    return num_steps(TRAIN["rows"], recipe.batch_size, recipe.epochs, recipe.max_steps, recipe.drop_last)


def curve(stage: Stage, *, nan_from: int | None = None) -> list[dict[str, Any]]:
    """-> what a training records, a step at a time."""
    recipe: Any = stage.settings.recipe
    draw, own = _draw(stage.key), _draw(_without_seed(stage)).normal(scale=0.05)
    steps, noise = steps_of(stage), 0.25 / math.sqrt(recipe.batch_size)
    records = []
    for step in range(1, (nan_from or steps) + 1):
        fall = math.exp(-step * recipe.batch_size / 6000)
        class_loss = 1.12 + own + 0.5 * fall + draw.normal(scale=noise)
        losses = {"loss": class_loss, "class_loss": class_loss}
        if stage.kind == "distill":
            kd_loss = 0.42 + own / 2 + 0.6 * fall + draw.normal(scale=noise)
            losses["kd_loss"] = kd_loss
            losses["loss"] = recipe.kd_ratio * kd_loss + (1 - recipe.kd_ratio) * class_loss
            losses["teacher_entropy"] = 1.02 + draw.normal(scale=0.01)
        if nan_from and step >= nan_from:
            losses = dict.fromkeys(losses, "NaN")  # type: ignore[arg-type]
        records.append({"step": step, **losses, **_costs(stage, step, steps, draw)})
    return records


def _costs(stage: Stage, step: int, steps: int, draw: np.random.Generator) -> dict[str, Any]:
    recipe: Any = stage.settings.recipe
    warmup = recipe.warmup_steps
    rest = 0.5 * (1 + math.cos(math.pi * max(0, step - warmup) / max(1, steps - warmup)))
    tokens = int(recipe.batch_size * TOKENS_A_ROW * (1 + draw.normal(scale=0.03)))
    return {
        "lr": recipe.lr * min(1.0, step / max(1, warmup)) * rest,
        "grad_norm": 0.4 + 0.05 * abs(draw.normal()),
        "tokens": tokens,
        "tokens_all": tokens,
        "seconds": tokens * (4.8e-5 if stage.kind == "distill" else 1.6e-5),
        "peak_memory": 41_200_000_000,
    }


def lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(record)}\n" for record in records).encode()


def put(path: Path, data: bytes) -> None:
    disk.make_folder(path.parent)
    path.write_bytes(data)


def _without_seed(stage: Stage) -> str:
    """-> a name of what a stage does, whatever its seed: `kind` and recipe of it and of all that it needs."""
    return json.dumps([(one.kind, str(getattr(one.settings, "recipe", one.key))) for one in stage.walk()])


def _draw(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))
