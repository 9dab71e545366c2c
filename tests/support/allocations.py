"""What a piece of work holds of a device's memory, op by op, counted without one: live storages and their peak.

    with allocations([*model.parameters()]) as held:
        loss = model(ids).logits.sum()
        loss.backward()
    held.peak, held.live, held.at_peak()

On the meta device at real shapes, or on a CPU with numbers. A storage counts from the operation that makes it until
nothing holds it any more, autograd's saved tensors and gradients included, in blocks of 512 bytes as CUDA's allocator
gives them out; what a kernel takes for itself while it runs is not seen.
"""

import contextlib
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

BLOCK = 512
"""Bytes: a storage on a card takes a whole number of them."""


class Allocations(TorchDispatchMode):
    """Counts storages of one device while it is on: of that of the tensors that were there, else of any."""

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        known = list(known)
        self.device = known[0].device.type if known else None
        self.live = self.peak = 0
        self._storages: dict[int, tuple[weakref.ref, int, str]] = {}
        self._sorts: Counter[str] = Counter()
        self._at_peak: Counter[str] = Counter()
        for tensor in known:
            self.add(tensor, "given")
        self.given = self.live
        """Bytes of the tensors that were there before."""

    def add(self, tensor: Tensor, sort: str) -> None:
        """Counts the storage of a tensor, if it is new."""
        if self.device not in (None, tensor.device.type):
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages or not storage.nbytes():
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._storages[key] = (weakref.ref(storage, lambda _: self._drop(key)), size, sort)
        self.live += size
        self._sorts[sort] += size
        if self.live > self.peak:
            self.peak, self._at_peak = self.live, self._sorts.copy()

    def _drop(self, key: int) -> None:
        _, size, sort = self._storages.pop(key)
        self.live -= size
        self._sorts[sort] -= size

    def at_peak(self) -> dict[str, int]:
        """-> bytes that were live at the peak by the operation and dtype that made them, most first."""
        return {sort: size for sort, size in self._at_peak.most_common() if size}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.add(tensor, f"{func._overloadpacket.__name__} {str(tensor.dtype).removeprefix('torch.')}")
        return result


@contextlib.contextmanager
def allocations(known: Iterable[Tensor] = ()) -> Iterator[Allocations]:
    """Counts what is allocated in it, beside tensors that are there already."""
    mode = Allocations(known)
    with mode:
        yield mode
