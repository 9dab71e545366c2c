"""Shards of tensors on their way to the disk: a thread writes, hashes and syncs one while the next is filled."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from ablate.core.errors import StageError
from ablate.training import files


class FillingShard:
    """Tensors of a shard on the host, filled by copies that nobody waits for until they are written."""

    def __init__(self, tensors: Mapping[str, Tensor], device: str) -> None:
        """`tensors`: of its dtypes and shapes."""
        self._is_card = torch.device(device).type == "cuda"
        self.tensors = {name: torch.empty_like(one, pin_memory=self._is_card) for name, one in tensors.items()}
        self._is_finite = torch.ones((), dtype=torch.bool, device=device)

    def put(self, name: str, begin: int, values: Tensor) -> None:
        """Copies rows of one tensor to their place."""
        self.tensors[name][begin : begin + len(values)].copy_(values, non_blocking=True)

    def check(self, values: Tensor) -> None:
        """Has `write` refuse the shard where one of these is not finite."""
        self._is_finite &= values.isfinite().all()

    def filled(self) -> Callable[[], bool]:
        """-> waits until all copies so far have arrived; -> whether all of it is finite."""
        if not self._is_card:
            return lambda: bool(self._is_finite)
        is_finite = self._is_finite.to("cpu", non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()

        def arrived() -> bool:
            copied.synchronize()
            return bool(is_finite)

        return arrived


class ShardWriter:
    """Writes on a thread of its own, one shard at a time: two are in memory, that and the one being filled."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """`names`: of files that were there before."""
        self.names = set(names)
        """Of the files that are whole on the disk, as far as was waited for."""
        self._thread = ThreadPoolExecutor(1, "shard writer")
        self._writing: tuple[Future[None], str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.shutdown()

    def write(self, shard: FillingShard, path: Path) -> None:
        """Has a shard written once the one before it is. Raises what went wrong with that, as `wait` does."""
        self.wait()
        self._writing = self._thread.submit(_write, shard.tensors, shard.filled(), path), path.name

    def wait(self) -> None:
        """Until all is on the disk. Raises StageError for a shard that is not finite, OSError of the disk."""
        if self._writing:
            writing, name = self._writing
            writing.result()
            self.names.add(name)
            self._writing = None


def _write(tensors: Mapping[str, Tensor], arrived: Callable[[], bool], path: Path) -> None:
    if not arrived():
        raise StageError("the teacher's answers are not finite; is the dtype too narrow for it?")
    files.save(tensors, path)
