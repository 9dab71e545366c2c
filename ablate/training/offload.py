"""A frozen model whose layers wait in the machine's memory, and come to the card one ahead of the one that runs."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

WAITING = "waiting_layers"
"""What a model is given whose layers wait."""


class Copies:
    """Copies from the machine's memory to a device; to a card on a stream of their own, beside what it computes."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def waiting(self, weight: Tensor) -> Tensor:
        """-> a weight as it waits: in memory that a card can read by itself."""
        on_host = weight.detach().cpu()
        return on_host.pin_memory() if self._stream else on_host.clone()

    def begin(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """-> the weights on the device, once `finish` has been called."""
        if self._stream is None:
            return [weight.to(self.device, copy=True) for weight in weights]
        with torch.cuda.stream(self._stream):
            return [weight.to(self.device, non_blocking=True) for weight in weights]

    def finish(self, weights: Sequence[Tensor]) -> None:
        """What is computed from here on finds the weights there."""
        if self._stream:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_stream(self._stream)
            for weight in weights:
                weight.record_stream(computing)  # its memory is not written over before that is done


class WaitingLayers:
    """The layers of a model that nothing is trained of; at most two of them are on the device."""

    def __init__(self, layers: Sequence[nn.Module], copies: Copies) -> None:
        self.copies = copies
        self.weights = [weights_of(layer) for layer in layers]
        self.shapes = {id(weight): tuple(weight.shape) for weights in self.weights for weight in weights}
        self.waiting: list[list[Tensor]] = []
        self.coming: dict[int, list[Tensor]] = {}
        for number, layer in enumerate(layers):
            self.waiting.append([copies.waiting(weight) for weight in self.weights[number]])
            self._leave(number)
            layer.register_forward_pre_hook(lambda *_, number=number: self._enter(number))
            layer.register_forward_hook(lambda *_, number=number: self._leave(number), always_call=True)

    def _begin(self, number: int) -> None:
        if number not in self.coming:
            self.coming[number] = self.copies.begin(self.waiting[number])

    def _enter(self, number: int) -> None:
        self._begin(number)
        there = self.coming.pop(number)
        self.copies.finish(there)
        for weight, values in zip(self.weights[number], there, strict=True):
            weight.data = values
        if number + 1 < len(self.waiting):
            self._begin(number + 1)

    def _leave(self, number: int) -> None:
        for weight in self.weights[number]:
            weight.data = weight.data.new_empty(0, device=self.copies.device)


def keep_on_host(model: Any, device: torch.device, copies: Copies | None = None) -> bool:
    """Leaves a frozen model's layers in the machine's memory and brings all else to the device.

    -> False, and nothing done, where the model shows no list of layers that all can wait.
    """
    if not can_wait(model):
        return False
    setattr(model, WAITING, WaitingLayers(decoder_layers(model), copies or Copies(device)))
    model.to(device)
    return True


def can_wait(model: Any) -> bool:
    """Whether the layers of a model on one card can wait, and do not yet."""
    is_frozen = not any(parameter.requires_grad for parameter in model.parameters())
    is_divided = hasattr(model, "_hf_hook") or any(type(weight.data) is not Tensor for weight in model.parameters())
    return is_frozen and not is_divided and not hasattr(model, WAITING) and bool(decoder_layers(model))


def weights_of(module: nn.Module) -> list[Tensor]:
    """-> all tensors of a module: of weights in few bits the codes, which are buffers."""
    return [*module.parameters(), *module.buffers()]


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """-> name of each parameter -> its shape, whether it is there or waits."""
    waiting: WaitingLayers | None = getattr(model, WAITING, None)
    shapes = waiting.shapes if waiting else {}
    return {name: shapes.get(id(weight), tuple(weight.shape)) for name, weight in model.named_parameters()}


def decoder_layers(model: Any) -> list[nn.Module]:
    """-> the layers above the embedding, lowest first; none where they are not one list of modules with own weights."""
    number = model.config.get_text_config().num_hidden_layers
    lists = [part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == number]
    if len(lists) != 1:
        return []
    layers = list(lists[0])
    each = [{id(weight) for weight in weights_of(layer)} for layer in layers]
    is_shared = sum(map(len, each)) != len(set().union(*each))
    return [] if is_shared else layers
