"""The teacher's answers, asked once and for all: in shards that a killed capture goes on from."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from ablate.core import disk
from ablate.core.errors import Interrupted, StageError
from ablate.data.tokens import TokenRows
from ablate.store.job import Job
from ablate.training import batches, files
from ablate.training.loss import chunks
from ablate.training.model_parts import Head, ModelParts, expectation
from ablate.training.teacher_outputs import HEAD, INDEX, Form, Part, head_digest, starts, weight_of

# M loss-bearing tokens, C of them in one chunk, D hidden width (of a vector the student's), V vocabulary

SHARD_ROWS = 512
SHARD_BYTES = 2**28
CHECKPOINT_EVERY_S = 300.0
NUM_COMPARED = 8
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 2e-1}
"""Relative, between a row captured beside others and the same row alone: kernels round differently."""


class Shard(NamedTuple):
    """Rows whose tokens lie end to end in one file."""

    part: Part
    form: Form
    name: str
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Vector:
    """What vectors are made for."""

    head: Head
    """The student's."""
    temperature: float


@dataclass(frozen=True, eq=False)
class Capture:
    """All that a cache consists of."""

    made_by: Sequence[str]
    """Names of the stages that made the teacher."""
    dtype: str
    teacher: ModelParts
    vector: Vector | None
    """None: hidden states are kept, of which every divergence can be made."""
    parts: Mapping[Part, TokenRows]
    read: Mapping[Part, Sequence[int]]
    """Which rows are wanted of each part."""

    @property
    def forms(self) -> Mapping[Part, Form | None]:
        """Held-out rows are asked for every divergence, so that runs with different losses can be compared."""
        hidden: Form | None = None if self.teacher.head.weight is None else "hidden"
        return {"train": "vector" if self.vector else hidden, "holdout": hidden}

    @property
    def shards(self) -> tuple[Shard, ...]:
        return tuple(shard for part, form in self.forms.items() if form for shard in self._shards(part, form))

    def arrays(self, form: Form, num: int) -> dict[str, Tensor]:
        """-> where the answers about `num` tokens go, by name."""
        if form == "hidden":
            dtype = next(self.teacher.model.parameters()).dtype
            return {"hidden": torch.empty(num, weight_of(self.teacher.head).shape[1], dtype=dtype)}
        weight_VD = weight_of(self.vector.head)  # type: ignore[union-attr]
        dtype = torch.promote_types(weight_VD.dtype, torch.float32)
        return {
            "vector": torch.empty(num, weight_VD.shape[1], dtype=dtype),
            "entropy": torch.empty(num, dtype=torch.float64),
        }

    def _shards(self, part: Part, form: Form) -> Iterator[Shard]:
        num_loss, width = self.parts[part].num_loss, sum(array.nbytes for array in self.arrays(form, 1).values())
        rows: list[int] = []
        number = num_bytes = 0
        for row in sorted(row for row in self.read[part] if num_loss[row]):
            if rows and (len(rows) == SHARD_ROWS or num_bytes + num_loss[row] * width > SHARD_BYTES):
                yield Shard(part, form, f"{part}-{number:05}.safetensors", tuple(rows))
                rows, num_bytes, number = [], 0, number + 1
            rows.append(row)
            num_bytes += int(num_loss[row]) * width
        if rows:
            yield Shard(part, form, f"{part}-{number:05}.safetensors", tuple(rows))


def capture(job: Job, made: Capture) -> None:
    """Writes every shard to `job.out`, going on from the latest checkpoint, then the index.

    Raises StageError when some rows, asked of the teacher once more, get another answer; Interrupted when asked to
    stop (a checkpoint saved).
    """
    shards = made.shards
    num_done = _restore(job)
    total = sum(_num_tokens(made, shard) for shard in shards)
    told = _Told(job, sum(_num_tokens(made, shard) for shard in shards[:num_done]), total)
    budget, saved_at = batches.first_budget(None, job.device), time.monotonic()
    for number, shard in enumerate(shards[num_done:], num_done + 1):
        try:
            arrays, budget = _fitting(job, made, shard, budget, told)
        except Interrupted:
            if number > 1:
                _save(job, number - 1)
            raise
        files.save(arrays, job.out / shard.name)
        if number < len(shards) and (job.is_stopping() or time.monotonic() - saved_at > CHECKPOINT_EVERY_S):
            _save(job, number)
            saved_at = time.monotonic()
            job.stop_if_asked()
    _compare(job, made, shards)
    if any(shard.form == "hidden" for shard in shards):
        _save_head(made.teacher.head, job.out / HEAD)
    disk.write_json(job.out / INDEX, _index(made, shards))


@dataclass
class _Told:
    job: Job
    done: int
    total: int

    def more(self, num: int) -> None:
        self.done += num
        self.job.progress(self.done, self.total, "token")


def _num_tokens(made: Capture, shard: Shard) -> int:
    return int(made.parts[shard.part].num_loss[list(shard.rows)].sum())


def _restore(job: Job) -> int:
    """-> how many shards an earlier attempt left, brought to `job.out`."""
    latest = job.checkpoints.latest()
    if latest is None:
        return 0
    for path in latest[1].glob("*.safetensors"):
        disk.unlink(job.out / path.name)
        disk.link(path, job.out / path.name)
    return latest[0]


def _save(job: Job, number: int) -> None:
    def write(folder: Path) -> None:
        for path in job.out.glob("*.safetensors"):
            disk.link(path, folder / path.name)

    job.checkpoints.save(number, write)


def _fitting(job: Job, made: Capture, shard: Shard, budget: int, told: _Told) -> tuple[dict[str, Tensor], int]:
    """A shard's arrays; out of memory, it is begun again with half the tokens a micro-batch. -> the budget too."""
    done = told.done
    while True:
        try:
            return _arrays(job, made, shard, budget, told), budget
        except torch.OutOfMemoryError as error:
            if all(
                len(cut) == 1 for cut in batches.cut(made.parts[shard.part], shard.rows, budget, made.teacher.cutting)
            ):
                raise StageError("out of memory with one row at a time: a card with more memory", "oom") from error
        told.done, budget = done, budget // 2
        job.notes["out of memory"] = f"{shard.name}: micro-batches halved to {budget} tokens"
        torch.cuda.empty_cache()


def _arrays(job: Job, made: Capture, shard: Shard, budget: int, told: _Told) -> dict[str, Tensor]:
    rows = made.parts[shard.part]
    begins = starts(rows, shard.rows)
    arrays = made.arrays(shard.form, _num_tokens(made, shard))
    for batch in batches.micro_batches(rows, shard.rows, budget, job.device, made.teacher.cutting):
        sizes = [int(rows.num_loss[row]) for row in batch.rows]
        for name, found in answers(made, shard.form, batch).items():
            for row, of_row in zip(batch.rows, torch.split(found, sizes), strict=True):
                arrays[name][begins[row] : begins[row] + len(of_row)] = of_row
        told.more(sum(sizes))
        job.stop_if_asked()
    if not all(array.isfinite().all() for array in arrays.values()):
        raise StageError("the teacher's answers are not finite; is the dtype too narrow for it?")
    return arrays


@torch.no_grad()
def answers(made: Capture, form: Form, batch: batches.MicroBatch) -> dict[str, Tensor]:
    """-> what the live teacher says of a micro-batch, in the arrays of a form."""
    hidden_MD = made.teacher.hidden(batch.ids_BT, batch.positions_M)
    if form == "hidden":
        return {"hidden": hidden_MD.cpu()}
    vector: Vector = made.vector  # type: ignore[assignment]
    found = [_of_chunk(made.teacher.head, vector, hidden_MD[c]) for c in chunks(hidden_MD, vector.head.vocabulary)]
    return {name: torch.cat([of[name] for of in found]).cpu() for name in found[0]}


def _of_chunk(teacher: Head, vector: Vector, hidden_CD: Tensor) -> dict[str, Tensor]:
    """H(p) = lse(z/T) - sum_v p z/T."""
    logits_CV = teacher.logits(hidden_CD).div_(vector.temperature)
    logits_CV -= logits_CV.amax(1, keepdim=True)
    p_CV = logits_CV.exp()
    total_C1 = p_CV.sum(1, keepdim=True)
    p_CV /= total_C1
    entropy_C = total_C1.squeeze(1).double().log() - torch.linalg.vecdot(p_CV, logits_CV).double()
    return {"vector": expectation(p_CV, weight_of(vector.head)), "entropy": entropy_C}


def _compare(job: Job, made: Capture, shards: Sequence[Shard]) -> None:
    """Asks the teacher once more about one row of some shards, alone."""
    dtype = next(made.teacher.model.parameters()).dtype
    for shard in shards[:: max(1, math.ceil(len(shards) / NUM_COMPARED))]:
        rows, row = made.parts[shard.part], shard.rows[len(shard.rows) // 2]
        begin = starts(rows, shard.rows)[row]
        kept = load_file(job.out / shard.name)[shard.form][begin : begin + int(rows.num_loss[row])].float()
        again = answers(made, shard.form, batches.batch(rows, [row]).to(job.device))[shard.form].float()
        difference = float((again - kept).norm() / again.norm())
        if not difference <= TOLERANCE[dtype]:
            raise StageError(
                f"row {row} of {shard.name}, asked of the teacher once more, differs by {difference:.1e} of its norm"
                f" ({TOLERANCE[dtype]:.0e} is expected of {dtype}): the cache would not stand for the teacher"
            )


def _save_head(head: Head, path: Path) -> None:
    narrow = torch.bfloat16 if head.is_bfloat16 else weight_of(head).dtype
    tensors = {"weight": weight_of(head).to(narrow)}
    if head.bias is not None:
        tensors["bias"] = head.bias.detach()[: head.vocabulary]
    files.save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)


def _index(made: Capture, shards: Sequence[Shard]) -> dict[str, Any]:
    forms = {shard.form for shard in shards}
    of_vectors = {"temperature": made.vector.temperature, "head": head_digest(made.vector.head)} if made.vector else {}
    return of_vectors | {
        "form": made.forms["train"],
        "holdout": made.forms["holdout"],
        "teacher": list(made.made_by),
        "dtype": made.dtype,
        "teacher_head": {"scale": made.teacher.head.scale, "softcap": made.teacher.head.softcap},
        "widths": {form: {name: list(of.shape[1:]) for name, of in made.arrays(form, 1).items()} for form in forms},
        "rows": {part: rows.digest() for part, rows in made.parts.items()},
        "shards": [
            {
                "part": shard.part,
                "form": shard.form,
                "file": shard.name,
                "rows": list(shard.rows),
                "tokens": _num_tokens(made, shard),
            }
            for shard in shards
        ],
    }


def refuse(job: Job, why: str) -> None:
    """Leaves a cache of nothing that says why: its distillations then ask the teacher themselves."""
    job.notes["no cache"] = why
    disk.write_json(job.out / INDEX, {"form": None, "why": why, "shards": []})
