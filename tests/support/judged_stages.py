"""Stages that only ask a model, run at real shapes on the meta device: what an allocator says that they hold.

Whatever their code asks of the card is made up: no number is there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ablate.evaluation.forest_scorer import ForestScorer
from ablate.evaluation.trees import Request, build_forest
from ablate.study.answer_settings import Sampling
from ablate.training.capture_plan import CapturePlan, Shard, TopKTarget, VectorTarget
from ablate.training.decode_loop import Writer, write_answers
from ablate.training.forward_memory import Trees
from ablate.training.model_parts import ModelParts
from ablate.training.prompts import Prompt
from ablate.training.teacher_capture import _filled, _TokenProgress
from ablate.training.token_draws import Draws
from support import tiny_models as tiny
from support.allocations import Allocations
from support.judged_memory import judging, weights_of


def captured(
    form: str, teacher: ModelParts, lengths: Sequence[int], folder: Path, student: ModelParts | None = None
) -> Allocations:
    """-> of a shard of so many rows that are forwarded together, then once more."""
    rows = tiny.random_rows([*lengths, *lengths])
    target = {
        "vector": lambda: student and VectorTarget(student.head, 1.0),
        "top_k": lambda: TopKTarget(64, 1.0),
        "hidden": lambda: None,
    }[form]()
    plan = CapturePlan(("teacher",), "bfloat16", teacher, target, {"train": rows}, {"train": range(len(rows))})
    job = tiny.job(folder)
    job.device = "meta"
    shard = Shard("train", form, "train.safetensors", tuple(range(len(rows))))
    budget = len(lengths) * max(lengths)
    known = [*weights_of(teacher), *([student.head.weight] if student else [])]
    with judging(known) as held:
        _filled(job, plan, shard, budget, _TokenProgress(job, 0, 1))
    return held


class Scored(NamedTuple):
    """What came of questions that were asked."""

    held: Allocations
    tokens: int
    trees: Trees


def scored(
    model: ModelParts, questions: int, context: int, answers: int = 4, length: int = 16, shared: int = 0
) -> Scored:
    """-> of questions side by side, in one micro-batch, of `context` tokens each, of which all share the first ones."""
    endings = [tuple(range(5000 + 100 * answer, 5000 + 100 * answer + length)) for answer in range(answers)]
    contexts = [(*range(shared), *(1000 + number for _ in range(context - shared))) for number in range(questions)]
    requests = [Request(f"{own[-1]}", (*own, *ending[:-1]), ending) for own in contexts for ending in endings]
    forest = build_forest(requests)
    tokens = questions * forest.held.width
    with judging(weights_of(model)) as held:
        for _ in ForestScorer(model, tokens, "meta").responses(forest, [request.continuation for request in requests]):
            pass
    return Scored(held, tokens, forest.held)


def written(model: ModelParts, prompts: Sequence[int], new: int, sampling: Sampling = Sampling()) -> Allocations:
    """-> of answers to prompts of such lengths, each of `new` tokens."""
    asked_of = [Prompt(row, 0, (row, *range(1, length))) for row, length in enumerate(prompts)]
    writer = Writer(model, frozenset())
    with judging(weights_of(model)) as held:
        write_answers(writer, asked_of, sampling.model_copy(update={"max_new_tokens": new}), Draws(0, 0))
    return held
