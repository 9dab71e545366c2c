"""Products of float32 with 16 bits, on a card by products of 16 bits alone: rounded, or from two halves."""

from typing import Any

import torch
from torch import Tensor

from ablate.training.products import add_product, is_card, product

# M x K times K x N

LARGEST = 2.0**14
"""What the largest number of a row becomes before it is rounded to float16, which has no small ones."""


def halves(x: Tensor, dtype: torch.dtype) -> Tensor:
    """-> 2 x the shape of x: x rounded to 16 bits, and what is left, rounded. Their sum is x to 1e-5."""
    both = torch.empty(2, *x.shape, dtype=dtype, device=x.device)
    both[0].copy_(x)
    torch.sub(x, both[0], out=both[1])
    return both


def rows_product(a_MK: Tensor, b_KN: Tensor, *, is_exact: bool) -> Tensor:
    """-> a b in float32, of a in float32 and b of 16 bits; a from halves, exact to 1e-5, or rounded."""
    scale_M1 = None
    if b_KN.dtype == torch.float16:
        scale_M1 = LARGEST / a_MK.abs().amax(1, keepdim=True).clamp_min(1e-30)
        a_MK = a_MK * scale_M1
    if is_exact:
        both_MN = product(halves(a_MK, b_KN.dtype).flatten(0, 1), b_KN)
        total_MN = both_MN[: len(a_MK)].add_(both_MN[len(a_MK) :])
    else:
        total_MN = product(a_MK.to(b_KN.dtype), b_KN)
    return total_MN if scale_M1 is None else total_MN.div_(scale_M1)


def wide_product(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    """-> a b in float32, of two in float32, from halves of both, exact to 1e-5."""
    high_KN, low_KN = halves(b_KN, torch.bfloat16)
    return rows_product(a_MK, high_KN, is_exact=True).add_(rows_product(a_MK, low_KN, is_exact=False))


def columns_product(a_KM: Tensor, b_KN: Tensor, total_MN: Tensor | None = None) -> Tensor:
    """-> a^T b in float32, of a in float32 and b of 16 bits, exact to 1e-5; added to a sum, in place, if one is given.

    By bfloat16, which has the exponents of float32; a float16 number is the sum of two such. One pass over the sum.
    """
    of_a = halves(a_KM, torch.bfloat16)
    if b_KN.dtype == torch.bfloat16:
        left, right = of_a.flatten(0, 1), b_KN.repeat(2, 1)
    else:
        of_b = halves(b_KN, torch.bfloat16)
        left, right = torch.cat((*of_a, of_a[0])), torch.cat((of_b[0], *of_b))
    return product(left.T, right) if total_MN is None else add_product(total_MN, left.T, right)


def matmul(a_MK: Tensor, b_KN: Tensor, dtype: torch.dtype, bias_N: Tensor | None = None) -> Tensor:
    """-> a b, plus a bias, in float32 or wider, with a way back. `dtype`: of the model beside which it is run.

    On a card beside a model of 16 bits the operands are rounded to these, as under autocast, but not the product.
    """
    if is_card(a_MK) and dtype.itemsize == 2:
        product_MN: Tensor = NarrowProduct.apply(a_MK, b_KN, dtype)  # type: ignore[no-untyped-call]
        return product_MN if bias_N is None else product_MN + bias_N
    wide = torch.promote_types(torch.promote_types(a_MK.dtype, b_KN.dtype), torch.float32)
    return a_MK.to(wide) @ b_KN.to(wide) if bias_N is None else torch.addmm(bias_N, a_MK.to(wide), b_KN.to(wide))


class NarrowProduct(torch.autograd.Function):
    """a b in float32, of operands rounded to 16 bits; with G the gradient in it, G b^T in a and a^T G in b."""

    @staticmethod
    def forward(ctx: Any, a_MK: Tensor, b_KN: Tensor, dtype: torch.dtype) -> Tensor:
        narrow_MK, narrow_KN = a_MK.to(dtype), b_KN.to(dtype)
        ctx.save_for_backward(narrow_MK, narrow_KN)
        ctx.dtypes = a_MK.dtype, b_KN.dtype
        return product(narrow_MK, narrow_KN)

    @staticmethod
    def backward(ctx: Any, grad_MN: Tensor) -> tuple[Tensor | None, ...]:
        a_MK, b_KN = ctx.saved_tensors
        of_a, of_b = ctx.needs_input_grad[:2]
        grad_MK = rows_product(grad_MN, b_KN.T, is_exact=False).to(ctx.dtypes[0]) if of_a else None
        grad_KN = columns_product(grad_MN, a_MK).T.to(ctx.dtypes[1]) if of_b else None
        return grad_MK, grad_KN, None
