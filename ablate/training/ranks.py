"""The processes that share a stage's rows, one a card: what they say to each other.

Every rank runs the same code over the same rows and takes its share where a `Ranks` is asked; the first alone writes.
What one rank alone knows (its clock, a signal, out of memory) is agreed on before anything hangs on it: else one would
wait for a word that no other gives.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from ablate.core.errors import RankLost, StageError
from ablate.data.tokens import TokenRows
from ablate.store.job import Job

T = TypeVar("T")
R = TypeVar("R")

LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
"""No port is open to another machine."""
LONGEST_WAIT = timedelta(days=1)
"""Of one rank for another: a supervisor ends a stage that stands still long before."""
BUCKET_ELEMENTS = 2**24
"""Summed at once: gradients are copied side by side first."""


class Ranks:
    """One process alone, which has nobody to ask; `SharingRanks` are several."""

    rank = 0
    size = 1
    is_in_step = False
    """Whether each forward pass is all ranks' together, as of a model whose weights they share (see `sharding`)."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def passing(self) -> contextlib.AbstractContextManager[None]:
        """While a model is run: out of memory, this rank cannot begin anew where the others are in the same pass.

        What they would gather from it then were weights of another layer: numbers that are wrong and look right.
        """
        return others_waiting() if self.is_in_step else contextlib.nullcontext()

    def gather(self, value: T) -> list[T]:
        """-> what every rank has, in their order, on every rank.

        Raises RankLost where one has ended, StageError (oom) where this one has no memory for it.
        """
        return [value]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Each of them becomes its sum over the ranks, to the last bit the same on each."""

    def spread(self, items: Sequence[T], work: Callable[[T], R]) -> list[R]:
        """-> `work` of every item, in their order, on every rank; each rank does every `size`-th.

        Raises torch.OutOfMemoryError on every rank where one has run out of memory, but StageError (oom) on that one
        alone where each pass is all ranks' together.
        """
        with self.passing():
            return [work(item) for item in items]

    def rounds(self, items: Sequence[T], work: Callable[[T], R]) -> Iterator[R]:
        """`spread`, as many items at a time as there are ranks: all hear of each result soon after it is there."""
        for begin in range(0, len(items), self.size):
            yield from self.spread(items[begin : begin + self.size], work)


ONE = Ranks()


class SharingRanks(Ranks):
    """One of several processes, in torch's default group."""

    def __init__(self, rank: int, size: int, is_asked: Callable[[], bool]) -> None:
        """`is_asked`: whether this process was asked to stop; the first one's word counts."""
        self.rank, self.size = rank, size
        self.is_stopping = False
        """Whether the first rank had been asked to stop when all last heard of each other: the same on all."""
        self._is_asked = is_asked

    def gather(self, value: T) -> list[T]:
        heard: list[Any] = [None] * self.size
        with _telling_losses():
            dist.all_gather_object(heard, (value, self._is_asked()))
        self.is_stopping = heard[0][1]
        return [value for value, _ in heard]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            with _telling_losses():
                dist.all_reduce(flat)
            for tensor, total in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def spread(self, items: Sequence[T], work: Callable[[T], R]) -> list[R]:
        if self.is_in_step:
            return super().spread(items, work)
        gathered = self.gather(_done_or_none(items[self.rank :: self.size], work))
        shares = [share for share in gathered if share is not None]
        if len(shares) < self.size:
            raise torch.OutOfMemoryError("out of memory on a card of the stage")
        return [shares[number % self.size][number // self.size] for number in range(len(items))]


def _done_or_none(items: Sequence[T], work: Callable[[T], R]) -> list[R] | None:
    """-> None: out of memory."""
    try:
        return [work(item) for item in items]
    except torch.OutOfMemoryError:
        return None


@contextlib.contextmanager
def others_waiting() -> Iterator[None]:
    """What one rank has no memory for while others wait for it ends the stage: they could not begin anew with it.

    Raises StageError (oom).
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise StageError(
            "out of memory on one of the stage's cards while the others waited for it: set micro_batch_tokens lower,"
            " or give the stage cards with more memory",
            "oom",
        ) from error


@contextlib.contextmanager
def _telling_losses() -> Iterator[None]:
    """What fails between the ranks, fails because one is gone: the others are not to blame. But for out of memory."""
    try:
        with others_waiting():
            yield
    except RuntimeError as error:
        raise RankLost(f"a process of the stage no longer answers: {str(error).splitlines()[0]}") from error


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """-> tensors of one dtype that are summed together."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        is_full = sum(one.numel() for one in bucket) + tensor.numel() > BUCKET_ELEMENTS
        if bucket and (is_full or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


_joined: list[SharingRanks] = []
"""One at most, as torch's default group is one a process."""


def join(job: Job) -> SharingRanks:
    """-> the ranks that share a job, once all have come."""
    os.environ.update(LOOPBACK)
    backend = "gloo" if job.device == "cpu" else "cpu:gloo,cuda:nccl"
    with _telling_losses():
        store = dist.FileStore(job.meeting, job.num_ranks)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=job.rank, world_size=job.num_ranks, timeout=LONGEST_WAIT)
    ranks = SharingRanks(job.rank, job.num_ranks, job.is_stopping)
    _joined[:] = [ranks]
    return ranks


def ranks_of(job: Job) -> Ranks:
    """-> those that share a job, and have come."""
    return _joined[0] if job.num_ranks > 1 else ONE


def shares(rows: TokenRows, indices: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """-> which rows each rank takes: the longest first, each to whoever has the fewest tokens."""
    share: dict[int, int] = {}
    num_tokens = [0] * size
    for index in sorted(indices, key=lambda index: (-int(rows.lengths[index]), index)):
        rank = num_tokens.index(min(num_tokens))
        share[index] = rank
        num_tokens[rank] += int(rows.lengths[index]) if rows.num_loss[index] else 0
    return [tuple(index for index in indices if share[index] == rank) for rank in range(size)]


def require_equal(ranks: Ranks, weights: Sequence[Tensor]) -> None:
    """Raises StageError (unsound) where weights that every rank has moved by itself are not the same on all."""
    if ranks.size == 1:
        return
    checksums = ranks.gather([_checksum(weight) for weight in weights])
    if any(other != checksums[0] for other in checksums):
        raise StageError(
            f"after the same steps the {ranks.size} processes of this training have other weights: one of their cards"
            " computes wrongly, or a kernel is not deterministic",
            "unsound",
        )


def _checksum(weight: Tensor) -> int:
    """-> the sum of its bits, the same in any order."""
    return int(weight.detach().contiguous().view(torch.int32).sum(dtype=torch.int64))
