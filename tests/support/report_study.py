"""A small study with results on disk in the committed format, for the tests of the report; no model is involved."""

import gzip
import hashlib
import json
import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from ablate.core.values import IDENTITY, RUNTIME, Bool, Frozen
from ablate.planning.plan import Cell, Plan
from ablate.stages.fetch import FetchSettings
from ablate.stages.generate import GenerateSettings
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.cells import Row, rows
from ablate.study.schema import Study

TASKS = MappingProxyType({"truthfulqa_mc2": ("acc",), "hellaswag": ("acc", "acc_norm"), "commonsense_qa": ("acc",)})
N = MappingProxyType({"truthfulqa_mc2": 60, "hellaswag": 100, "commonsense_qa": 80})
SKILL = MappingProxyType(
    {"teacher/baseline": 0.72, "teacher/finetuned": 0.75, "student/baseline": 0.45, "student/finetuned": 0.5}
)
ONE_TABLE = MappingProxyType({"qwen2": {"title": "A closer pair", "set": {"distill.pair": "qwen2"}}})
"""For who needs a whole report and cares little what is in it: to draw one takes seconds a table."""
START = datetime(2026, 11, 24, 9, tzinfo=UTC)
"""A stage begins each minute, and takes one and a half."""


class Fetch(FetchSettings):
    source: Annotated[Literal["hub", "local"], IDENTITY] = "hub"
    repo_type: Annotated[Literal["model", "dataset", "tasks"], IDENTITY] = "model"
    revision: Annotated[str | None, IDENTITY] = "0123456789abcdef0123456789abcdef01234567"
    trust_remote_code: Annotated[Bool, RUNTIME] = False
    """In no key here: golden files have the keys of before it was a setting."""


class Work(Frozen):
    name: Annotated[str, IDENTITY]
    seed: Annotated[int | None, IDENTITY] = None
    recipe: Annotated[str, IDENTITY] = ""


@dataclass
class Bench:
    """Builds a study's plan, and puts results of its stages on disk."""

    root: Path
    study: Study
    device: str = "a CPU"

    @property
    def store(self) -> Store:
        return Store(self.root)

    def plan(self) -> Plan:
        cells = [cell for name in self.study.ablations for cell in self._cells(name)]
        return Plan(self.study, self.store, tuple(cells))

    def commit(self, *cells: Cell, steps: int = 60) -> None:
        for cell in cells:
            if cell.trained:
                self.commit_training(cell, steps)
            self.commit_evaluation(cell)

    def commit_training(self, cell: Cell, steps: int = 60, held_out: dict[str, float] | None = None) -> None:
        assert cell.trained
        more = {"out/holdout.json": json.dumps(held_out).encode()} if held_out else {}
        self._commit(cell.trained, {"metrics.jsonl": curve(cell, steps)} | more)

    def commit_files(self, stage: Stage, files: dict[str, bytes]) -> None:
        """Has a stage made these."""
        self._commit(stage, files)

    def diverge(self, cell: Cell, at: int = 31) -> None:
        assert cell.trained
        reason = f"diverged at step {at}: loss is nan"
        self._commit(cell.trained, {"metrics.jsonl": curve(cell, at, nan_from=at)}, diverged=reason)

    def fail(self, stage: Stage, failure: str, message: str) -> None:
        attempt = self.store.claim(stage.key12)
        attempt.write_exit(failure=failure, message=message)

    def commit_evaluation(
        self,
        cell: Cell,
        *,
        edit: Any = None,
        share: float | None = None,
        batch_size: int = 16,
        has_finer: bool = False,
        has_texts: bool = False,
        has_choices: bool = False,
    ) -> None:
        """`share`: of the questions of commonsense_qa, its first ones, that are right."""
        skill = SKILL.get(cell.row.model) or 0.5 + _shift(cell.row.name)
        samples = {task: _samples(task, skill, f"{cell.row.name}{cell.seed}") for task in TASKS}
        if share is not None:
            for number, sample in enumerate(samples["commonsense_qa"]):
                sample["scores"] = {"acc": float(number < share * N["commonsense_qa"])}
        results = _results(samples, batch_size)
        if has_finer:
            _add_finer(results, samples)
        if has_texts:
            _add_texts(samples["commonsense_qa"])
        if edit:
            edit(results)
        words = {}
        if has_choices:
            words = _add_choices({task: own for task, own in samples.items() if "written" not in own[0]})
        files = {f"out/samples/{task}.jsonl": _jsonl(questions) for task, questions in samples.items()} | words
        self._commit(cell.evaluate, {"out/results.json": json.dumps(results).encode()} | files)

    def _commit(self, stage: Stage, files: dict[str, bytes], **more: str) -> None:
        attempt = self.store.claim(stage.key12)
        provenance = {"device": self.device, "python": "3.11.2", "versions": {"torch": "2.13.0"}, "notes": {}}
        started = START + timedelta(minutes=sum(1 for _ in self.root.glob("runs/stages/*")))
        provenance |= {"host": "here", "started": started.isoformat(timespec="seconds"), "seconds": 90.0}
        record = {"payload": stage.payload, "provenance": provenance, **more}
        for name, data in (files | {"stage.json": json.dumps(record).encode()}).items():
            (attempt.staging / name).parent.mkdir(parents=True, exist_ok=True)
            (attempt.staging / name).write_bytes(data)
        self.store.commit(attempt, stage.folder, None)

    def _cells(self, ablation: str) -> list[Cell]:
        cells = []
        for row in (row for row in rows(self.study) if row.ablation == ablation):
            seeds = (None,) if "baseline" in row.model else self.study.seeds
            seeds = seeds[:1] if row.model == "teacher/finetuned" else seeds
            cells += [self._cell(row, seed) for seed in seeds]
        return cells

    def _cell(self, row: Row, seed: int | None) -> Cell:
        pair = self.study.pairs[row.setting.pair]
        teacher = Stage("fetch", 1, Fetch(repo=pair.teacher.model))
        student = Stage("fetch", 1, Fetch(repo=pair.student.model))
        tuned = {
            "teacher": Stage("finetune", 1, Work(name="teacher", seed=0), {"model": teacher}),
            "student": Stage("finetune", 1, Work(name="student", seed=seed), {"model": student}),
        }
        if row.model == "distill":
            inputs = {"teacher": teacher, "student": student}
            if row.setting.distill.teacher == "finetuned":
                inputs["teacher_adapter"] = tuned["teacher"]
            if row.setting.distill.student == "finetuned":
                inputs["student_adapter"] = tuned["student"]
            if row.setting.distill.answers == "teacher":
                written = GenerateSettings(sampling=row.setting.distill.sampling, dtype="float32", seed=0)
                inputs["answers"] = Stage("generate", 1, written, {"teacher": teacher})
            trained = Stage("distill", 1, Work(name="kd", seed=seed, recipe=_recipe(row)), inputs)
            return Cell(row, seed, _evaluate(row, {"model": student, "adapter_0": trained}), trained)
        role, word = row.model.split("/")
        base = teacher if role == "teacher" else student
        if word == "baseline":
            return Cell(row, None, _evaluate(row, {"model": base}), None)
        return Cell(row, seed, _evaluate(row, {"model": base, "adapter_0": tuned[role]}), tuned[role])


def bench(root: Path, **changes: Any) -> Bench:
    """Two ablations in the tutorial's shape: a learning rate, and a pair of its own."""
    given: dict[str, Any] = {
        "name": "small",
        "title": "A small study",
        "data": {"source": "yahma/alpaca-cleaned"},
        "distill": {"batch_size": 128},
        "pairs": {
            "llama": {"teacher": {"model": "meta/8B"}, "student": {"model": "meta/1B"}},
            "qwen2": {"teacher": {"model": "qwen/1.5B"}, "student": {"model": "qwen/0.5B"}},
        },
        "ablations": {
            "learning_rate": {
                "title": "Hyperparameter tuning: learning rate",
                "question": "Which learning rate suits distillation?",
                "grid": {"distill.lr": [1e-3, 3e-4, 1e-5]},
            },
            "qwen2": {"title": "A closer pair", "set": {"distill.pair": "qwen2"}},
        },
    }
    return Bench(root, Study.model_validate(given | changes))


def without_numbers(results: dict[str, Any]) -> None:
    """An `edit` of an evaluation: its scores are NaN, those of its questions stay."""
    for task in results["tasks"].values():
        for metric in task["metrics"].values():
            metric["value"] = metric["stderr"] = "NaN"


def curve(cell: Cell, steps: int, *, nan_from: int | None = None) -> bytes:
    """metrics.jsonl of a training whose losses fall."""
    draw = random.Random(cell.name)
    is_distilled = cell.row.model == "distill"
    records = []
    for step in range(1, steps + 1):
        fall = math.exp(-step / (steps / 6)) * 1.2 + _shift(cell.row.name) * 2
        kd, ce = 0.55 + fall + draw.gauss(0, 0.06), 1.1 + fall + draw.gauss(0, 0.1)
        ratio = cell.row.setting.distill.kd_ratio if is_distilled else 0.0
        losses: dict[str, Any] = {"loss": ratio * kd + (1 - ratio) * ce, "class_loss": ce}
        if is_distilled:
            losses |= {"kd_loss": kd, "teacher_entropy": 1.0}
        if is_distilled and (k := cell.row.setting.distill.teacher_top_k):
            left_out = {"mass_left_out": 0.1 / k, "entropy_lost": 0.5 / k, "kl_error": 0.3 / k}
            losses |= {f"teacher_{name}": value * (1 + step % 2) for name, value in left_out.items()}
        if nan_from and step >= nan_from:
            losses = dict.fromkeys(losses, "NaN")
        size = 128 if is_distilled else 16
        records.append({"step": step, **losses, "lr": 3e-4, "tokens": size * 50})
    return _jsonl(records)


def _evaluate(row: Row, inputs: dict[str, Stage]) -> Stage:
    return Stage("evaluate", 1, Work(name="evaluate"), inputs)


def _recipe(row: Row) -> str:
    """Names a distillation without the recipe's defaults, so that a new default leaves golden files alone."""
    kd = row.setting.distill
    cut = f" top {kd.teacher_top_k}" if kd.teacher_top_k else ""
    own = "" if kd.answers == "dataset" else f" {kd.answers}"
    return f"{kd.teacher} {kd.student} {kd.lr:g} {kd.kd_ratio:g} {kd.loss.name} {row.setting.pair}{cut}{own}"


def _shift(name: str) -> float:
    """A row's own effect: the same on every machine."""
    return (hashlib.sha256(name.encode()).digest()[0] / 255 - 0.5) * 0.16


def _samples(task: str, skill: float, name: str) -> list[dict[str, Any]]:
    """Questions are the same for every model; how hard one is is shared, too."""
    hard, own = random.Random(task), random.Random(f"{task}{name}")
    samples = []
    for doc_id in range(N[task]):
        is_right = 0.75 * hard.random() + 0.25 * own.random() < skill
        is_right_too = is_right or own.random() < 0.2
        scores = {metric: float(is_right if metric == "acc" else is_right_too) for metric in TASKS[task]}
        if task == "truthfulqa_mc2":
            scores = {"acc": min(1.0, max(0.0, own.gauss(skill, 0.3)))}
        cluster = {"cluster": f"source {doc_id % 20}"} if task == "hellaswag" else {}
        samples.append({"doc_id": doc_id, "doc_hash": f"{task}-{doc_id}", "scores": scores, **cluster})
    return samples


def _results(samples: dict[str, list[dict[str, Any]]], batch_size: int) -> dict[str, Any]:
    tasks = {}
    for task, questions in samples.items():
        metrics = {}
        for metric in TASKS[task]:
            values = [sample["scores"][metric] for sample in questions]
            mean = sum(values) / len(values)
            variance = sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)
            metrics[metric] = {"value": mean, "stderr": math.sqrt(variance / len(values))}
        tasks[task] = {"version": 1, "n": len(questions), "metrics": metrics}
    return {"tasks": tasks, "lm_eval": "0.4.13", "dtype": "float32", "batch_size": batch_size, "limit": None}


def _add_finer(results: dict[str, Any], samples: dict[str, list[dict[str, Any]]]) -> None:
    """A right answer's probability that goes with its score."""
    for task, questions in samples.items():
        values = [sample["scores"]["acc"] - 3 for sample in questions]
        for sample, value in zip(questions, values, strict=True):
            sample["finer"] = {"log_probability": value}
        mean = sum(values) / len(values)
        results["tasks"][task]["finer"] = {"log_probability": {"value": mean, "stderr": 0.05}}


def _add_texts(samples: list[dict[str, Any]]) -> None:
    """As if the task had asked for a text, every fifth of which did not end."""
    for number, sample in enumerate(samples):
        sample |= {"asked": f"Question {number}:", "target": f"{number}"}
        sample["written"] = [{"text": "a text", "num_tokens": 3, "has_ended": number % 5 != 0}]


def _add_choices(samples: dict[str, list[dict[str, Any]]]) -> dict[str, bytes]:
    """Log-probabilities of four choices that go with acc, and eight subjects of one task. -> the words, as files."""
    files = {}
    for task, questions in samples.items():
        own, words = random.Random(f"{task}{questions[0]['scores']}"), []
        for number, sample in enumerate(questions):
            known = sample.setdefault("finer", {}).setdefault("log_probability", sample["scores"]["acc"] - 3)
            logprobs = [known - own.uniform(0.1, 4) for _ in range(4)]
            right, wrong = number % 4, (number + own.randint(1, 3)) % 4
            logprobs[right], logprobs[wrong] = (
                known,
                known + own.choice((0.5, 2)) * (-1 if sample["scores"]["acc"] == 1 else 1),
            )
            sample |= {"loglikelihoods": logprobs, "target": right}
            if task == "commonsense_qa":
                sample["cluster"] = f"subject {number % 8}"
            choices = [f" answer {letter} to {number}" for letter in "abcd"]
            words.append({"doc_id": sample["doc_id"], "question": f"What of {number}?", "choices": choices})
        files[f"out/questions/{task}.jsonl.gz"] = gzip.compress(_jsonl(words), mtime=0)
    return files


def _jsonl(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()
