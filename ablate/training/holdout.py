"""What a finished training says of rows that it never saw, the same whatever it minimised."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from ablate.data.tokens import TokenRows
from ablate.losses.forward_kl import ForwardKL
from ablate.losses.reverse_kl import ReverseKL
from ablate.training import batches
from ablate.training.batches import Cutting, MicroBatch
from ablate.training.logits_loss import blocks
from ablate.training.loss import Objective, Scratch, chunks
from ablate.training.model_parts import ModelParts
from ablate.training.ranks import ONE, Ranks
from ablate.training.teacher_outputs import TeacherHidden, TeachersHidden
from ablate.training.teacher_top_k import divergence

# C tokens of a chunk, N of a block of it, V vocabulary

AskTeacher: TypeAlias = Callable[[MicroBatch], TeacherHidden | TeachersHidden]
LOSSES = ("class_loss", "forward_kl", "reverse_kl", "teacher_entropy")
"""What is recorded; without a teacher the first alone."""


@torch.no_grad()
def holdout_losses(
    student: ModelParts,
    rows: TokenRows,
    budget: int,
    device: str,
    ask: AskTeacher | None,
    by: Cutting | None = None,
    ranks: Ranks = ONE,
    scratch: Scratch | None = None,
) -> Mapping[str, float]:
    """-> means over the loss-bearing tokens, at temperature 1, in nats; the student is put in eval mode for good.

    `class_loss`; with a teacher `forward_kl`, `reverse_kl` and `teacher_entropy` too.
    """
    student.model.eval()
    cutting, memory = by or student.cutting, scratch or Scratch()

    def sums_of(chosen: Sequence[int]) -> list[list[float]]:
        """-> of each chunk, in the order of LOSSES."""
        batch = batches.batch(rows, chosen, is_packed=cutting.is_packed).to(device)
        hidden_MD = student.hidden(batch)
        teacher = ask(batch) if ask else None
        sums = []
        for tokens in chunks(hidden_MD, student.head.vocabulary, memory.logit_bytes):
            teacher_CV = teacher.logits(tokens, memory) if teacher else None
            losses = _losses(student.head.logits(hidden_MD[tokens]), batch.labels_M[tokens], teacher_CV)
            sums.append(torch.stack([loss_C.sum(dtype=torch.float64) for loss_C in losses]))
        return list(torch.stack(sums).tolist())

    cuts = batches.cut(rows, range(len(rows)), budget, cutting)
    by_chunk = [of_chunk for of_batch in ranks.spread(cuts, sums_of) for of_chunk in of_batch]
    totals = map(sum, zip(*by_chunk, strict=True))
    return {name: total / rows.counts.loss_tokens for name, total in zip(LOSSES, totals, strict=False)}


@torch.no_grad()
def objective_loss(
    objective: Objective,
    student: ModelParts,
    rows: TokenRows,
    budget: int,
    device: str,
    ask: AskTeacher,
    by: Cutting,
    ranks: Ranks,
    scratch: Scratch,
) -> float:
    """-> the mean over loss-bearing tokens of what a distillation minimises on rows of the data, no weight moved."""
    ratio, heat = objective.kd_ratio, objective.temperature

    def sums_of(chosen: Sequence[int]) -> list[float]:
        """-> of each chunk."""
        batch = batches.batch(rows, chosen, is_packed=by.is_packed).to(device)
        hidden_MD, teacher = student.hidden(batch), ask(batch)
        sums = []
        for tokens in chunks(hidden_MD, student.head.vocabulary, scratch.logit_bytes):
            student_CV = student.head.logits(hidden_MD[tokens])
            class_C = _class_loss(student_CV, batch.labels_M[tokens])
            kd_C = class_C.new_zeros(())
            for weight, teacher_CV in teacher.weighted(tokens, heat, scratch):
                parts = [
                    divergence(objective, student_CV[n] / heat, teacher_CV[n], hidden_MD.dtype)
                    for n in blocks(student_CV)
                ]
                kd_C = kd_C + weight * torch.cat(parts)
            sums.append(((1 - ratio) * class_C + objective.kd_weight * kd_C).sum(dtype=torch.float64))
        return list(torch.stack(sums).tolist())

    cuts = batches.cut(rows, range(len(rows)), budget, by)
    total = sum(of_chunk for of_batch in ranks.spread(cuts, sums_of) for of_chunk in of_batch)
    return total / max(1, rows.counts.loss_tokens)


def _class_loss(student_CV: Tensor, labels_C: Tensor) -> Tensor:
    cross_entropy = torch.nn.functional.cross_entropy
    return torch.cat([cross_entropy(student_CV[n], labels_C[n], reduction="none") for n in blocks(student_CV)])


def _losses(student_CV: Tensor, labels_C: Tensor, teacher_CV: Tensor | None) -> list[Tensor]:
    """-> in the order of LOSSES, without a teacher the first alone."""
    class_C = _class_loss(student_CV, labels_C)
    if teacher_CV is None:
        return [class_C]
    parts = [_against(student_CV[n], teacher_CV[n]) for n in blocks(student_CV)]
    return [class_C, *map(torch.cat, zip(*parts, strict=True))]


def _against(student_NV: Tensor, teacher_NV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """-> both KLs and the teacher's entropy, of the rows of a block."""
    entropy_N = torch.special.entr(teacher_NV.softmax(1)).sum(1)
    return ForwardKL()(student_NV, teacher_NV), ReverseKL()(student_NV, teacher_NV), entropy_N
