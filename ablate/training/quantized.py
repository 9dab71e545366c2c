"""Linear modules whose frozen weights are kept in 4 or 8 bits and multiplied in the model's dtype.

`nf4`: blocks of 64 weights share a float32 scale and each is one of 16 values (QLoRA, 2305.14314, without its second
quantisation of the scales; bitsandbytes). `int8`: 255 even steps, one float32 scale for each output (the weights of
LLM.int8(), 2208.07339, whose activations are quantised too; ours are not).

A quantised model is one of numbers: `scale x value`, made from the checkpoint's exact weights, and so the same one
whatever dtype it is run in. What is trained on top of it is added to these numbers in float32 and rounded once, when
they are multiplied: so it is the model, bit for bit, that an export writes.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ablate.core.errors import StageError
from ablate.study.quantize import BLOCK, NOT_INSTALLED, Quantize, is_installed
from ablate.training.adapter_file import ModuleAdapter

# I width in, O width out


class Codes(Protocol):
    """A matrix of O x I in few bits."""

    def numbers(self, dtype: torch.dtype) -> Tensor:
        """-> what the codes stand for (O x I), rounded once."""


class Nf4(nn.Module):
    """4 bits a weight, and 32 for each 64 of them."""

    codes: Tensor
    scales: Tensor

    def __init__(self, weight_OI: Tensor) -> None:
        super().__init__()
        from bitsandbytes import functional

        self.shape = weight_OI.shape
        wide_N = weight_OI.to(torch.float32).flatten()  # padded to whole blocks, which every kernel takes
        wide_N = nn.functional.pad(wide_N, (0, -len(wide_N) % BLOCK))
        codes, state = functional.quantize_4bit(wide_N, blocksize=BLOCK, quant_type="nf4")
        self.values = state.code
        self.register_buffer("codes", codes, persistent=False)
        self.register_buffer("scales", state.absmax, persistent=False)

    def numbers(self, dtype: torch.dtype) -> Tensor:
        from bitsandbytes import functional

        known = dtype if dtype != torch.float64 else torch.float32
        padded = torch.Size([1, len(self.scales) * BLOCK])
        state = functional.QuantState(
            self.scales, shape=padded, code=self.values, blocksize=BLOCK, quant_type="nf4", dtype=known
        )
        numbers_1N = functional.dequantize_4bit(self.codes, state).to(dtype)
        return numbers_1N[0, : self.shape.numel()].view(self.shape)  # type: ignore[no-any-return]


class Int8(nn.Module):
    """8 bits a weight, and 32 for each output."""

    codes: Tensor
    scales: Tensor

    def __init__(self, weight_OI: Tensor) -> None:
        super().__init__()
        wide_OI = weight_OI.to(torch.float32)
        scales_O1 = wide_OI.abs().amax(1, keepdim=True) / 127
        codes_OI = (wide_OI / scales_O1.clamp(min=torch.finfo(torch.float32).tiny)).round_().to(torch.int8)
        self.register_buffer("codes", codes_OI, persistent=False)
        self.register_buffer("scales", scales_O1, persistent=False)

    def numbers(self, dtype: torch.dtype) -> Tensor:
        return torch.mul(self.codes, self.scales, out=torch.empty_like(self.codes, dtype=dtype))


FORMS: dict[Quantize, type[Nf4] | type[Int8]] = {"nf4": Nf4, "int8": Int8}


class QuantizedLinear(nn.Module):
    """y = W x + b with W = numbers + s B A + ... in `dtype`: what the codes stand for, and trainings on top of it.

    Nothing is kept of a forward pass: W is made anew for the way back.
    """

    def __init__(self, weight_OI: Tensor, form: Quantize, bias: nn.Parameter | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = weight_OI.shape
        self.form = form
        self.codes = FORMS[form](weight_OI)
        self.bias = bias
        self.dtype = dtype
        self.is_turned = False
        """Whether it stands for a Conv1D."""
        self.trainings: list[ModuleAdapter] = []

    @property
    def shape(self) -> tuple[int, int]:
        """As the model's own weight has it."""
        widths = (self.out_features, self.in_features)
        return widths[::-1] if self.is_turned else widths

    @property
    def weight(self) -> Tensor:
        """-> W (width out x width in), as it is multiplied."""
        if not self.trainings:
            return self.codes.numbers(self.dtype)
        weight_OI = self.codes.numbers(torch.promote_types(self.dtype, torch.float32))
        for training in self.trainings:
            weight_OI = training.merged(weight_OI)
        return weight_OI.to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return _Product.apply(x, self)  # type: ignore[no-any-return, no-untyped-call]


class _Product(torch.autograd.Function):
    """W x + b of a quantised module; the gradient goes to x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: QuantizedLinear) -> Tensor:
        ctx.linear = linear
        return nn.functional.linear(x, linear.weight, linear.bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        return (grad @ ctx.linear.weight if ctx.needs_input_grad[0] else None), None


def quantized_modules(model: nn.Module) -> list[tuple[str, QuantizedLinear]]:
    """-> (full name, module) of those in few bits."""
    return [(name, one) for name, one in model.named_modules() if isinstance(one, QuantizedLinear)]


def form_of(model: nn.Module) -> Quantize | None:
    """-> how a model's linear modules are kept; None where none is in few bits."""
    return next((module.form for _, module in quantized_modules(model)), None)


def is_turned(module: nn.Module) -> bool:
    """Whether a model's own module has its weight as width in x width out."""
    return module.is_turned if isinstance(module, QuantizedLinear) else isinstance(module, Conv1D)


def require_library(form: Quantize) -> None:
    """Raises StageError where bitsandbytes is needed and not installed."""
    if form == "nf4" and not is_installed():
        raise StageError(NOT_INSTALLED)


def refuse_quantized(model: nn.Module, what: str) -> None:
    """Raises StageError where a module that is to be trained whole is, or contains, a quantised one."""
    if any(isinstance(module, QuantizedLinear) for module in model.modules()):
        raise StageError(f"{what}: weights that are kept in few bits (quantize) cannot be trained; train an adapter")


def quantized(module: nn.Module, weight: Tensor, form: Quantize, dtype: torch.dtype) -> QuantizedLinear:
    """-> a module in the place of a linear one, with `weight` (as that has it) in few bits."""
    weight_OI = weight.T if is_turned(module) else weight
    linear = QuantizedLinear(weight_OI, form, module.bias, dtype)  # type: ignore[arg-type]
    linear.is_turned = is_turned(module)
    return linear


@torch.no_grad()
def dequantize(model: nn.Module) -> None:
    """Puts ordinary modules in the place of the quantised: the same model, in its dtype."""
    for name, module in [*model.named_modules()]:
        if isinstance(module, QuantizedLinear):
            model.set_submodule(name, _plain(module))


def _plain(module: QuantizedLinear) -> nn.Module:
    weight_OI, widths = module.weight, (module.in_features, module.out_features)
    with torch.device("meta"):
        plain = Conv1D(widths[1], widths[0]) if module.is_turned else nn.Linear(*widths, bias=module.bias is not None)
    plain.weight = nn.Parameter(weight_OI.T.contiguous() if module.is_turned else weight_OI, requires_grad=False)
    if module.bias is not None:
        plain.bias = module.bias
    return plain.eval()
