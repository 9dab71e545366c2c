"""ablate's own steps, put together as a stage does it."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ablate.data.masks import TokenRow
from ablate.data.tokens import TokenRows, lay
from ablate.store.checkpoints import Checkpoints
from ablate.store.job import Job, MetricsLog
from ablate.study.training_recipes import Distill
from ablate.training import batches, trainable
from ablate.training.adapters import Origin
from ablate.training.capture_plan import CapturePlan, VectorTarget
from ablate.training.card_room import card_room
from ablate.training.giving_way import fitted_budget
from ablate.training.loss import CLASS_LOSS, Objective, objective
from ablate.training.model_parts import ModelParts, split_model
from ablate.training.optimizer import Optimizer
from ablate.training.step_loss import accumulate, mean_losses
from ablate.training.teacher_cache import CachedTeacher, CacheIndex, CacheNeeds, RowSplit
from ablate.training.teacher_capture import capture_budget, capture_teacher
from ablate.training.training import Training
from benchmarks import models, rows
from benchmarks.setup import KD_RATIO, LORA_ALPHA, LORA_RANK, LR, TARGETS, WEIGHT_DECAY, Setup

MADE_BY = ("teacher",)


def recipe_of(setup: Setup) -> Distill:
    return Distill.model_validate(
        {
            "batch_size": setup.num_rows,
            "lr": LR,
            "kd_ratio": KD_RATIO,
            "optimizer": {"weight_decay": WEIGHT_DECAY},
            "lora": {"rank": LORA_RANK, "alpha": LORA_ALPHA, "target_modules": list(TARGETS)},
        }
    )


def token_rows(setup: Setup) -> TokenRows:
    rows_of_ids = rows.make(setup.num_rows, setup.vocabulary, setup.seed)
    return lay(TokenRow(ids, [True] * len(ids)) for ids in rows_of_ids)


class FineTuning:
    """Class loss alone; the others add a teacher."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.rows = token_rows(setup)
        self.student = models.load(setup.model("student"), setup.dtype, setup.device)
        self.forwarded = 0

    @property
    def objective(self) -> Objective:
        return CLASS_LOSS

    def teacher(self, training: Training) -> ModelParts | CachedTeacher | None:
        """-> what answers for the teacher."""
        return None

    def prepare(self) -> None:
        recipe = recipe_of(self.setup)
        weights = trainable.make_trainable(self.student, recipe, self.setup.seed, Origin())
        student = split_model(self.student, self.setup.vocabulary)
        training = Training(recipe, self.setup.seed, self.rows, student, weights, self.objective)
        self.training = replace(training, teacher=self.teacher(training))
        self.optimizer = Optimizer(weights.weights, recipe)
        self.budget = fitted_budget(self.training, card_room(self.setup.device))
        self.forwarded = _forwarded(self.rows, self.budget, self.training.cutting)

    def step(self) -> Mapping[str, float]:
        training, counts = self.training, batches.counts(self.training.rows_of(1))
        training.trainable.discard_grads()
        sums = accumulate(training, training.rows_of(1), self.budget, self.setup.device)
        sums, _ = sums.on_host(self.optimizer.divide_grad(counts.loss))
        losses = mean_losses(training, sums, counts.loss)
        self.optimizer.step(LR)
        training.trainable.update_model()
        return _compared_losses(losses)


def _forwarded(token_rows: TokenRows, budget: int, by: batches.Cutting) -> int:
    cuts = batches.micro_batches(token_rows, range(len(token_rows)), budget, "cpu", by)
    return sum(batch.ids_BT.numel() for batch in cuts)


def _compared_losses(losses: Mapping[str, float]) -> dict[str, float]:
    kept = {name: losses[name] for name in ("class_loss", "kd_loss") if name in losses}
    return kept | ({"cross_kd": losses["kd_loss"] + losses["teacher_entropy"]} if "kd_loss" in losses else {})


class _Distilling(FineTuning):
    @property
    def objective(self) -> Objective:
        return objective(recipe_of(self.setup))


class Beside(_Distilling):
    """The teacher runs beside the student."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.live = models.load(setup.model("teacher"), setup.dtype, setup.device)

    def teacher(self, training: Training) -> ModelParts:
        return split_model(self.live, self.setup.vocabulary)


class FromVectors(_Distilling):
    """The first capture is read: a memory map, as in a stage."""

    form = "vector"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        folder = next(_places(setup, self.form))
        index = CacheIndex(folder / "out")
        self.cache = CachedTeacher(index, _parts(self.rows), setup.device)  # the teacher's head is a model's part

    def teacher(self, training: Training) -> CachedTeacher:
        wanted = CacheNeeds(MADE_BY, self.setup.dtype, _parts(self.rows), training.objective, training.student.head)
        if why := self.cache.index.misfit(wanted):
            raise ValueError(f"the cache does not stand for the teacher: {why}")
        return self.cache


class FromHidden(FromVectors):
    form = "hidden"


class CapturingHidden:
    """A step's rows asked of the teacher and written, each time into a folder of its own."""

    form = "hidden"

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.rows = token_rows(setup)
        self.live = models.load(setup.model("teacher"), setup.dtype, setup.device)
        self.forwarded = 0

    def prepare(self) -> None:
        teacher, parts = split_model(self.live, self.setup.vocabulary), _parts(self.rows)
        read = {part: range(len(rows)) for part, rows in parts.items()}
        self.capture = CapturePlan(MADE_BY, self.setup.dtype, teacher, self.vector(), parts, read)
        self.forwarded = _forwarded(self.rows, capture_budget(self.setup.device, self.capture), teacher.cutting)

    def vector(self) -> VectorTarget | None:
        """-> what vectors are made for, if they are."""
        return None

    def step(self) -> Mapping[str, float]:
        folder = next(folder for folder in _places(self.setup, self.form) if not folder.exists())
        capture_teacher(job_of(folder, self.setup.device), self.capture)
        return {}


class CapturingVectors(CapturingHidden):
    form = "vector"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.student = models.load(setup.model("student"), setup.dtype, setup.device)

    def vector(self) -> VectorTarget:
        return VectorTarget(split_model(self.student, self.setup.vocabulary).head, 1.0)


def _parts(rows: TokenRows) -> dict[RowSplit, TokenRows]:
    return {"train": rows, "holdout": lay([])}


def _places(setup: Setup, form: str) -> Iterator[Path]:
    """-> folders of captures, the first one made first."""
    return (Path(setup.folder) / form / str(number) for number in itertools.count())


def job_of(folder: Path, device: str = "cpu") -> Job:
    for part in ("out", "checkpoints"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    metrics, checkpoints = MetricsLog(folder / "metrics.jsonl"), Checkpoints(folder / "checkpoints")
    return Job(None, {}, folder / "out", metrics, checkpoints, device)
