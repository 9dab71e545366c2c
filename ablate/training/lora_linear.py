"""A linear module with a low-rank adapter in it, and the cheapest exact way to run both."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ablate.study.training_recipes import Lora
from ablate.training import dropout
from ablate.training.narrow_lora import NarrowFactors, NarrowLora
from ablate.training.products import is_card, is_narrow

T = TypeVar("T")

# R rank, I width in, O width out, B rows, T positions, N = B x T tokens

MAX_SHARE_OF_ADAPTER = 1.3
"""Up to this share of its adapter's numbers, a matrix of 16 bits is run in float32 with the adapter in it: a training
step of such models takes 0.82 of the time."""


class LoraLinear(nn.Module):
    """A frozen linear module and its adapter: y = W x + alpha/R B A dropout(x) (Hu et al. 2021, 2106.09685).

    Where the recipe says use_rslora, R is its square root (Kalajdzievski 2023, 2312.03732), here and below.

    A and B are float32 (or wider), and so is their product, as in PEFT; the sum is cast to the dtype of W x. On a card
    a model of 16 bits multiplies by A and B rounded to 16 bits, as PEFT under autocast (`NarrowLora`).
    Dropout is on while `training` is true of this very module; the base module stays as it was. What is dropped of a
    row follows from `row_seeds` alone, so that it does not depend on the rows forwarded beside it.
    """

    row_seeds: Sequence[str] = ()
    """One for each row of the next forward; none: nothing is dropped."""
    may_be_one_matrix = True
    """False: where the frozen matrix is not whole on this card."""
    row_lengths: Sequence[int] = ()
    """Of the rows, padding not counted."""

    def __init__(self, base: nn.Module, lora: Lora, lora_A_RI: Tensor, lora_B_OR: Tensor) -> None:
        super().__init__()
        self.base = base
        self.scale = lora.scale
        self.dropout = lora.dropout
        self.lora_A = nn.Parameter(lora_A_RI)
        self.lora_B = nn.Parameter(lora_B_OR)
        self._num_moves = 0
        self._derived: dict[str, tuple[Any, Any]] = {}
        """By name, what is made of the adapter, and of which state of it."""

    def forward(self, x: Tensor) -> Tensor:
        if is_card(x) and is_narrow(x):
            return self.forward_in_16_bits(x)
        if self._is_one_matrix(x.dtype):
            bias = self.base.bias
            return MergedLinear.apply(x, self._merged(), bias, self.lora_A, self.lora_B, self.scale)  # type: ignore[no-any-return, no-untyped-call]
        linear = nn.functional.linear
        y: Tensor = self.base(x)
        wide = x.to(self.lora_A.dtype)
        if self.training and self.row_seeds:
            wide = wide * self._dropout_scale(wide)
        return linear(linear(wide, self.lora_A), self.lora_B * self.scale).add_(y).to(y.dtype)

    def forward_in_16_bits(self, x: Tensor) -> Tensor:
        """-> the same of numbers of 16 bits, by products of such alone."""
        kept = self._kept(x) if self.training and self.row_seeds else None
        if type(self.base) in (nn.Linear, Conv1D) and linear_weight(self.base).dtype == x.dtype:
            return self._in_16_bits(x, kept, weight_OI=self._out_in_weight(), bias_O=self.base.bias)  # type: ignore[arg-type]
        return self._in_16_bits(x, kept, y=self.base(x))

    def _in_16_bits(
        self,
        x: Tensor,
        kept: Tensor | None = None,
        *,
        y: Tensor | None = None,
        weight_OI: Tensor | None = None,
        bias_O: Tensor | None = None,
    ) -> Tensor:
        """-> alpha/R B A of what is kept of x, added to y, or to W x + b."""
        x_NI, y_NO, kept_NI = (None if part is None else part.flatten(0, -2) for part in (x, y, kept))
        scale = self.scale if kept is None else self.scale / (1 - self.dropout)
        narrow = self._narrowed(x.dtype)
        out_NO: Tensor = NarrowLora.apply(  # type: ignore[no-untyped-call]
            x_NI, y_NO, weight_OI, bias_O, self.lora_A, self.lora_B, narrow, scale, kept_NI
        )
        return out_NO.view(*x.shape[:-1], -1)

    def _out_in_weight(self) -> Tensor:
        """-> W, width out x width in; Conv1D keeps it the other way round."""
        weight = linear_weight(self.base)
        return weight.T if isinstance(self.base, Conv1D) else weight

    def _narrowed(self, dtype: torch.dtype) -> NarrowFactors:
        """-> A and B in 16 bits, rounded once a step, not once a micro-batch."""
        return self._once("narrow", lambda _: NarrowFactors.rounded(self.lora_A, self.lora_B, dtype))

    def _is_one_matrix(self, dtype: torch.dtype) -> bool:
        """Whether W + alpha/R B A, in the adapter's dtype, is less work than both apart, and as exact."""
        if (
            type(self.base) not in (nn.Linear, Conv1D)
            or not self.may_be_one_matrix
            or (self.training and self.row_seeds)
        ):
            return False
        weight = linear_weight(self.base)
        is_small = weight.numel() <= MAX_SHARE_OF_ADAPTER * (self.lora_A.numel() + self.lora_B.numel())
        return weight.dtype == dtype and (dtype == self.lora_A.dtype or is_small)

    def moved(self) -> None:
        """Says that the weights have: not every optimizer's kernel counts up their version."""
        self._num_moves += 1

    @torch.no_grad()
    def _once(self, name: str, make: Callable[[Any], T]) -> T:
        """-> what is made of the adapter, anew once that has moved; `make` is given what it made last, or None."""
        state = self._num_moves, *((weight._version, weight.data_ptr()) for weight in (self.lora_A, self.lora_B))
        before, value = self._derived.get(name, (None, None))
        if before != state:
            value = make(value)
            self._derived[name] = state, value
        return value  # type: ignore[no-any-return]

    def _merged(self) -> Tensor:
        """-> W + alpha/R B A (width out x width in), in the adapter's dtype."""
        return self._once("merged", self._make_merged)

    def _make_merged(self, out_OI: Tensor | None = None) -> Tensor:
        """-> W + alpha/R B A, in `out_OI` where that fits."""
        weight_OI = self._out_in_weight().to(self.lora_A.dtype)
        if out_OI is None or out_OI.dtype != weight_OI.dtype:
            out_OI = torch.empty_like(weight_OI, memory_format=torch.contiguous_format)
        return torch.addmm(weight_OI, self.lora_B, self.lora_A, alpha=self.scale, out=out_OI)

    def _dropout_scale(self, x_BTI: Tensor) -> Tensor:
        """-> 0 where dropped, else 1/(1 - dropout)."""
        return self._kept(x_BTI).to(x_BTI.dtype) / (1 - self.dropout)

    def _kept(self, x_BTI: Tensor) -> Tensor:
        """-> whether dropout keeps each number."""
        return dropout.kept(self.row_seeds, self.row_lengths, x_BTI, self.dropout)


class MergedLinear(torch.autograd.Function):
    """y = x M^T + b with the merged M = W + s B A of a frozen W; the gradient goes to x, A and B.

    With G that of y, G M for x. For A and B what is less work: s (G B)^T x and s G^T (x A^T), thin products; or
    s B^T D and s D A^T with D = G^T x, that of the whole matrix. x, y and G may be narrower than M: products and sums
    are in M's dtype.
    """

    @staticmethod
    def forward(
        ctx: Any, x_BTI: Tensor, merged_OI: Tensor, bias_O: Tensor | None, A_RI: Tensor, B_OR: Tensor, scale: float
    ) -> Tensor:
        ctx.save_for_backward(x_BTI, merged_OI, A_RI, B_OR)
        ctx.scale = scale
        dtype = merged_OI.dtype
        bias_O = None if bias_O is None else bias_O.to(dtype)
        return nn.functional.linear(x_BTI.to(dtype), merged_OI, bias_O).to(x_BTI.dtype)

    @staticmethod
    def backward(ctx: Any, grad_BTO: Tensor) -> tuple[Tensor | None, ...]:
        x_BTI, merged_OI, A_RI, B_OR = ctx.saved_tensors
        grad_NO, x_NI = grad_BTO.to(merged_OI.dtype).flatten(0, -2), x_BTI.to(merged_OI.dtype).flatten(0, -2)
        by = _by_matrix if _is_thick(len(x_NI), A_RI, B_OR) else _by_thin_products
        grad_A_RI, grad_B_OR = by(grad_NO, x_NI, A_RI * ctx.scale, B_OR * ctx.scale)
        grad_x_BTI = (grad_NO @ merged_OI).to(x_BTI.dtype).view_as(x_BTI) if ctx.needs_input_grad[0] else None
        return grad_x_BTI, None, None, grad_A_RI, grad_B_OR, None


def _is_thick(num_tokens: int, A_RI: Tensor, B_OR: Tensor) -> bool:
    (rank, width_in), width_out = A_RI.shape, len(B_OR)
    return (num_tokens + 2 * rank) * width_in * width_out < 2 * num_tokens * rank * (width_in + width_out)


def _by_matrix(grad_NO: Tensor, x_NI: Tensor, A_RI: Tensor, B_OR: Tensor) -> tuple[Tensor, Tensor]:
    grad_OI = grad_NO.T @ x_NI
    return B_OR.T @ grad_OI, grad_OI @ A_RI.T


def _by_thin_products(grad_NO: Tensor, x_NI: Tensor, A_RI: Tensor, B_OR: Tensor) -> tuple[Tensor, Tensor]:
    return (grad_NO @ B_OR).T @ x_NI, grad_NO.T @ (x_NI @ A_RI.T)


def linear_weight(module: nn.Module) -> Tensor:
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight
