"""The teacher's answers, asked once and for all: in shards that a killed capture goes on from."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from ablate import disk
from ablate.data.tokens import TokenRows, mapped
from ablate.engine import batches
from ablate.engine.loss import Vectors, chunks
from ablate.engine.split import Head, Split, expectation
from ablate.engine.vectors import INDEX, Part, head_digest, starts, weight_of
from ablate.errors import Interrupted, StageError
from ablate.job import Job

# M loss-bearing tokens, C of them in one chunk, D the student's hidden width, V vocabulary

SHARD_ROWS = 512
SHARD_BYTES = 2**28
CHECKPOINT_EVERY_S = 300.0
NUM_COMPARED = 8
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 2e-1}
"""Relative, between a row captured beside others and the same row alone: kernels round differently."""


class Shard(NamedTuple):
    """Rows whose tokens lie end to end in one file."""

    part: Part
    name: str
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Capture:
    """All that a cache consists of."""

    teacher: Split
    head: Head
    """The student's."""
    temperature: float
    parts: Mapping[Part, TokenRows]
    read: Mapping[Part, Sequence[int]]
    """Which rows are wanted of each part."""

    @property
    def shards(self) -> tuple[Shard, ...]:
        return tuple(shard for part in self.parts for shard in self._shards(part))

    def _shards(self, part: Part) -> Iterator[Shard]:
        num_loss, width = self.parts[part].num_loss, weight_of(self.head).shape[1] * 4
        rows: list[int] = []
        number = num_bytes = 0
        for row in sorted(row for row in self.read[part] if num_loss[row]):
            if rows and (len(rows) == SHARD_ROWS or num_bytes + num_loss[row] * width > SHARD_BYTES):
                yield Shard(part, f"{part}-{number:05}.safetensors", tuple(rows))
                rows, num_bytes, number = [], 0, number + 1
            rows.append(row)
            num_bytes += int(num_loss[row]) * width
        if rows:
            yield Shard(part, f"{part}-{number:05}.safetensors", tuple(rows))


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
        save_file(arrays, job.out / shard.name)
        if number < len(shards) and (job.is_stopping() or time.monotonic() - saved_at > CHECKPOINT_EVERY_S):
            _save(job, number)
            saved_at = time.monotonic()
            job.stop_if_asked()
    _compare(job, made, shards)
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


def _fitting(job: Job, made: Capture, shard: Shard, budget: int, told: _Told) -> tuple[dict[str, Any], int]:
    """A shard's arrays; out of memory, it is begun again with half the tokens a micro-batch. -> the budget too."""
    done = told.done
    while True:
        try:
            return _arrays(job, made, shard, budget, told), budget
        except torch.OutOfMemoryError as error:
            if all(len(cut) == 1 for cut in batches.cut(made.parts[shard.part], shard.rows, budget)):
                raise StageError("out of memory with one row at a time: a card with more memory", "oom") from error
        told.done, budget = done, budget // 2
        torch.cuda.empty_cache()


def _arrays(job: Job, made: Capture, shard: Shard, budget: int, told: _Told) -> dict[str, Any]:
    rows = made.parts[shard.part]
    begins = starts(rows, shard.rows)
    width = weight_of(made.head).shape[1]
    num = _num_tokens(made, shard)
    dtype = torch.promote_types(weight_of(made.head).dtype, torch.float32)
    vector_MD, entropy_M = np.empty((num, width), _NUMPY[dtype]), np.empty(num, np.float64)
    for batch in batches.micro_batches(rows, shard.rows, budget, job.device):
        found = answers(made, batch)
        begin = 0
        for row in batch.rows:
            into, end = slice(begins[row], begins[row] + int(rows.num_loss[row])), begin + int(rows.num_loss[row])
            vector_MD[into] = found.vector_MD[begin:end].cpu().numpy()
            entropy_M[into] = found.entropy_M[begin:end].cpu().numpy()
            begin = end
        told.more(begin)
        job.stop_if_asked()
    if not (np.isfinite(vector_MD).all() and np.isfinite(entropy_M).all()):
        raise StageError("the teacher's answers are not finite; is the dtype too narrow for it?")
    return {"vector": vector_MD, "entropy": entropy_M}


_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


@torch.no_grad()
def answers(made: Capture, batch: batches.MicroBatch) -> Vectors:
    """-> what the live teacher says of a micro-batch."""
    hidden_MD = made.teacher.hidden(batch.ids_BT, batch.positions_M)
    weight_VD = weight_of(made.head).detach()[: made.head.vocabulary]
    parts = [_of_chunk(made, hidden_MD[chunk], weight_VD) for chunk in chunks(hidden_MD, made.head.vocabulary)]
    return Vectors(torch.cat([part.vector_MD for part in parts]), torch.cat([part.entropy_M for part in parts]))


def _of_chunk(made: Capture, hidden_CD: Tensor, weight_VD: Tensor) -> Vectors:
    """H(p) = lse(z/T) - sum_v p z/T."""
    logits_CV = made.teacher.head.logits(hidden_CD).div_(made.temperature)
    logits_CV -= logits_CV.amax(1, keepdim=True)
    p_CV = logits_CV.exp()
    total_C1 = p_CV.sum(1, keepdim=True)
    p_CV /= total_C1
    entropy_C = total_C1.squeeze(1).double().log() - torch.linalg.vecdot(p_CV, logits_CV).double()
    return Vectors(expectation(p_CV, weight_VD), entropy_C)


def _compare(job: Job, made: Capture, shards: Sequence[Shard]) -> None:
    """Asks the teacher once more about one row of some shards, alone."""
    dtype = next(made.teacher.model.parameters()).dtype
    for shard in shards[:: max(1, math.ceil(len(shards) / NUM_COMPARED))]:
        rows, row = made.parts[shard.part], shard.rows[len(shard.rows) // 2]
        begin = starts(rows, shard.rows)[row]
        kept = mapped(job.out / shard.name)["vector"][begin : begin + int(rows.num_loss[row])]
        again = answers(made, batches.batch(rows, [row]).to(job.device)).vector_MD.cpu().numpy()
        difference = float(np.linalg.norm(again - kept) / np.linalg.norm(again))
        if not difference <= TOLERANCE[dtype]:
            raise StageError(
                f"row {row} of {shard.name}, asked of the teacher once more, differs by {difference:.1e} of its norm"
                f" ({TOLERANCE[dtype]:.0e} is expected of {dtype}): the cache would not stand for the teacher"
            )


def _index(made: Capture, shards: Sequence[Shard]) -> dict[str, Any]:
    return {
        "form": "vector",
        "temperature": made.temperature,
        "head": head_digest(made.head),
        "width": weight_of(made.head).shape[1],
        "rows": {part: rows.digest() for part, rows in made.parts.items()},
        "shards": [
            {"part": shard.part, "file": shard.name, "rows": list(shard.rows), "tokens": _num_tokens(made, shard)}
            for shard in shards
        ],
    }


def refuse(job: Job, why: str) -> None:
    """Leaves a cache of nothing that says why: its distillations then ask the teacher themselves."""
    job.notes["no cache"] = why
    disk.write_json(job.out / INDEX, {"form": None, "why": why, "shards": []})
