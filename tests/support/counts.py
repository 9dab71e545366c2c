"""What a piece of work costs a card, counted without one: FLOPs, kernels, bytes, synchronisations.

    with counting(model.parameters()) as counts:
        loss = model(ids).logits.sum()
        loss.backward()
    counts.flops[torch.float32], counts.kernels, counts.bytes_moved, counts.bytes_kept, counts.syncs

On the meta device at real shapes (where whatever asks for a value fails by itself), or on a CPU with numbers. An aten
operation that computes counts as one kernel, as eager PyTorch launches it.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import varlen  # noqa: F401 - which registers it
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten

PRODUCTS = {
    aten.mm: (0, 1),
    aten.addmm: (1, 2),
    aten.addmm_: (1, 2),
    aten.bmm: (0, 1),
    aten.baddbmm: (1, 2),
    aten.baddbmm_: (1, 2),
    aten.mv: (0, 1),
    aten.addmv: (1, 2),
    aten.dot: (0, 1),
    aten.vdot: (0, 1),
}
"""Which arguments are multiplied."""
ATTENTION = {
    aten._scaled_dot_product_flash_attention: (0, 2),
    aten._scaled_dot_product_flash_attention_for_cpu: (0, 2),
    aten._scaled_dot_product_efficient_attention: (0, 2),
    aten._flash_attention_forward: (0, 2),
    aten._scaled_dot_product_flash_attention_backward: (1, 5),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: (1, 5),
    aten._scaled_dot_product_efficient_attention_backward: (1, 5),
    aten._flash_attention_backward: (1, 5),
    torch.ops.torch_attn._varlen_attn: (0, 2),
    torch.ops.torch_attn._varlen_attn_backward: (1, 5),
}
"""Place of the query (key and value follow), and how many products of queries and keys are made."""
FREE = {
    aten.empty,
    aten.empty_like,
    aten.empty_strided,
    aten.new_empty,
    aten.new_empty_strided,
    aten._unsafe_view,
    aten._reshape_alias,
    aten.lift_fresh,
    aten.resize_,
    aten.set_,
    aten.is_same_size,
    aten._has_compatible_shallow_copy_type,
    aten.sym_size,
    aten.sym_numel,
    aten.sym_stride,
    aten.is_pinned,
    aten._local_scalar_dense,
}
"""Views apart, which are known by their schema: what launches nothing."""
SYNCS = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten.equal,
    aten._unique2,
    aten.unique_consecutive,
    aten.unique_dim,
    aten.repeat_interleave,
}
"""What makes the host wait for the card: it must know a value, or how large a result is."""
OVERWRITERS = {aten.copy_, aten.fill_, aten.zero_, aten.normal_, aten.uniform_, aten.random_, aten.bernoulli_}
"""In place, without looking at what was there."""
GATHERERS = {aten.embedding, aten.index, aten.index_select, aten.gather}
"""What reads of its first argument no more than it gives."""


class Product(NamedTuple):
    """A product of matrices: b x m x k by b x k x n."""

    dtype: torch.dtype
    """Of what is multiplied, whatever it is summed in."""
    b: int
    m: int
    k: int
    n: int

    @property
    def flops(self) -> int:
        return 2 * self.b * self.m * self.k * self.n


@dataclass
class Counts:
    """What was counted."""

    products: list[Product] = field(default_factory=list)
    """Of matrices; those inside of attention are in `attention_flops`."""
    attention_flops: Counter[torch.dtype] = field(default_factory=Counter)
    kernels_by_name: Counter[str] = field(default_factory=Counter)
    bytes_by_name: Counter[str] = field(default_factory=Counter)
    """Read and written."""
    syncs_by_name: Counter[str] = field(default_factory=Counter)
    bytes_kept: int = 0
    """For the way back: every storage once, weights apart."""

    @property
    def flops(self) -> Counter[torch.dtype]:
        """By the dtype of what is multiplied; 0 for one that is not."""
        total = Counter(self.attention_flops)
        for product in self.products:
            total[product.dtype] += product.flops
        return total

    @property
    def kernels(self) -> int:
        return sum(self.kernels_by_name.values())

    @property
    def bytes_moved(self) -> int:
        return sum(self.bytes_by_name.values())

    @property
    def syncs(self) -> int:
        return sum(self.syncs_by_name.values())


@contextlib.contextmanager
def counting(weights: Iterable[Tensor] = (), *, has_flash: bool = True) -> Iterator[Counts]:
    """Counts what runs in it. `weights` are not counted as kept; `has_flash`: attention is a card's fused kernel."""
    counts = Counts()
    seen = {weight.untyped_storage()._cdata: weight for weight in weights}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in seen:
            seen[storage._cdata] = x  # held, so that no other storage gets its number
            counts.bytes_kept += storage.nbytes()
        return x

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x),
        card_attention() if has_flash else contextlib.nullcontext(),
        _Counter(counts),
    ):
        yield counts


_plain_attention = torch.nn.functional.scaled_dot_product_attention


@contextlib.contextmanager
def card_attention() -> Iterator[None]:
    """Runs attention on the meta device as one kernel, as a card does; torch would take it apart there.

    A function in the place of torch's, and no mode: layers that are run again on the way back must meet it too.
    """
    torch.nn.functional.scaled_dot_product_attention = _attention_of_a_card
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = _plain_attention


def _attention_of_a_card(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **settings):
    """Under a mask by the kernel that takes one, whose last dimension CUDA wants padded to a multiple of 8."""
    if not query.is_meta:
        return _plain_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **settings)
    if attn_mask is None:
        return aten._scaled_dot_product_flash_attention(query, key, value, 0.0, is_causal, scale=scale)[0]
    if missing := -attn_mask.shape[-1] % 8:
        attn_mask = torch.nn.functional.pad(attn_mask, (0, missing))[..., : attn_mask.shape[-1]]
    mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    needs_way_back = torch.is_grad_enabled() and query.requires_grad
    return aten._scaled_dot_product_efficient_attention(query, key, value, mask, needs_way_back, scale=scale)[0]


class _Counter(TorchDispatchMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CPU"):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        self._count(func, args, kwargs, result)
        return result

    def _count(self, func, args, kwargs, result) -> None:
        packet, name = func._overloadpacket, str(func._overloadpacket).removeprefix("aten.")
        if is_sync(packet, args, result):
            self.counts.syncs_by_name[name] += 1
        if packet in FREE or is_view(func):
            return
        self.counts.kernels_by_name[name] += 1
        self.counts.bytes_by_name[name] += bytes_read(packet, args, kwargs) + sum(map(num_bytes, tensors(result)))
        if packet in PRODUCTS:
            self.counts.products.append(product_of(*(args[place] for place in PRODUCTS[packet])))
        elif packet in ATTENTION:
            place, num_products = ATTENTION[packet]
            query, key = args[place], args[place + 1]
            is_packed = query.dim() == 3  # N x heads x width: no more is known than that all may see all
            length, others = (query.shape[0], key.shape[0]) if is_packed else (query.shape[2], key.shape[2])
            heads = query.shape[1] if is_packed else query.shape[0] * query.shape[1]
            self.counts.attention_flops[query.dtype] += 2 * num_products * heads * length * others * query.shape[-1]


def product_of(a: Tensor, b: Tensor) -> Product:
    """-> the product of two matrices, stacks of matrices or vectors."""
    if a.dim() == 1:
        return Product(a.dtype, 1, 1, len(a), 1)
    stack = a.shape[0] if a.dim() == 3 else 1
    return Product(a.dtype, stack, a.shape[-2], a.shape[-1], b.shape[-1] if b.dim() > 1 else 1)


def is_view(func) -> bool:
    """Whether an operation gives its argument's own memory and writes nothing."""
    returns = func._schema.returns
    return bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)


def is_sync(packet, args, result) -> bool:
    """Whether the host waits for the card: a value, a size that depends on values, a copy that leaves the card."""
    if packet in SYNCS:
        return packet is not aten.repeat_interleave or result.dim() == 1
    if packet in (aten.index, aten.index_put, aten.index_put_):
        return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
    if packet is aten._to_copy:
        return args[0].device.type != "cpu" and result.device.type == "cpu"
    return packet is aten.copy_ and args[1].device.type != "cpu" and args[0].device.type == "cpu"


def bytes_read(packet, args, kwargs) -> int:
    """-> bytes of what an operation reads; what it only writes, and what a view repeats, is not read."""
    given = [*args, *(value for name, value in kwargs.items() if not name.startswith("out"))]
    if packet in OVERWRITERS or packet in GATHERERS:
        given = given[1:]
    return sum(map(num_bytes, tensors(given)))


def num_bytes(x: Tensor) -> int:
    """-> of the numbers it shows, each once."""
    sizes = (size for size, stride in zip(x.shape, x.stride(), strict=True) if stride)
    return math.prod(sizes) * x.element_size()


def tensors(values) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]
