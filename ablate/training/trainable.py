"""What a training changes: adapters, or every weight; both as named float32 tensors that an optimizer moves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ablate.study.training_recipes import Lora, Train
from ablate.training import adapters as lora
from ablate.training import files
from ablate.training.adapter_file import PREFIX, SavedModules
from ablate.training.adapter_targets import is_within, modules_to_save
from ablate.training.merging import FULL_WEIGHTS
from ablate.training.quantized import refuse_quantized


class Trainable(Protocol):
    """The weights of a training."""

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Float32 (or wider) leaves that the optimizer moves, by name."""

    def seed_dropout(self, seed: int, step: int, rows: Sequence[int], lengths: Sequence[int]) -> None:
        """Before the forward pass of some rows: settles what dropout drops of each.

        `lengths`: their tokens, padding not counted.
        """

    def discard_grads(self) -> None:
        """Forgets the gradients of a step, wherever they have got to."""

    def collect_grads(self) -> None:
        """After each backward pass: brings what was added to the model's gradients to the weights' own."""

    def update_model(self) -> None:
        """After the weights moved: brings them to the model."""

    def save(self, folder: Path) -> None:
        """Writes the result of the training."""


class Masters:
    """Parameters of a model, and float32 copies of those of 16 bits, whose steps would round to nothing."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], dtype: torch.dtype) -> None:
        self.parameters = dict(parameters)
        self.weights: Mapping[str, Tensor] = {
            name: parameter if parameter.dtype == dtype else nn.Parameter(parameter.detach().to(dtype))
            for name, parameter in self.parameters.items()
        }

    def discard_grads(self) -> None:
        for weight in (*self.weights.values(), *self.parameters.values()):
            weight.grad = None

    def collect_grads(self) -> None:
        for name, parameter in self.parameters.items():
            master = self.weights[name]
            if master is not parameter and parameter.grad is not None:
                wide = parameter.grad.to(master.dtype)
                master.grad = wide if master.grad is None else master.grad.add_(wide)
                parameter.grad = None

    @torch.no_grad()
    def update_model(self) -> None:
        for name, parameter in self.parameters.items():
            if self.weights[name] is not parameter:
                parameter.copy_(self.weights[name])


class LoraAdapters:
    """LoRA: the model uses the float32 weights themselves; beside them maybe modules that are trained whole."""

    def __init__(self, model: nn.Module, recipe: Lora, seed: int, origin: lora.Origin) -> None:
        self.recipe = recipe
        self.origin = origin
        dtype = _master_dtype(model)
        self.saved_modules = tuple(modules_to_save(model, recipe))
        saved = {name: value for name, value in model.named_parameters() if is_within(name, self.saved_modules)}
        self.adapters = lora.attach(model, recipe, seed, dtype)
        for parameter in saved.values():
            parameter.requires_grad_(True)
        self.masters = Masters(saved, dtype)
        whole = {f"{PREFIX}{name}": weight for name, weight in self.masters.weights.items()}
        self.weights: Mapping[str, Tensor] = {**lora.named_tensors(self.adapters), **whole}
        for adapter in self.adapters.values():
            adapter.training = recipe.dropout > 0  # of this module alone

    def seed_dropout(self, seed: int, step: int, rows: Sequence[int], lengths: Sequence[int]) -> None:
        if self.recipe.dropout:
            for name, adapter in self.adapters.items():
                adapter.row_seeds = [f"{seed}/{step}/{row}/{name}" for row in rows]
                adapter.row_lengths = lengths

    def discard_grads(self) -> None:
        for weight in self.weights.values():
            weight.grad = None
        self.masters.discard_grads()

    def collect_grads(self) -> None:
        self.masters.collect_grads()

    def update_model(self) -> None:
        self.masters.update_model()
        for adapter in self.adapters.values():
            adapter.moved()

    def save(self, folder: Path) -> None:
        saved = SavedModules(self.saved_modules, self.masters.weights)
        lora.save(folder, self.adapters, self.recipe, self.origin, saved)


class FullWeights:
    """`lora: none`: all weights."""

    def __init__(self, model: nn.Module) -> None:
        model.requires_grad_(True)
        self.masters = Masters(dict(model.named_parameters()), _master_dtype(model))
        self.weights = self.masters.weights

    def seed_dropout(self, seed: int, step: int, rows: Sequence[int], lengths: Sequence[int]) -> None:
        pass

    def discard_grads(self) -> None:
        self.masters.discard_grads()

    def collect_grads(self) -> None:
        self.masters.collect_grads()

    def update_model(self) -> None:
        self.masters.update_model()

    def save(self, folder: Path) -> None:
        files.save(self.weights, folder / FULL_WEIGHTS, {"format": "pt"})


def make_trainable(model: Any, recipe: Train, seed: int, origin: lora.Origin) -> Trainable:
    """-> what `recipe` trains of a model in eval mode, where no dropout but the adapters' own is on."""
    if recipe.lora is None:
        refuse_quantized(model, "lora: none")
    trainable = LoraAdapters(model, recipe.lora, seed, origin) if recipe.lora else FullWeights(model)
    if recipe.gradient_checkpointing:
        recompute_activations(model)
    return trainable


def _master_dtype(model: nn.Module) -> torch.dtype:
    return torch.promote_types(next(model.parameters()).dtype, torch.float32)


def are_recomputed(model: Any) -> bool:
    """Whether layers are run again on the way back."""
    return any(isinstance(module, GradientCheckpointingLayer) and module.training for module in model.modules())


def recompute_activations(model: Any) -> None:
    """Layers are run again on the way back. transformers does so in training mode alone; their dropout stays off."""
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True  # of this module alone
            for name, value in vars(module).items():
                if "dropout" in name and isinstance(value, float):
                    setattr(module, name, 0.0)
