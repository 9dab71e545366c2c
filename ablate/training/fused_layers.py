"""RMSNorm, rotary embeddings and gated MLPs as one kernel each, in the families that are known, once proven there.

The kernels are liger-kernel's (`ablate[fused]`), on a card; without it, or on a CPU, layers run as transformers wrote
them. Each is held against the layer's own code on the layer's own weights before it is used, and a whole step by
`selfcheck`; one that is wrong is left out. Its losses are not used: see `ablate.training.loss`.
"""

import importlib.metadata
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

# T tokens, H heads, D width

NUM_TOKENS, NUM_HEADS = 37, 3
"""Of what a kernel is tried on."""
MANY_ROWS, NARROW = 2**15, 256
"""liger-kernel norms so many rows, if they are no wider, as the heads of queries are, by another kernel than fewer."""
MOST_ERROR = 1.5
"""Times the layer's own rounding error in float16 and bfloat16, measured against the layer in float32."""
FLOOR = {torch.bfloat16: 2e-3, torch.float16: 3e-4, torch.float32: 2e-5, torch.float64: 1e-12}
"""An error below is none, whatever the layer's own; of the norm."""

LLAMA, GEMMA = (0.0, "llama"), (1.0, "gemma")
NORMS = {
    **dict.fromkeys(("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm", "Phi3RMSNorm"), LLAMA),
    **dict.fromkeys(("GraniteRMSNorm", "SmolLM3RMSNorm"), LLAMA),
    **dict.fromkeys(("GemmaRMSNorm", "Gemma2RMSNorm", "Gemma3RMSNorm"), GEMMA),
}
"""Class -> what is added to its weight, and where it rounds: before the weight (llama) or after it (gemma)."""
MLPS = {name.removesuffix("RMSNorm") + "MLP" for name in NORMS}
"""activation(gate) * up between three products, or two (Phi3)."""
ROTARY = "apply_rotary_pos_emb"
ACTIVATIONS = {"SiLU": "silu", "SiLUActivation": "silu", "GELUTanh": "gelu_tanh", "PytorchGELUTanh": "gelu_tanh"}

Call: TypeAlias = Callable[..., Any]


class Kernels(NamedTuple):
    """One kernel each, with its way back."""

    name: str
    rms_norm: Call
    """x, weight, eps, offset, casting -> normalised."""
    gated: Call
    """name of the activation, gate, up -> activation(gate) * up."""
    rotary: Call
    """q, k (1 x H x T x D), cos, sin (1 x T x D) -> both turned; may write over them."""


class Trial(NamedTuple):
    """A kernel and the code that it stands for, and what both are tried on."""

    kernel: Call
    eager: Call
    arguments: Callable[[], tuple[Tensor, ...]]
    """Drawn when it is tried. The first two, where there are two, have gradients."""
    weights: tuple[Tensor, ...] = ()


class Replaced(NamedTuple):
    """A function that runs in another's place."""

    what: str
    owner: Any
    """A module of a model, or a Python module."""
    name: str
    call: Call
    trial: Trial

    def put(self) -> None:
        setattr(self.owner, self.name, self.call)

    def restore(self) -> None:
        if isinstance(self.owner, nn.Module):
            self.owner.__dict__.pop(self.name, None)
        else:
            setattr(self.owner, self.name, self.trial.eager)


class FusedLayers:
    """The layers of a model that run as one kernel, until `restore`."""

    def __init__(self, model: nn.Module, kernels: Kernels) -> None:
        self.kernels = kernels
        self.problems: dict[str, str] = {}
        """Sort of layer -> why its kernel is not used."""
        found_by_sort: dict[str, list[Replaced]] = {}
        for one in replacements(model, kernels):
            found_by_sort.setdefault(one.what, []).append(one)
        for what, alike in found_by_sort.items():
            problem = _problem(alike[0].trial)
            if problem:
                self.problems[what] = problem
        self._used = [one for what, alike in found_by_sort.items() if what not in self.problems for one in alike]

    @property
    def sorts(self) -> tuple[str, ...]:
        """-> what runs as one kernel."""
        return tuple(dict.fromkeys(one.what for one in self._used))

    def put(self) -> None:
        for one in self._used:
            one.put()

    def restore(self) -> None:
        for one in self._used:
            one.restore()


def installed_kernels(device: str) -> Kernels | None:
    """-> liger-kernel's, on a card where it and triton are installed."""
    if device == "cpu" or any(importlib.util.find_spec(name) is None for name in ("triton", "liger_kernel")):
        return None
    from liger_kernel.ops import (  # type: ignore[import-not-found]
        LigerGELUMulFunction,
        LigerRMSNormFunction,
        LigerRopeFunction,
        LigerSiLUMulFunction,
    )

    gates = {"silu": LigerSiLUMulFunction, "gelu_tanh": LigerGELUMulFunction}
    return Kernels(
        f"liger-kernel {importlib.metadata.version('liger-kernel')}",
        lambda x, weight, eps, offset, casting: LigerRMSNormFunction.apply(x, weight, eps, offset, casting, False),
        lambda activation, gate, up: gates[activation].apply(gate, up),
        LigerRopeFunction.apply,
    )


def replacements(model: nn.Module, kernels: Kernels) -> Iterator[Replaced]:
    """-> a kernel for every layer that one is known for."""
    norms = [module for module in model.modules() if type(module).__name__ in NORMS]
    for norm in norms:
        yield _norm(norm, kernels)
    for module in model.modules() if norms else ():
        if type(module).__name__ in MLPS and type(_activation(module)).__name__ in ACTIVATIONS:
            yield _mlp(module, kernels, _weight(norms[0]))
    for name, norm in {type(norm).__module__: norm for norm in norms}.items():
        file = sys.modules[name]
        if hasattr(file, ROTARY):
            yield _rotary(file, getattr(file, ROTARY), kernels, _weight(norm), _head_widths(model))


def _norm(module: nn.Module, kernels: Kernels) -> Replaced:
    weight, (offset, casting) = _weight(module), NORMS[type(module).__name__]
    eps = getattr(module, "variance_epsilon", None) or module.eps

    def forward(hidden_states: Tensor) -> Tensor:
        return kernels.rms_norm(hidden_states, _weight(module), eps, offset, casting)  # type: ignore[no-any-return]

    def eager(hidden_states: Tensor) -> Any:
        return type(module).forward(module, hidden_states)

    def drawn() -> tuple[Tensor, ...]:
        numbers = (NUM_TOKENS, MANY_ROWS) if len(weight) <= NARROW else (NUM_TOKENS,)
        return tuple(_random(weight, num, len(weight))[None] for num in numbers)

    trial = Trial(lambda *xs: tuple(map(forward, xs)), lambda *xs: tuple(map(eager, xs)), drawn, (weight,))
    return Replaced(f"{type(module).__name__} {len(weight)}", module, "forward", forward, trial)


def _mlp(module: nn.Module, kernels: Kernels, like: Tensor) -> Replaced:
    """Tried is what lies between its products, in the dtype of the norms: the products may have weights of 4 bits."""
    activation: Any = _activation(module)
    kernel = ACTIVATIONS[type(activation).__name__]
    layer: Any = module

    def two_products(x: Tensor) -> Any:
        return layer.down_proj(kernels.gated(kernel, layer.gate_proj(x), layer.up_proj(x)))

    def one_product(x: Tensor) -> Any:
        return layer.down_proj(kernels.gated(kernel, *layer.gate_up_proj(x).chunk(2, dim=-1)))

    def drawn() -> tuple[Tensor, ...]:
        return tuple(_random(like, 2, 1, NUM_TOKENS, int(layer.config.intermediate_size)))

    trial = Trial(lambda gate, up: kernels.gated(kernel, gate, up), lambda gate, up: activation(gate) * up, drawn)
    forward = one_product if hasattr(module, "gate_up_proj") else two_products
    return Replaced(type(module).__name__, module, "forward", forward, trial)


def _rotary(file: Any, eager: Call, kernels: Kernels, like: Tensor, widths: tuple[int, int]) -> Replaced:
    """`widths`: of a head, and of what of it is turned."""
    width, turned = widths

    def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> Any:
        return kernels.rotary(q, k, cos, sin) if unsqueeze_dim == 1 else eager(q, k, cos, sin, unsqueeze_dim)

    def drawn() -> tuple[Tensor, ...]:
        q, k = (_random(like, NUM_TOKENS, heads, width)[None].transpose(1, 2) for heads in (NUM_HEADS * 2, NUM_HEADS))
        angles = _random(like, NUM_TOKENS, turned // 2).float().repeat(1, 2)[None]
        return q, k, angles.cos().to(like.dtype), angles.sin().to(like.dtype)

    return Replaced(f"{ROTARY} {turned}", file, ROTARY, rotary, Trial(rotary, eager, drawn))


def _problem(trial: Trial) -> str | None:
    """-> why a kernel cannot stand for the layer's own code: wrong by more than rounding, or it cannot be run here."""
    arguments = trial.arguments()
    wide = torch.promote_types(arguments[0].dtype, torch.float32)
    exact = _results(trial, trial.eager, [x.to(wide) for x in arguments])
    own = _results(trial, trial.eager, arguments)
    try:
        fused = _results(trial, trial.kernel, arguments)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the kernel is another package's, and so are its errors: the layer's own code remains
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    for known, rounded, value in zip(exact, own, fused, strict=True):
        most = max(MOST_ERROR * _error(rounded, known), FLOOR[rounded.dtype])
        error_of_fused = _error(value, known)
        if not error_of_fused <= most:
            return f"off by {error_of_fused:.1e} of the norm, where {most:.1e} is rounding"
    return None


def _results(trial: Trial, call: Call, arguments: Sequence[Tensor]) -> list[Tensor]:
    """-> what a layer gives, and the gradients of what it is given and of its trained weights."""
    leaves = [x.clone().requires_grad_(place < 2) for place, x in enumerate(arguments)]
    trained = [leaf for leaf in (*leaves, *trial.weights) if leaf.requires_grad]
    with torch.enable_grad():
        outputs = call(*(leaf * 1 for leaf in leaves))  # none of them a leaf: a kernel may write over what it is given
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        kept = [output.detach().clone() for output in outputs]
        cotangents = [_random(output, *output.shape) for output in kept]
        grads = torch.autograd.grad(outputs, trained, cotangents)
    return [*kept, *grads]


def _error(value: Tensor, known: Tensor) -> float:
    exact = known.double()
    return float((value.double() - exact).norm()) / max(float(exact.norm()), math.ulp(0.0))


def _random(like: Tensor, *shape: int) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))
    return drawn.to(like.device, like.dtype)


def _weight(module: nn.Module) -> Tensor:
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight


def _activation(module: nn.Module) -> Any:
    return getattr(module, "act_fn", None) or getattr(module, "activation_fn", None)


def _head_widths(model: Any) -> tuple[int, int]:
    """-> of a head, and of what of it is turned."""
    config = model.config.get_text_config()
    width = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    rope = getattr(config, "rope_parameters", None) or {}
    return width, int(width * (rope.get("partial_rotary_factor") or 1.0)) if isinstance(rope, dict) else width
