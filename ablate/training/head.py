"""The output head: hidden states to logits, and the gradient back, over the tokenizer's vocabulary alone."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ablate.training.mixed_products import columns_product, rows_product
from ablate.training.products import is_card, is_narrow, product

# M tokens, D hidden width, V vocabulary (of the tokenizer)


@dataclass(frozen=True, eq=False)
class Head:
    """Hidden states to logits: softcap(scale (W h + b)), in float32 or wider, cut to the tokenizer's vocabulary.

    Rows of W beyond the tokenizer pad the matrix and belong to no token (Qwen pads 151,936 or 152,064 differently).
    """

    weight: Tensor | None
    """None: the "hidden states" are logits already (the dense path)."""
    vocabulary: int
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    is_bfloat16: bool = False
    """The weight holds bfloat16 values, whatever its dtype here."""
    _sums: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    """Of a trained weight or bias, what the chunks of a micro-batch add to its gradient, in float32 or wider."""

    @property
    def is_trained(self) -> bool:
        return self.weight is not None and self.weight.requires_grad

    @property
    def is_plain(self) -> bool:
        """Whether its logits are scale W h with a frozen W."""
        return not (self.weight is None or self.is_trained or self.bias is not None or self.softcap is not None)

    def logits(self, hidden_MD: Tensor, out_MV: Tensor | None = None) -> Tensor:
        """-> M x V, in `out_MV` or a new tensor."""
        if self.weight is None:
            return _wide(hidden_MD[:, : self.vocabulary]).clone()
        with _bfloat16_products(self.is_bfloat16 and hidden_MD.dtype == torch.bfloat16):
            logits_MV = _product(hidden_MD, self.weight.detach()[: self.vocabulary], out_MV)
        if self.bias is not None:
            logits_MV += self.bias.detach()[: self.vocabulary]
        if self.scale != 1.0:
            logits_MV *= self.scale
        return logits_MV if self.softcap is None else logits_MV.div_(self.softcap).tanh_().mul_(self.softcap)

    def backward(self, grad_MV: Tensor, hidden_MD: Tensor, logits_MV: Tensor, less_MD: Tensor | None = None) -> Tensor:
        """Gradient in the logits -> gradient in the hidden states; adds to the weight's own sum where it is trained.

        `grad_MV` is used up; `logits_MV` are what `logits` made of the hidden states, read where they are capped.
        `less_MD` is subtracted before anything is rounded.
        """
        if self.weight is None:
            grad_MD = torch.zeros_like(hidden_MD)
            grad_MD[:, : self.vocabulary] = grad_MV
            return grad_MD
        if self.softcap is not None:
            grad_MV *= 1 - (logits_MV / self.softcap) ** 2
        if self.scale != 1.0:
            grad_MV *= self.scale
        if self.is_trained:
            self._add_grad(grad_MV, hidden_MD)
        weight_VD = self.weight.detach()[: self.vocabulary]
        if less_MD is not None:
            return expectation(grad_MV, weight_VD).sub_(less_MD).to(hidden_MD.dtype)
        if _is_narrow_on_card(weight_VD):
            return rows_product(grad_MV, weight_VD, is_exact=False).to(hidden_MD.dtype)
        return (_wide(grad_MV) @ _wide(weight_VD)).to(hidden_MD.dtype)

    def _add_grad(self, grad_MV: Tensor, hidden_MD: Tensor) -> None:
        known_VD, known_V = self._sums.get("weight"), self._sums.get("bias")
        if _is_narrow_on_card(hidden_MD):
            self._sums["weight"] = columns_product(grad_MV, hidden_MD, known_VD)
        else:
            grad_VD = grad_MV.T @ _wide(hidden_MD)
            self._sums["weight"] = grad_VD if known_VD is None else known_VD.add_(grad_VD)
        if self.bias is not None:
            self._sums["bias"] = grad_MV.sum(0) if known_V is None else known_V.add_(grad_MV.sum(0))

    @contextlib.contextmanager
    def summing_grad(self) -> Iterator[None]:
        """While it lasts, `backward` sums the weight's gradient; then it is rounded to the weight's dtype, once."""
        self._sums.clear()  # of a micro-batch for which the memory ran out
        yield
        for name, total in self._sums.items():
            weight = getattr(self, name)
            if weight is not None and weight.requires_grad:
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
                weight.grad[: self.vocabulary] += total.to(weight.dtype)
        self._sums.clear()


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


@contextlib.contextmanager
def _bfloat16_products(is_exact: bool) -> Iterator[None]:
    """Lets a CPU multiply float32 numbers that are bfloat16 values as such, still summing in float32: 4 times faster.

    Only where both operands are: elsewhere it would round. CPUs without such instructions multiply as ever.
    """
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if not is_exact or matmul is None:
        yield
        return
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _product(hidden_MD: Tensor, weight_VD: Tensor, out_MV: Tensor | None = None) -> Tensor:
    """-> h W^T in float32 or wider: of 16 bits on a card multiplied as they are and summed in float32."""
    if _is_narrow_on_card(hidden_MD) and hidden_MD.dtype == weight_VD.dtype:
        return product(hidden_MD, weight_VD.T)
    return torch.mm(_wide(hidden_MD), _wide(weight_VD).to(_wide(hidden_MD).dtype).T, out=out_MV)


def expectation(p_MV: Tensor, weight_VD: Tensor) -> Tensor:
    """-> p W in float32 or wider; on a card, beside weights of 16 bits, from the two halves of p, exact to 1e-5."""
    if _is_narrow_on_card(weight_VD):
        return rows_product(p_MV, weight_VD, is_exact=True)
    return p_MV @ weight_VD.to(p_MV.dtype)


def _is_narrow_on_card(x: Tensor) -> bool:
    return is_card(x) and is_narrow(x)


def make_head(weight: Tensor, bias: Tensor | None, vocabulary: int, scale: float, softcap: float | None) -> Head:
    """-> a head; a frozen one of 16 bits is widened once where a CPU would do so at each use."""
    is_copied = weight.device.type == "cpu" and not weight.requires_grad
    is_bfloat16 = weight.dtype == torch.bfloat16
    return Head(_wide(weight) if is_copied else weight, vocabulary, bias, scale, softcap, is_bfloat16)
