"""A linear module with a weight-decomposed adapter (DoRA) in it: norms and directions are trained apart."""

import torch
from torch import Tensor, nn

from ablate.study.training_recipes import Lora
from ablate.training.lora_linear import LoraLinear, MergedLinear, linear_weight
from ablate.training.mixed_products import rows_product, wide_product
from ablate.training.products import is_card, is_narrow

# R rank, I width in, O width out, B rows, T positions


class DoraLinear(LoraLinear):
    """y = m/n (W x + s B A x) + b, n the norms of the rows of W + s B A (Liu et al. 2024, 2402.09353).

    m begins as these norms; n is a constant to the gradient (their section 4.3). With d = dropout(x) it is
    y = W x + b + (m/n - 1) W d + m/n s B A d, as in PEFT. All but W x is in the dtype of the adapter.
    """

    def __init__(self, base: nn.Module, lora: Lora, lora_A_RI: Tensor, lora_B_OR: Tensor) -> None:
        super().__init__(base, lora, lora_A_RI, lora_B_OR)
        self.magnitude = nn.Parameter(self._norm().clone())

    def forward(self, x: Tensor) -> Tensor:
        if is_card(x) and is_narrow(x):
            return self.forward_in_16_bits(x)
        gain_O = self.magnitude / self._norm()
        bias_O: Tensor | None = self.base.bias  # type: ignore[assignment]
        if self._is_one_matrix(x.dtype):
            y = MergedLinear.apply(x, self._merged(), None, self.lora_A, self.lora_B, self.scale)  # type: ignore[no-untyped-call]
            return self._sum(y * gain_O, bias_O, x.dtype)
        if self.training and self.row_seeds:
            wide = x.to(self.lora_A.dtype)
            dropped = wide * self._dropout_scale(wide)
            added = (gain_O - 1) * self._base(dropped.to(x.dtype)) + gain_O * self._adapted(dropped)
            y_of_base: Tensor = self.base(x)
            return self._sum(added, y_of_base, x.dtype)
        return self._sum(gain_O * (self._base(x) + self._adapted(x.to(self.lora_A.dtype))), bias_O, x.dtype)

    def forward_in_16_bits(self, x: Tensor) -> Tensor:
        """-> the same of numbers of 16 bits, by products of such alone; what is done to these is in float32."""
        gain_O = self.magnitude / self._norm()
        bias_O: Tensor | None = self.base.bias  # type: ignore[assignment]
        if not (self.training and self.row_seeds):
            return self._sum(gain_O * self._in_16_bits(x, weight_OI=self._out_in_weight()), bias_O, x.dtype)
        kept = self._kept(x)
        dropped = x * kept / (1 - self.dropout)
        added = (gain_O - 1) * self._base(dropped) + gain_O * self._in_16_bits(x, kept)
        y_of_base: Tensor = self.base(x)
        return self._sum(added, y_of_base, x.dtype)

    def _base(self, x: Tensor) -> Tensor:
        """-> W x."""
        return nn.functional.linear(x, self._out_in_weight())

    def _adapted(self, x: Tensor) -> Tensor:
        """-> s B A x."""
        linear = nn.functional.linear
        return linear(linear(x, self.lora_A), self.lora_B * self.scale)

    @staticmethod
    def _sum(y: Tensor, other: Tensor | None, dtype: torch.dtype) -> Tensor:
        return (y if other is None else y + other).to(dtype)

    def _norm(self) -> Tensor:
        """-> the norms of the rows of W + s B A (width out)."""
        return self._once("norm", self._make_norm)

    def _make_norm(self, _: Tensor | None) -> Tensor:
        weight = linear_weight(self.base)
        if is_card(weight) and is_narrow(weight):
            return self._norm_in_16_bits()
        is_kept = self.dropout == 0 and self._is_one_matrix(weight.dtype)
        norm_O: Tensor = torch.linalg.vector_norm(self._merged() if is_kept else self._make_merged(), dim=1)
        return norm_O

    def _norm_in_16_bits(self) -> Tensor:
        """-> the same by products of 16 bits, exact to 1e-5: |W|^2 + 2 s B (A W^T) + s^2 B (A A^T) B^T, row by row."""
        weight_OI, A_RI, B_OR = self._out_in_weight(), self.lora_A, self.lora_B
        cross_RO = rows_product(A_RI, weight_OI.T, is_exact=True)
        BAA_OR = wide_product(B_OR, wide_product(A_RI, A_RI.T))
        added_O = (B_OR * (2 * self.scale * cross_RO.T + self.scale**2 * BAA_OR)).sum(1)
        norm_O: Tensor = torch.linalg.vector_norm(weight_OI, dim=1, dtype=torch.float32)
        return (norm_O.square() + added_O).sqrt()
