"""A frozen matrix and its adapter by products of 16 bits alone, forward and backward: the way of a card."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from ablate.training.products import add_product, product, rounded_product

# R rank, I width in, O width out, N tokens


LARGEST_LIFTED, MOST_LIFTED = 2.0**-4, 2.0**24
"""What the largest number of B is brought to, as that of a weight is, and by how much at most."""


class NarrowFactors(NamedTuple):
    """An adapter's matrices, rounded to 16 bits."""

    A_RI: Tensor
    B_OR: Tensor
    lifted_B_OR: Tensor
    """B times `lift`; B itself without one."""
    lift: Tensor | None = None
    """A power of two, in float32, in float16 alone: the small B of a training's first steps, and G B still more so, lie
    among its coarse numbers below 6e-5, or are 0."""

    @classmethod
    def rounded(cls, A_RI: Tensor, B_OR: Tensor, dtype: torch.dtype) -> "NarrowFactors":
        """-> those of the masters; no value is asked of the device."""
        narrow_A, narrow_B = A_RI.to(dtype), B_OR.to(dtype)
        if dtype != torch.float16:
            return cls(narrow_A, narrow_B, narrow_B)
        lift = (LARGEST_LIFTED / B_OR.abs().amax()).log2().floor().exp2().clamp(1.0, MOST_LIFTED)
        return cls(narrow_A, narrow_B, (B_OR * lift).to(dtype), lift)


class NarrowLora(torch.autograd.Function):
    """y = W x + b + s B A d, where d is x, or what dropout keeps of it (with 1/(1 - p) in s).

    With G the gradient in y and g = G B: G W + s g A in x, s g^T d in A, s G^T A d in B. Every product is of 16 bits
    and summed in float32, in which A and B get their gradient; A d, g, y and the gradient in x are rounded to 16 bits,
    once each. Kept for the way back are x, A d, and where dropout is on one byte for each number of x.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x_NI: Tensor,
        y_NO: Tensor | None,
        weight_OI: Tensor | None,
        bias_O: Tensor | None,
        A_RI: Tensor,
        B_OR: Tensor,
        narrow: NarrowFactors,
        scale: float,
        kept_NI: Tensor | None,
    ) -> Tensor:
        """`y_NO`: W x + b, of a module whose weight is not at hand; with neither it is s B A d alone.

        `A_RI`, `B_OR`: the masters, which get the gradient.
        """
        a_NR = rounded_product(_kept(x_NI, kept_NI), narrow.A_RI.T)
        ctx.save_for_backward(x_NI, a_NR, narrow.A_RI, narrow.lifted_B_OR, narrow.lift, weight_OI, kept_NI)
        ctx.scale = scale
        if y_NO is not None:
            return add_product(y_NO.clone(), a_NR, narrow.B_OR.T, scale)
        if weight_OI is not None:
            return add_product(linear(x_NI, weight_OI, bias_O), a_NR, narrow.B_OR.T, scale)
        return rounded_product(a_NR, narrow.B_OR.T, scale)

    @staticmethod
    def backward(ctx: Any, grad_NO: Tensor) -> tuple[Tensor | None, ...]:
        x_NI, a_NR, A_RI, lifted_B_OR, lift, weight_OI, kept_NI = ctx.saved_tensors
        g_NR = rounded_product(grad_NO, lifted_B_OR)
        grad_A_RI = product(g_NR.T, _kept(x_NI, kept_NI), ctx.scale)
        if lift is not None:
            grad_A_RI, g_NR = grad_A_RI.div_(lift), g_NR.div_(lift)
        grad_B_OR = product(grad_NO.T, a_NR, ctx.scale)
        grad_x_NI = _grad_x(grad_NO, weight_OI, g_NR, A_RI, ctx.scale, kept_NI) if ctx.needs_input_grad[0] else None
        grad_y_NO = grad_NO if ctx.needs_input_grad[1] else None
        return grad_x_NI, grad_y_NO, None, None, grad_A_RI, grad_B_OR, None, None, None


def _kept(x_NI: Tensor, kept_NI: Tensor | None) -> Tensor:
    return x_NI if kept_NI is None else x_NI * kept_NI


def _grad_x(
    grad_NO: Tensor, weight_OI: Tensor | None, g_NR: Tensor, A_RI: Tensor, scale: float, kept_NI: Tensor | None
) -> Tensor:
    if weight_OI is None:
        grad_NI = rounded_product(g_NR, A_RI, scale)
        return grad_NI if kept_NI is None else grad_NI.mul_(kept_NI)
    grad_NI = rounded_product(grad_NO, weight_OI)
    if kept_NI is None:
        return add_product(grad_NI, g_NR, A_RI, scale)
    return grad_NI.addcmul_(rounded_product(g_NR, A_RI), kept_NI, value=scale)
