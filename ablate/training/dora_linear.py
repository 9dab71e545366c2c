"""A linear module with a weight-decomposed adapter (DoRA) in it: norms and directions are trained apart."""

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ablate.study.training_recipes import Lora
from ablate.training.lora_linear import LoraLinear, MergedLinear, linear_weight

# R rank, I width in, O width out, B rows, T positions


class DoraLinear(LoraLinear):
    """y = m/n (W x + s B A x) + b, n the norms of the rows of W + s B A (Liu et al. 2024, 2402.09353).

    m begins as these norms; n is a constant to the gradient (their section 4.3). With d = dropout(x) it is
    y = W x + b + (m/n - 1) W d + m/n s B A d, as in PEFT. All but W x is in the dtype of the adapter.
    """

    def __init__(self, base: nn.Module, lora: Lora, lora_A_RI: Tensor, lora_B_OR: Tensor) -> None:
        super().__init__(base, lora, lora_A_RI, lora_B_OR)
        self._norm_O: Tensor | None = None
        self._norm_versions: tuple[tuple[int, int], ...] = ()
        with torch.no_grad():
            self.magnitude = nn.Parameter(torch.linalg.vector_norm(self._make_merged(), dim=1))

    def forward(self, x: Tensor) -> Tensor:
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

    def _base(self, x: Tensor) -> Tensor:
        """-> W x."""
        weight = linear_weight(self.base)
        return nn.functional.linear(x, weight.T if isinstance(self.base, Conv1D) else weight)

    def _adapted(self, x: Tensor) -> Tensor:
        """-> s B A x."""
        linear = nn.functional.linear
        return linear(linear(x, self.lora_A), self.lora_B * self.scale)

    @staticmethod
    def _sum(y: Tensor, other: Tensor | None, dtype: torch.dtype) -> Tensor:
        return (y if other is None else y + other).to(dtype)

    @torch.no_grad()
    def _norm(self) -> Tensor:
        """-> the norms of the rows of W + s B A (width out), made anew once the adapter has moved."""
        versions = self._versions()
        if self._norm_O is None or versions != self._norm_versions:
            is_kept = self.dropout == 0 and self._is_one_matrix(linear_weight(self.base).dtype)
            merged_OI = self._merged() if is_kept else self._make_merged()
            self._norm_O, self._norm_versions = torch.linalg.vector_norm(merged_OI, dim=1), versions
        return self._norm_O
