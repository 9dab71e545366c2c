"""What a card would say, made up: so that code runs on the meta device that asks for values."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class MadeUp(TorchDispatchMode):
    """Says yes, or 0, where a value of the meta device is asked for; of what is asked which are true, half are."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet, kwargs = func._overloadpacket, kwargs or {}
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is None:
            return func(*args, **kwargs)
        if packet is aten.copy_ and first.is_cpu and args[1].is_meta:
            return first
        if not first.is_meta:
            return func(*args, **kwargs)
        if packet is aten._local_scalar_dense:
            return {torch.bool: True}.get(first.dtype, 0.0 if first.dtype.is_floating_point else 0)
        if packet is aten.nonzero:
            return torch.empty(first.numel() // 2, first.dim(), dtype=torch.int64, device="meta")
        if packet is aten.index:
            args = (first, [_places(index) for index in args[1]])
        if packet is aten._to_copy and torch.device(kwargs.get("device") or "meta").type == "cpu":
            return torch.zeros(first.shape, dtype=kwargs.get("dtype") or first.dtype)
        return func(*args, **kwargs)


def _places(index: Tensor | None) -> Tensor | None:
    """-> in the place of a mask of a dimension as many places as are made up."""
    if index is None or index.dtype != torch.bool:
        return index
    return torch.empty(index.numel() // 2, dtype=torch.int64, device="meta")
