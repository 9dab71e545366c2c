"""A linear module with a low-rank adapter in it, and the cheapest exact way to run both."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ablate.study.training_recipes import Lora

# R rank, I width in, O width out, B rows, T positions, N = B x T tokens

MAX_SHARE_OF_ADAPTER = 1.3
"""Up to this share of its adapter's numbers, a matrix of 16 bits is run in float32 with the adapter in it: a training
step of such models takes 0.82 of the time."""


class LoraLinear(nn.Module):
    """A frozen linear module and its adapter: y = W x + alpha/R B A dropout(x) (Hu et al. 2021, 2106.09685).

    Where the recipe says use_rslora, R is its square root (Kalajdzievski 2023, 2312.03732), here and below.

    A and B are float32 (or wider), and so is their product, as in PEFT; the sum is cast to the dtype of W x.
    Dropout is on while `training` is true of this very module; the base module stays as it was. What is dropped of a
    row follows from `row_seeds` alone, so that it does not depend on the rows forwarded beside it.
    """

    row_seeds: Sequence[str] = ()
    """One for each row of the next forward; none: nothing is dropped."""
    row_lengths: Sequence[int] = ()
    """Of the rows, where they stand one after the other; none: all are as long as the input is."""

    def __init__(self, base: nn.Module, lora: Lora, lora_A_RI: Tensor, lora_B_OR: Tensor) -> None:
        super().__init__()
        self.base = base
        self.scale = lora.scale
        self.dropout = lora.dropout
        self.lora_A = nn.Parameter(lora_A_RI)
        self.lora_B = nn.Parameter(lora_B_OR)
        self._merged_OI: Tensor | None = None
        self._merged_versions: tuple[tuple[int, int], ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        if self._is_one_matrix(x.dtype):
            bias = self.base.bias
            return MergedLinear.apply(x, self._merged(), bias, self.lora_A, self.lora_B, self.scale)  # type: ignore[no-any-return, no-untyped-call]
        linear = nn.functional.linear
        y: Tensor = self.base(x)
        wide = x.to(self.lora_A.dtype)
        if self.training and self.row_seeds:
            wide = wide * self._dropout_scale(wide)
        return linear(linear(wide, self.lora_A), self.lora_B * self.scale).add_(y).to(y.dtype)

    def _is_one_matrix(self, dtype: torch.dtype) -> bool:
        """Whether W + alpha/R B A, in the adapter's dtype, is less work than both apart, and as exact."""
        if type(self.base) not in (nn.Linear, Conv1D) or (self.training and self.row_seeds):
            return False
        weight = linear_weight(self.base)
        is_small = weight.numel() <= MAX_SHARE_OF_ADAPTER * (self.lora_A.numel() + self.lora_B.numel())
        return weight.dtype == dtype and (dtype == self.lora_A.dtype or is_small)

    @torch.no_grad()
    def _merged(self) -> Tensor:
        """-> W + alpha/R B A (width out x width in), in the adapter's dtype, made anew once the adapter has moved."""
        versions = self._versions()
        if versions != self._merged_versions:
            self._merged_OI, self._merged_versions = self._make_merged(self._merged_OI), versions
        return self._merged_OI  # type: ignore[return-value]

    def _versions(self) -> tuple[tuple[int, int], ...]:
        """-> what changes once the adapter moves."""
        return tuple((weight._version, weight.data_ptr()) for weight in (self.lora_A, self.lora_B))

    def _make_merged(self, out_OI: Tensor | None = None) -> Tensor:
        """-> W + alpha/R B A, in `out_OI` where that fits."""
        weight = linear_weight(self.base)
        weight_OI = (weight.T if isinstance(self.base, Conv1D) else weight).to(self.lora_A.dtype)
        if out_OI is None or out_OI.dtype != weight_OI.dtype:
            out_OI = torch.empty_like(weight_OI, memory_format=torch.contiguous_format)
        return torch.addmm(weight_OI, self.lora_B, self.lora_A, alpha=self.scale, out=out_OI)

    def _dropout_scale(self, x_BTI: Tensor) -> Tensor:
        """-> 0 where dropped, else 1/(1 - dropout); drawn on the CPU, where a longer row begins as a shorter one."""
        lengths = self.row_lengths or [x_BTI.shape[1]] * len(self.row_seeds)
        drawn = [
            torch.rand(length, x_BTI.shape[2], generator=torch.Generator().manual_seed(seed_of(seed)))
            for seed, length in zip(self.row_seeds, lengths, strict=True)
        ]
        kept_BTI = (torch.cat(drawn).view(x_BTI.shape) >= self.dropout).to(x_BTI.device, x_BTI.dtype)
        return kept_BTI / (1 - self.dropout)


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


def seed_of(seed: str) -> int:
    """-> a seed of 63 bits."""
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") >> 1


def linear_weight(module: nn.Module) -> Tensor:
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight
