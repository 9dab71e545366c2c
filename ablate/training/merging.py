"""What trainings made of a model's weights: put together one weight at a time, so that no second model is held."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ablate.core.errors import StageError
from ablate.core.model_files import files_of
from ablate.study.quantize import Quantize
from ablate.training import adapters as lora
from ablate.training.adapter_checks import fitting
from ablate.training.adapter_file import ModuleAdapter
from ablate.training.adapter_targets import linear_modules, refuse_shared
from ablate.training.lora_linear import linear_weight
from ablate.training.quantized import QuantizedLinear, quantized, require_library
from ablate.training.tensor_checks import few, is_finite, stored_names

FULL_WEIGHTS = "model.safetensors"
"""Of a training of all weights."""
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

LEAST_QUANTIZED = 0.5
"""Share of a model's weights, apart from embeddings and head, that must lie in linear modules to be quantised."""

Change: TypeAlias = Callable[[Tensor], Tensor]
"""A weight as it was -> as a training left it."""
Exact: TypeAlias = Callable[[str], Tensor]
"""Name of a parameter -> it, as the checkpoint has it."""


def merge(
    model: nn.Module,
    adapters: Sequence[Path],
    trainings: Sequence[Path] = (),
    exact: Exact | None = None,
    quantize: Quantize | None = None,
    device: str = "cpu",
    quantize_on: str | None = None,
) -> None:
    """Makes what a chain of trainings made of a model's weights; see `Merging`.

    `quantize`: after `adapters` and before `trainings`, its linear modules then being on `device`; `quantize_on`: where
    that is computed, unless there.
    """
    merging = Merging(model, exact)
    for folder in adapters:
        merging.add(folder)
    if quantize:
        require_library(quantize)
        merging.quantize(quantize, device, quantize_on or device)
    for folder in trainings:
        merging.add(folder)
    merging.apply()


class Merging:
    """A chain of trainings on top of a model, first to last, before anything of it is computed.

    Each changed weight is summed in float32 (or wider) from what `exact` gives (the model's own, unless said), then
    cast once to the dtype that the model has it in. All others stay as they are: `model.to(dtype)` would round buffers
    too, the rotary frequencies among them, and weights that the architecture keeps in float32.
    """

    def __init__(self, model: nn.Module, exact: Exact | None = None) -> None:
        self.model = model
        self._exact = exact or model.get_parameter
        self._changes: dict[str, list[Change]] = {}

    def add(self, folder: Path) -> None:
        """Takes over the `out` folder of a training: an adapter in PEFT's files, or all weights.

        Raises StageError for what does not fit the model, and for a setting of PEFT's that we do not know to mean
        nothing here.
        """
        if (folder / FULL_WEIGHTS).is_file():
            self._replace_all(folder / FULL_WEIGHTS)
            return
        adapter = fitting(self.model, folder, *lora.load(folder), weight_of=self.weight)
        linear = linear_modules(self.model)
        for name, of_module in adapter.adapted.items():
            if isinstance(module := linear[name], QuantizedLinear):
                module.trainings.append(of_module.on(module.codes.codes.device))
                continue
            self._untie(name, linear[name])
            is_turned = isinstance(linear[name], Conv1D)
            self._changes.setdefault(f"{name}.weight", []).append(partial(_adapted, of_module, is_turned))
        for name, weight in adapter.saved.items():
            self._require_parameter(name, weight, folder)
            self._changes[name] = [partial(_replaced, weight)]

    def _replace_all(self, file: Path) -> None:
        """Fully trained weights take the place of the model's own, each read when it is wanted."""
        named = dict(self.model.named_parameters())
        try:
            opened: Any = safe_open(file, framework="pt")
            shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118 (no mapping)
            dtypes = {opened.get_slice(name).get_dtype() for name in shapes}
        except (OSError, SafetensorError) as error:
            raise StageError(f"{file} cannot be read ({error}); remove its stage folder and run again") from error
        differing = sorted(named.keys() ^ shapes.keys()) or [n for n in named if tuple(named[n].shape) != shapes[n]]
        differing = differing or (sorted(named) if dtypes - _DTYPES.keys() else [])
        if differing:
            raise StageError(f"{file}: these weights do not fit {type(self.model).__name__}: {few(differing, 8)}")
        self._changes = {name: [partial(_read, opened, name)] for name in named}

    def _untie(self, name: str, module: nn.Module) -> None:
        """An adapter is on one of the modules that share a weight, as an input embedding and the head may."""
        parameter = module.weight
        named = [one for one, value in self.model.named_parameters(remove_duplicate=False) if value is parameter]
        if len(named) > 1:
            self._changes[f"{name}.weight"] = [*self._changes.get(named[0], ())]
            module.weight = nn.Parameter(parameter.detach().clone(), requires_grad=False)  # type: ignore[operator]

    def _require_parameter(self, name: str, weight: Tensor, folder: Path) -> None:
        parameter = dict(self.model.named_parameters(remove_duplicate=False)).get(name)
        if parameter is None or parameter.shape != weight.shape:
            has = "none" if parameter is None else f"one of shape {tuple(parameter.shape)}"
            what = f"the adapter has a weight {name!r} of shape {tuple(weight.shape)}"
            raise StageError(f"{folder}: {what}, {type(self.model).__name__} has {has}")
        refuse_shared(self.model, [name.rpartition(".")[0]], f"{folder}: modules_to_save")

    def weight(self, name: str) -> Tensor:
        """-> a parameter as the chain leaves it, on the model's device, not yet cast."""
        device = self.model.get_parameter(name).device
        weight = self._exact(name).detach()
        for change in self._changes.get(name, ()):
            weight = change(weight.to(device)).to(device)
        return weight

    @torch.no_grad()
    def quantize(self, form: Quantize, device: str, on: str) -> None:
        """Puts modules of few bits, made `on` one device, on another in the place of the linear ones but the head.

        What was added before is in their numbers; trainings added from now on are summed with these.
        Raises StageError where a weight is not finite, or most weights lie elsewhere.
        """
        embedding = self.model.get_input_embeddings()  # type: ignore[operator]
        apart = {id(embedding.weight), *(id(w) for w in _head_weights(self.model))}
        linear = {name: one for name, one in linear_modules(self.model).items() if id(one.weight) not in apart}
        self._require_most(linear, apart, form)
        for name, module in linear.items():
            dtype, weight = module.weight.dtype, self.weight(f"{name}.weight").to(on)
            if not is_finite(weight):
                raise StageError(f"{name}.weight is not finite, so it cannot be kept in few bits")
            self._changes.pop(f"{name}.weight", None)
            in_few_bits = quantized(module, weight, form, dtype)  # type: ignore[arg-type]
            self.model.set_submodule(name, in_few_bits.to(device))

    def _require_most(self, linear: Mapping[str, nn.Module], apart: Collection[int], form: Quantize) -> None:
        num = sum(linear_weight(module).numel() for module in linear.values())
        others = sum(weight.numel() for weight in self.model.parameters() if id(weight) not in apart)
        if num < LEAST_QUANTIZED * others:
            raise StageError(
                f"quantize: {form} keeps linear modules in few bits, and of {type(self.model).__name__} they hold"
                f" {num / max(1, others):.0%} of the weights (experts may lie in one tensor): leave quantize out"
            )

    @torch.no_grad()
    def apply(self) -> None:
        """Puts every changed weight into the model."""
        for name in self._changes:
            self.model.get_parameter(name).copy_(self.weight(name))


def _head_weights(model: Any) -> Sequence[Tensor]:
    head = model.get_output_embeddings()
    return [*head.parameters()] if head is not None else []


def _adapted(adapter: ModuleAdapter, is_turned: bool, weight: Tensor) -> Tensor:
    merged_OI = adapter.merged(weight.T if is_turned else weight)
    return merged_OI.T.contiguous() if is_turned else merged_OI


def _read(file: Any, name: str, before: Tensor) -> Tensor:
    return file.get_tensor(name)  # type: ignore[no-any-return]


def _replaced(weight: Tensor, before: Tensor) -> Tensor:
    return weight.to(torch.promote_types(before.dtype, torch.float32))


class Checkpoint:
    """A model's folder, whose weights are read exactly, each when it is asked for."""

    def __init__(self, folder: Path, model: Any, load: Callable[[torch.dtype], Any]) -> None:
        """`load` loads it whole: where a weight of the model is made from several of the files'."""
        opened: list[Any] = [safe_open(folder / name, framework="pt") for name in files_of(folder).weights]
        self._files = {name: file for file in opened for name in file.keys()}  # noqa: SIM118 (no mapping)
        self._names = stored_names(model, self._files)
        self._load = load
        self.dtype = stored_dtype(folder)

    @cached_property
    def _whole(self) -> Any:
        return self._load(self.dtype)

    def weight(self, name: str) -> Tensor:
        """-> a parameter of the model in the checkpoint's widest dtype."""
        if name not in self._names:
            return self._whole.get_parameter(name)  # type: ignore[no-any-return]
        stored = self._names[name]
        return self._files[stored].get_tensor(stored).to(self.dtype)  # type: ignore[no-any-return]


def stored_dtype(folder: Path) -> torch.dtype:
    """-> the widest floating dtype of a checkpoint, in which every weight of it is exact."""
    widest: torch.dtype = torch.bfloat16
    for name in files_of(folder).weights:
        with safe_open(folder / name, framework="pt") as file:
            kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (no mapping)
        for kind in kinds & _DTYPES.keys():
            widest = torch.promote_types(widest, _DTYPES[kind])
    return widest
