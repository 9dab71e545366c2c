"""The teacher's outputs, asked for once and for all: in shards that a killed capture goes on from."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ablate.core import disk
from ablate.core.errors import Interrupted, StageError
from ablate.store.job import Job
from ablate.training import batches, files
from ablate.training.capture_plan import CapturePlan, Shard, TopKTarget, VectorTarget
from ablate.training.card_room import asked_memory, forward_budget
from ablate.training.head import Head, expectation
from ablate.training.loss import chunks
from ablate.training.ranks import ranks_of
from ablate.training.shard_writer import FillingShard, ShardWriter
from ablate.training.teacher_cache import (
    HEAD,
    INDEX,
    OutputForm,
    head_digest,
    read_row,
    row_places,
    token_offsets,
    vocabulary_weight,
)
from ablate.training.teacher_top_k import cut_logits, kept_dtype

# M loss-bearing tokens, C of them in one chunk, D hidden width (of a vector the student's), V vocabulary

CHECKPOINT_EVERY_S = 300.0
NUM_COMPARED = 8
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 2e-1}
"""Relative, between a row captured beside others and the same row alone: kernels round differently."""


def capture_teacher(job: Job, plan: CapturePlan) -> None:
    """Writes every shard to `job.out`, going on from the latest checkpoint, then the index.

    Of several ranks each writes some of the shards, which are the same however many there are. Raises StageError when
    some rows, asked of the teacher once more, get another answer; Interrupted when asked to stop (a checkpoint saved).
    """
    shards, done = plan.shards, _restore_shards(job)
    num_done = sum(plan.num_tokens(shard) for shard in shards if shard.name in done)
    progress = _TokenProgress(job, num_done, sum(plan.num_tokens(shard) for shard in shards))
    with ShardWriter(done) as writer:
        _write_shards(job, plan, [shard for shard in shards if shard.name not in done], progress, writer)
    if not job.is_first:
        return
    _require_same_again(job, plan, shards)
    if any(shard.form == "hidden" for shard in shards):
        _save_head(plan.teacher.head, job.out / HEAD)
    disk.write_json(job.out / INDEX, _index(plan, shards))


def _write_shards(
    job: Job, plan: CapturePlan, shards: Sequence[Shard], progress: "_TokenProgress", writer: ShardWriter
) -> None:
    """Those that are left, a round of them at a time, one a rank; all ranks agree on when a checkpoint is saved."""
    ranks = ranks_of(job)
    budget, saved_at = capture_budget(job.device, plan), time.monotonic()
    for begin in range(0, len(shards), ranks.size):
        of_round = shards[begin : begin + ranks.size]
        stopped: Interrupted | None = None
        for shard in of_round[ranks.rank : ranks.rank + 1]:
            try:
                filled, budget = _filled_fitting(job, plan, shard, budget, progress)
                writer.write(filled, job.out / shard.name)
            except Interrupted as error:
                stopped = error
        heard = ranks.gather((time.monotonic() - saved_at > CHECKPOINT_EVERY_S, stopped))
        is_due, stopped = heard[0][0], next((one for _, one in heard if one), None)
        progress.others([shard for rank, shard in enumerate(of_round) if rank != ranks.rank], plan)
        if stopped or (of_round[-1] is not shards[-1] and (is_due or job.is_stopping())):
            _save_shards(job, writer)
            saved_at = time.monotonic()
            if stopped:
                raise stopped
            job.stop_if_asked()
    writer.wait()
    ranks.gather(None)


def capture_budget(device: str, plan: CapturePlan) -> int:
    """-> tokens a micro-batch."""
    longest = max((int(rows.lengths.max()) for rows in plan.splits.values() if len(rows)), default=1)
    budgets = []
    for form in {form for form in plan.forms.values() if form}:
        memory = asked_memory(plan.teacher, form, plan.token_bytes(form))
        needed = partial(memory.at, row=longest) if memory else None
        budgets.append(forward_budget(device, longest, needed, batches.CPU_ROWS_BUDGET))
    return min(budgets)


@dataclass
class _TokenProgress:
    job: Job
    done: int
    total: int

    def more(self, num: int) -> None:
        self.done += num
        self.job.progress(self.done, self.total, "token")

    def others(self, shards: Sequence[Shard], plan: CapturePlan) -> None:
        """What other ranks have done meanwhile."""
        if shards:
            self.more(sum(map(plan.num_tokens, shards)))


def _restore_shards(job: Job) -> frozenset[str]:
    """-> which shards an earlier attempt left, brought to `job.out`."""
    latest = job.checkpoints.latest()
    left = sorted(latest[1].glob("*.safetensors")) if latest else []
    for path in left if job.is_first else ():
        disk.unlink(job.out / path.name)
        disk.link(path, job.out / path.name)
    ranks_of(job).gather(None)
    return frozenset(path.name for path in left)


def _save_shards(job: Job, writer: ShardWriter) -> None:
    """Those that each rank has whole on the disk; what lies beside them in `job.out` may be half a shard."""
    writer.wait()
    done = sorted(set().union(*ranks_of(job).gather(writer.names)))
    if not done:
        return

    def write(folder: Path) -> None:
        for name in done:
            disk.link(job.out / name, folder / name)

    job.checkpoints.save(len(done), write)


def _filled_fitting(
    job: Job, plan: CapturePlan, shard: Shard, budget: int, progress: _TokenProgress
) -> tuple[FillingShard, int]:
    """A shard's tensors; out of memory, it is begun again with half the tokens a micro-batch. -> the budget too."""
    done = progress.done
    while True:
        try:
            return _filled(job, plan, shard, budget, progress), budget
        except torch.OutOfMemoryError as error:
            if all(
                len(cut) == 1 for cut in batches.cut(plan.splits[shard.split], shard.rows, budget, plan.teacher.cutting)
            ):
                raise StageError("out of memory with one row at a time: a card with more memory", "oom") from error
        progress.done, budget = done, budget // 2
        job.notes["out of memory"] = f"{shard.name}: micro-batches halved to {budget} tokens"
        torch.cuda.empty_cache()


def _filled(job: Job, plan: CapturePlan, shard: Shard, budget: int, progress: _TokenProgress) -> FillingShard:
    rows = plan.splits[shard.split]
    begins = token_offsets(rows, shard.rows)
    filling = FillingShard(plan.empty_tensors(shard.form, plan.num_tokens(shard)), job.device)
    for batch in batches.micro_batches(rows, shard.rows, budget, job.device, plan.teacher.cutting):
        sizes = [int(rows.num_loss[row]) for row in batch.rows]
        _put(filling, captured_tensors(plan, shard.form, batch), [begins[row] for row in batch.rows], sizes)
        progress.more(sum(sizes))
        job.stop_if_asked()
    return filling


def _put(filling: FillingShard, tensors: Mapping[str, Tensor], begins: Sequence[int], sizes: list[int]) -> None:
    """Copies what was said of some rows to their places, and lets go of it."""
    for name, captured in tensors.items():
        filling.check(captured)
        for begin, of_row in zip(begins, torch.split(captured, sizes), strict=True):
            filling.put(name, begin, of_row)


@torch.no_grad()
def captured_tensors(plan: CapturePlan, form: OutputForm, batch: batches.MicroBatch) -> dict[str, Tensor]:
    """-> what the live teacher says of a micro-batch, by their names in a form."""
    hidden_MD = plan.teacher.hidden(batch)
    if form == "hidden":
        return {"hidden": hidden_MD}
    target, whole = plan.target, dict[str, Tensor]()
    assert target is not None
    head = plan.teacher.head if isinstance(target, TopKTarget) else target.head
    for tokens in chunks(hidden_MD, head.vocabulary):
        for name, of_chunk in _of_chunk(plan.teacher.head, target, hidden_MD[tokens]).items():
            if name not in whole:  # in one piece from the first chunk on, so that no two copies stand side by side
                whole[name] = of_chunk.new_empty(len(hidden_MD), *of_chunk.shape[1:])
            whole[name][tokens] = of_chunk
    return whole


def _of_chunk(teacher: Head, target: VectorTarget | TopKTarget, hidden_CD: Tensor) -> dict[str, Tensor]:
    if isinstance(target, TopKTarget):
        return _top_k_of_chunk(teacher, target, hidden_CD)
    return _vectors_of_chunk(teacher, target, hidden_CD)


def _top_k_of_chunk(teacher: Head, target: TopKTarget, hidden_CD: Tensor) -> dict[str, Tensor]:
    logits_CV = teacher.logits(hidden_CD)
    return cut_logits(logits_CV, target.k, target.temperature, kept_dtype(hidden_CD.dtype))._asdict()


def _vectors_of_chunk(teacher: Head, target: VectorTarget, hidden_CD: Tensor) -> dict[str, Tensor]:
    """Those of p = softmax(z/T): c = p W, and H(p) = lse(z/T) - sum_v p z/T."""
    logits_CV = teacher.logits(hidden_CD).div_(target.temperature)
    logits_CV -= logits_CV.amax(1, keepdim=True)
    p_CV = logits_CV.exp()
    total_C1 = p_CV.sum(1, keepdim=True)
    p_CV /= total_C1
    entropy_C = total_C1.squeeze(1).double().log() - torch.linalg.vecdot(p_CV, logits_CV).double()
    return {"vector": expectation(p_CV, vocabulary_weight(target.head)), "entropy": entropy_C}


def _require_same_again(job: Job, plan: CapturePlan, shards: Sequence[Shard]) -> None:
    """Asks the teacher once more about one row of some shards, alone."""
    dtype = next(plan.teacher.model.parameters()).dtype
    for shard in shards[:: max(1, math.ceil(len(shards) / NUM_COMPARED))]:
        rows, row = plan.splits[shard.split], shard.rows[len(shard.rows) // 2]
        place = row_places(rows, shard.name, shard.rows)[row]
        name = "logp_Mk" if shard.form == "top_k" else shard.form
        captured = read_row(job.out, place)[name].float()
        again = captured_tensors(plan, shard.form, batches.batch(rows, [row]).to(job.device))[name].cpu().float()
        difference = float((again - captured).norm() / again.norm())
        if not difference <= TOLERANCE[dtype]:
            raise StageError(
                f"row {row} of {shard.name}, asked of the teacher once more, differs by {difference:.1e} of its norm"
                f" ({TOLERANCE[dtype]:.0e} is expected of {dtype}): the cache would not stand for the teacher"
            )


def _save_head(head: Head, path: Path) -> None:
    narrow = torch.bfloat16 if head.is_bfloat16 else vocabulary_weight(head).dtype
    tensors = {"weight": vocabulary_weight(head).to(narrow)}
    if head.bias is not None:
        tensors["bias"] = head.bias.detach()[: head.vocabulary]
    files.save(tensors, path)


def _index(plan: CapturePlan, shards: Sequence[Shard]) -> dict[str, Any]:
    forms = {shard.form for shard in shards}
    return _of_target(plan.target) | {
        "form": plan.forms["train"],
        "holdout": plan.forms["holdout"],
        "teacher": list(plan.made_by),
        "dtype": plan.dtype,
        "teacher_head": {"scale": plan.teacher.head.scale, "softcap": plan.teacher.head.softcap},
        "widths": {
            form: {name: list(tensor.shape[1:]) for name, tensor in plan.empty_tensors(form, 1).items()}
            for form in forms
        },
        "rows": {split: rows.digest() for split, rows in plan.splits.items()},
        "shards": [
            {
                "part": shard.split,
                "form": shard.form,
                "file": shard.name,
                "rows": list(shard.rows),
                "tokens": plan.num_tokens(shard),
            }
            for shard in shards
        ],
    }


def _of_target(target: VectorTarget | TopKTarget | None) -> dict[str, Any]:
    if target is None:
        return {}
    if isinstance(target, TopKTarget):
        return target._asdict()
    return {"temperature": target.temperature, "head": head_digest(target.head)}


def write_empty_cache(job: Job, why: str) -> None:
    """Leaves a cache of nothing that says why: its distillations then ask the teacher themselves."""
    job.notes["no cache"] = why
    disk.write_json(job.out / INDEX, {"form": None, "why": why, "shards": []})
