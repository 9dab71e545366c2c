"""lm-eval's questions answered in the process that was started for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from ablate.data.tokenizers import load_tokenizer
from ablate.evaluation import lm_eval_scores
from ablate.evaluation.model import SharingLM
from ablate.evaluation.tasks import Tasks
from ablate.example import assets
from ablate.study.evaluation_settings import Evaluate
from benchmarks import models
from benchmarks.measure import Meter


@dataclass(frozen=True)
class Setup:
    """What is asked, and of which model."""

    model: str
    task: str
    data: Mapping[str, str]
    """Data set -> its folder."""
    limit: int | None
    dtype: str
    device: str


@dataclass(frozen=True)
class Answered:
    """A task's requests, answered once."""

    seconds: float
    peak: int
    """Bytes above the model."""
    forwarded: int
    """Tokens, padding too."""
    answers: Sequence[tuple[float, bool]]


class Answerer:
    """One model and one task's requests."""

    def __init__(self, setup: Setup) -> None:
        if setup.device == "cpu":
            torch.set_num_threads(1)
        self._device, self._forwarded = setup.device, 0
        self._requests = _requests(setup)
        self._tokenizer = load_tokenizer(Path(setup.model))
        self._model = models.load(Path(setup.model), setup.dtype, setup.device)
        self._model.base_model.register_forward_pre_hook(self._count, with_kwargs=True)

    def answer(self, batch_size: int | None) -> Answered:
        """By lm-eval's class at a batch size, or by ablate's."""
        answers: list[tuple[float, bool]] = []
        self._forwarded, meter = 0, Meter(self._device)
        measured = meter.measure(lambda: answers.extend(self._lm(batch_size).loglikelihood(self._requests, True)))
        return Answered(*measured, self._forwarded, [(float(value), greedy) for value, greedy in answers])

    def _lm(self, batch_size: int | None) -> Any:
        if batch_size is None:
            return SharingLM(self._model, self._tokenizer, 1, _Nobody())
        return HFLM(pretrained=self._model, tokenizer=self._tokenizer, batch_size=batch_size)

    def _count(self, _: Any, arguments: Sequence[Any], settings: Mapping[str, Any]) -> None:
        self._forwarded += settings["input_ids"].numel() if "input_ids" in settings else arguments[0].numel()


def _requests(setup: Setup) -> list[Any]:
    lm_eval_scores.seed_as_lm_eval()
    data = {name: Path(folder) for name, folder in setup.data.items()}
    loaded = Tasks([setup.task], data, assets() / "tasks").load_one(setup.task)
    lm_eval_scores.prepare(loaded, Evaluate(tasks=(setup.task,)).asking(setup.task))
    for task in loaded["tasks"].values():
        task.build_all_requests(limit=setup.limit)
    return [instance for task in loaded["tasks"].values() for instance in task.instances]


class _Nobody:
    """Listens to ablate's class; what would be a note is worth an end here."""

    def known_responses(self) -> Mapping[int, Any]:
        return {}

    def on_responses(self, responses: Mapping[int, Any]) -> None:
        pass

    def on_lm_eval_response(self) -> None:
        pass

    def note(self, name: str, what: str) -> None:
        if name != "cut from the left":
            raise SystemExit(f"{name}: {what}")
