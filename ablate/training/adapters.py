"""Low-rank adapters of ours, in the files that PEFT reads: attached for training, saved, loaded, merged."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ablate.core import disk
from ablate.core.errors import StageError, did_you_mean
from ablate.core.values import Json
from ablate.study.schema import Lora
from ablate.training import files

# R rank, I width in, O width out

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
MOST_OF_AN_ADAPTER = 1.3
"""Up to this share of its adapter's numbers, a matrix of 16 bits is run in float32 with the adapter in it: a training
step of such models takes 0.82 of the time."""


class LoraLinear(nn.Module):
    """A frozen linear module and its adapter: y = W x + alpha/R B A dropout(x) (Hu et al. 2021, 2106.09685).

    A and B are float32 (or wider), and so is their product, as in PEFT; the sum is cast to the dtype of W x.
    Dropout is on while `training` is true of this very module; the base module stays as it was. What is dropped of a
    row follows from `row_seeds` alone, so that it does not depend on the rows forwarded beside it.
    """

    row_seeds: Sequence[str] = ()
    """One for each row of the next forward; none: nothing is dropped."""

    def __init__(self, base: nn.Module, lora: Lora, lora_A_RI: Tensor, lora_B_OR: Tensor) -> None:
        super().__init__()
        self.base = base
        self.scale = lora.alpha / lora.rank
        self.dropout = lora.dropout
        self.lora_A = nn.Parameter(lora_A_RI)
        self.lora_B = nn.Parameter(lora_B_OR)
        self._merged_OI: Tensor | None = None
        self._made_of: tuple[tuple[int, int], ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        if self._is_one_matrix(x.dtype):
            bias = self.base.bias
            return _Adapted.apply(x, self._merged(), bias, self.lora_A, self.lora_B, self.scale)  # type: ignore[no-any-return, no-untyped-call]
        linear = nn.functional.linear
        y: Tensor = self.base(x)
        wide = x.to(self.lora_A.dtype)
        if self.training and self.row_seeds:
            wide = wide * self._kept(wide)
        return linear(linear(wide, self.lora_A), self.lora_B * self.scale).add_(y).to(y.dtype)

    def _is_one_matrix(self, dtype: torch.dtype) -> bool:
        """Whether W + alpha/R B A, in the adapter's dtype, is less work than both apart, and as exact."""
        if type(self.base) not in (nn.Linear, Conv1D) or (self.training and self.row_seeds):
            return False
        weight = _weight(self.base)
        is_small = weight.numel() <= MOST_OF_AN_ADAPTER * (self.lora_A.numel() + self.lora_B.numel())
        return weight.dtype == dtype and (dtype == self.lora_A.dtype or is_small)

    @torch.no_grad()
    def _merged(self) -> Tensor:
        """-> W + alpha/R B A (width out x width in), in the adapter's dtype, made anew once the adapter has moved."""
        made_of = tuple((weight._version, weight.data_ptr()) for weight in (self.lora_A, self.lora_B))
        if made_of != self._made_of:
            weight = _weight(self.base)
            weight_OI = (weight.T if isinstance(self.base, Conv1D) else weight).to(self.lora_A.dtype)
            if self._merged_OI is None or self._merged_OI.dtype != weight_OI.dtype:
                self._merged_OI = torch.empty_like(weight_OI, memory_format=torch.contiguous_format)
            torch.addmm(weight_OI, self.lora_B, self.lora_A, alpha=self.scale, out=self._merged_OI)
            self._made_of = made_of
        return self._merged_OI  # type: ignore[return-value]

    def _kept(self, x_BTI: Tensor) -> Tensor:
        """-> 0 where dropped, else 1/(1 - dropout); drawn on the CPU, whose numbers do not depend on the width T."""
        drawn = [
            torch.rand(x_BTI.shape[1:], generator=torch.Generator().manual_seed(_number(seed)))
            for seed in self.row_seeds
        ]
        kept_BTI = (torch.stack(drawn) >= self.dropout).to(x_BTI.device, x_BTI.dtype)
        return kept_BTI / (1 - self.dropout)


class _Adapted(torch.autograd.Function):
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


@dataclass(frozen=True)
class Origin:
    """Which model an adapter belongs to, for readers of its files."""

    name: str | None = None
    revision: str | None = None


def linear_modules(model: nn.Module) -> dict[str, nn.Module]:
    """-> every module that can carry an adapter, by its full name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}


def attach(model: nn.Module, lora: Lora, seed: int, dtype: torch.dtype = torch.float32) -> dict[str, LoraLinear]:
    """Freezes a model and puts a new adapter on every module that `lora.target_modules` names.

    A is uniform in +-1/sqrt(width in), as PEFT's; B is zero, so that nothing changes yet. The numbers depend on the
    seed and the module's name alone: not on the device, nor on which other modules are adapted.
    Raises StageError when a name fits no linear module, or the output head is tied to the embedding.
    """
    model.requires_grad_(False)
    found = _targets(model, lora.target_modules)
    adapters = {name: _new(name, module, lora, seed, dtype) for name, module in found.items()}
    for name, adapter in adapters.items():
        model.set_submodule(name, adapter)
    return adapters


def _targets(model: nn.Module, wanted: tuple[str, ...]) -> dict[str, nn.Module]:
    linear = linear_modules(model)
    for target in wanted:
        if not any(_is_named(name, target) for name in linear):
            raise StageError(
                f"lora.target_modules: the model ({type(model).__name__}) has no linear module {target!r}."
                + did_you_mean(target, {name.rpartition(".")[2] for name in linear}, limit=30)
            )
    found = {name: module for name, module in linear.items() if any(_is_named(name, target) for target in wanted)}
    _refuse_tied(model, found)
    return found


def _is_named(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def _refuse_tied(model: nn.Module, found: Mapping[str, nn.Module]) -> None:
    embedding = model.get_input_embeddings()  # type: ignore[operator]
    for name, module in found.items():
        if module.weight is embedding.weight:
            raise StageError(
                f"lora.target_modules: {name!r} shares its weights with the input embedding of "
                f"{type(model).__name__}, so an adapter on it could not be merged; leave it out"
            )


def _new(name: str, module: nn.Module, lora: Lora, seed: int, dtype: torch.dtype) -> LoraLinear:
    device = _weight(module).device
    width_out, width_in = _shape(module)
    uniform_RI = torch.rand(lora.rank, width_in, generator=torch.Generator().manual_seed(_number(f"{seed}/{name}")))
    lora_A_RI = ((2 * uniform_RI - 1) / math.sqrt(width_in)).to(device, dtype)
    return LoraLinear(module, lora, lora_A_RI, torch.zeros(width_out, lora.rank, device=device, dtype=dtype))


def _number(seed: str) -> int:
    """-> a seed of 63 bits."""
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") >> 1


def _weight(module: nn.Module) -> Tensor:
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight


def _shape(module: nn.Module) -> tuple[int, int]:
    """-> (width out, width in); Conv1D keeps its weight the other way round."""
    first, second = _weight(module).shape
    return (int(second), int(first)) if isinstance(module, Conv1D) else (int(first), int(second))


def tensors(adapters: Mapping[str, LoraLinear]) -> dict[str, nn.Parameter]:
    """-> the weights under the names that PEFT saves them by, in the order of the names."""
    named = {}
    for name in sorted(adapters):
        named[f"{PREFIX}{name}.lora_A.weight"] = adapters[name].lora_A
        named[f"{PREFIX}{name}.lora_B.weight"] = adapters[name].lora_B
    return named


def config(adapters: Mapping[str, LoraLinear], lora: Lora, origin: Origin) -> dict[str, Json]:
    """-> adapter_config.json as PEFT reads it."""
    alpha = int(lora.alpha) if lora.alpha == int(lora.alpha) else lora.alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": origin.name,
        "revision": origin.revision,
        "r": lora.rank,
        "lora_alpha": alpha,
        "lora_dropout": lora.dropout,
        "target_modules": list(lora.target_modules),
        "bias": "none",
        "fan_in_fan_out": any(isinstance(adapter.base, Conv1D) for adapter in adapters.values()),
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }


def save(folder: Path, adapters: Mapping[str, LoraLinear], lora: Lora, origin: Origin) -> None:
    """Writes adapter_config.json and adapter_model.safetensors, as PEFT's save_pretrained does."""
    weights = {name: weight.detach().cpu().contiguous() for name, weight in tensors(adapters).items()}
    files.save(weights, folder / WEIGHTS, {"format": "pt"})
    disk.write(folder / CONFIG, json.dumps(config(adapters, lora, origin), indent=2, sort_keys=True) + "\n")


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """-> (adapter_config.json, weights by name). Raises StageError for a folder that holds no readable adapter."""
    try:
        return json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise StageError(f"{folder}: no readable adapter ({error}); remove its stage folder and run again") from error


def deltas(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """-> for each adapted module: its name and alpha/R B A (width out x width in), float32."""
    settings, weights = load(folder)
    scale = settings["lora_alpha"] / settings["r"]
    for name, lora_A_RI in weights.items():
        if name.endswith(".lora_A.weight"):
            module = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
            lora_B_OR = weights[name.replace(".lora_A.", ".lora_B.")]
            yield module, (lora_B_OR @ lora_A_RI) * scale


@torch.no_grad()
def merge_into(model: nn.Module, folder: Path) -> None:
    """Adds an adapter to the weights it was trained on, in float32 or wider; adapted weights stay in that dtype."""
    linear = linear_modules(model)
    for name, delta_OI in deltas(folder):
        if name not in linear:
            raise StageError(f"{folder}: the adapter is for a module {name!r} that {type(model).__name__} lacks")
        module = linear[name]
        weight = _weight(module)
        delta = delta_OI.to(weight.device)
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        module.weight = nn.Parameter(wide + (delta.T if isinstance(module, Conv1D) else delta), requires_grad=False)
