"""Products of numbers of 16 bits, multiplied as they are and summed in float32: what a card's matrix units are for."""

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

# M x K times K x N

ADDS_IN_PLACE = TorchVersion(torch.__version__) >= "2.13"
"""Whether a product of 16 bits can be added to a sum in float32 by one kernel."""


def is_card(x: Tensor) -> bool:
    """Whether the path of a card is run: on one, or on the meta device, where that path is counted."""
    return x.is_cuda or x.is_meta


def is_narrow(x: Tensor) -> bool:
    """Whether these are floating-point numbers of 16 bits."""
    return x.dtype in (torch.bfloat16, torch.float16)


def product(a_MK: Tensor, b_KN: Tensor, alpha: float = 1.0) -> Tensor:
    """-> alpha a b in float32, of operands of 16 bits. A CPU has no such product and widens them: the same sums."""
    if not is_card(a_MK):
        return _wide_product(a_MK, b_KN, alpha)
    if alpha == 1.0:
        return torch.mm(a_MK, b_KN, out_dtype=torch.float32)
    return torch.addmm(_nothing(a_MK, b_KN), a_MK, b_KN, out_dtype=torch.float32, beta=0, alpha=alpha)


def rounded_product(a_MK: Tensor, b_KN: Tensor, alpha: float = 1.0) -> Tensor:
    """-> alpha a b, of operands of 16 bits, in their dtype: summed in float32 and rounded once."""
    if not is_card(a_MK):
        return _wide_product(a_MK, b_KN, alpha).to(a_MK.dtype)
    if alpha == 1.0:
        return torch.mm(a_MK, b_KN)
    return torch.addmm(_nothing(a_MK, b_KN), a_MK, b_KN, beta=0, alpha=alpha)


def add_product(total_MN: Tensor, a_MK: Tensor, b_KN: Tensor, alpha: float = 1.0) -> Tensor:
    """Adds alpha a b, of operands of 16 bits, to a sum in their dtype or in float32, in place; rounds once. -> it."""
    if not is_card(a_MK):
        return total_MN.copy_(torch.addmm(total_MN.float(), a_MK.float(), b_KN.float(), alpha=alpha))
    if total_MN.dtype == a_MK.dtype:
        return total_MN.addmm_(a_MK, b_KN, alpha=alpha)
    if ADDS_IN_PLACE:
        return torch.addmm(total_MN, a_MK, b_KN, out_dtype=torch.float32, alpha=alpha, out=total_MN)
    return total_MN.add_(torch.mm(a_MK, b_KN, out_dtype=torch.float32), alpha=alpha)


def _wide_product(a_MK: Tensor, b_KN: Tensor, alpha: float) -> Tensor:
    product_MN = torch.mm(a_MK.float(), b_KN.float())
    return product_MN if alpha == 1.0 else product_MN.mul_(alpha)


def _nothing(a_MK: Tensor, b_KN: Tensor) -> Tensor:
    """-> what addmm is given where nothing is to be added: never read."""
    return a_MK.new_empty(1, 1).expand(len(a_MK), b_KN.shape[1])
