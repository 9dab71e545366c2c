"""A causal model cut in two: the body, up to the hidden states after the final norm, and the output head."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ablate.core.errors import StageError
from ablate.training import attention, batches
from ablate.training.head import Head, make_head
from ablate.training.offload import shapes_of

NUM_PROBE = 12
CPU_OVERHEAD = 256
"""Tokens in the time that one more micro-batch costs, of the smallest models."""
LAYER_LAUNCH_S = 2.3e-3
"""A layer's kernels, forward and backward with adapters: about 200, each issued in 12 microseconds."""
CARD_FLOPS = 4e14
"""A second, of 16 bits. The same number for every card, so that a stage that goes on elsewhere is cut as it was."""

# B rows, T positions, M gathered positions, D hidden width, V vocabulary (of the tokenizer)

HEAD_TOLERANCE = {torch.bfloat16: 1e-2, torch.float16: 2e-3, torch.float32: 1e-5, torch.float64: 1e-9}
"""Of the largest logit: the same hidden states, multiplied twice."""
SHAPE_TOLERANCE = {torch.bfloat16: 1e-1, torch.float16: 2e-2, torch.float32: 1e-4, torch.float64: 1e-9}
"""Of the largest logit: kernels may round differently for inputs of another shape, layer after layer."""


class Body(NamedTuple):
    """What is run below a head."""

    module: Any
    output_name: str
    """Of the hidden states among the module's outputs."""

    def __call__(self, **inputs: Any) -> Tensor:
        """-> B x T x D: what the head is given."""
        states_BTD: Tensor = getattr(self.module(**inputs), self.output_name)
        return states_BTD

    def with_layers(self, **inputs: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """-> the same, and what every layer gives, the embedding's first, the last after the final norm."""
        outputs = self.module(**inputs, output_hidden_states=True)
        return getattr(outputs, self.output_name), outputs.hidden_states


@dataclass(frozen=True, eq=False)
class ModelParts:
    """A model as it is trained and asked: body and head apart, where that is exact."""

    model: Any
    head: Head
    is_packed: bool = False
    """Whether rows may stand one after the other: it was seen to answer each as alone."""

    @cached_property
    def body(self) -> Body:
        """The whole model on the dense path."""
        if self.head.weight is None:
            return Body(self.model, "logits")
        return Body(self.model.base_model, "last_hidden_state")

    @cached_property
    def cutting(self) -> batches.Cutting:
        """How rows are put together for this model."""
        return batches.Cutting(self._overhead, _borders(self.model.config.get_text_config()), self.is_packed)

    @property
    def _overhead(self) -> int:
        """Tokens that take as long as one more micro-batch does, whatever is in it: the smaller the model, the more.

        On a CPU as long as 64 million weights take for a token; on a card as long as its kernels take to issue. By
        counts and not by a clock: a stage that goes on after a kill must be cut as before. Rows that are packed do not
        ask for it.
        """
        num_weights = sum(map(math.prod, shapes_of(self.model).values()))
        if self.model.device.type == "cpu":
            return max(batches.OVERHEAD, min(CPU_OVERHEAD, 64_000_000 // num_weights))
        return round(self.depth * LAYER_LAUNCH_S * CARD_FLOPS / (4 * num_weights))

    def hidden(self, batch: batches.MicroBatch | batches.ModelInputs) -> Tensor:
        """-> M x D: what the head is given at the positions; logits themselves on the dense path."""
        return self.body(**_inputs(batch)).flatten(0, 1)[batch.positions_M]

    def hidden_and_layers(
        self, batch: batches.MicroBatch | batches.ModelInputs, layers: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]]:
        """-> the same, and M x D of each of some layers; 0 is the embedding. Raises StageError where one lacks."""
        hidden_BTD, states = self.body.with_layers(**_inputs(batch))
        positions_M = batch.positions_M
        if len(states) != self.depth + 1:
            raise StageError(f"{type(self.model).__name__} gives {len(states)} hidden states of {self.depth} layers")
        return hidden_BTD.flatten(0, 1)[positions_M], [states[layer].flatten(0, 1)[positions_M] for layer in layers]

    @property
    def depth(self) -> int:
        """Layers above the embedding."""
        return int(self.model.config.get_text_config().num_hidden_layers)

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return int(self.model.config.get_text_config().hidden_size)


def _inputs(batch: batches.MicroBatch | batches.ModelInputs) -> dict[str, Any]:
    packed = batch.packing.inputs() if batch.packing else {}
    return {"input_ids": batch.ids_BT, "use_cache": False, **packed}


def _borders(config: Any) -> tuple[int, ...]:
    """-> the length of rows beyond which a model takes other rotary frequencies, for all rows beside them too."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type") != "longrope":
        return ()
    border = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    return (int(border or config.max_position_embeddings),)


@torch.no_grad()
def split_model(model: Any, vocabulary: int) -> ModelParts:
    """-> the model cut in two where that is exact, else whole (`head.weight` is None): never silently wrong.

    Raises StageError for a model that sees later tokens, has weights that are not finite, or whose head is smaller
    than the tokenizer.
    """
    attention.take_over(model)
    ids_1T = (torch.arange(NUM_PROBE, device=model.device) * 7919 % vocabulary).unsqueeze(0)
    logits_TV = model(input_ids=ids_1T, use_cache=False).logits[0]
    _refuse_unsound_model(model, ids_1T, logits_TV, vocabulary)
    is_packed = attention.may_pack(model) and _answers_rows_as_alone(model, ids_1T, logits_TV)
    parts = ModelParts(model, _head(model, vocabulary), is_packed)
    if parts.head.weight is None:
        return parts
    inputs = batches.ModelInputs(ids_1T, torch.arange(NUM_PROBE, device=model.device))
    again_TV = parts.head.logits(parts.hidden(inputs))
    is_exact = _agree(again_TV, logits_TV[:, :vocabulary], HEAD_TOLERANCE)
    return parts if is_exact else ModelParts(model, Head(None, vocabulary), is_packed)


def _answers_rows_as_alone(model: Any, ids_1T: Tensor, logits_TV: Tensor) -> bool:
    """Whether two rows, one after the other, get the logits of each alone, every layer seeing as far as it should.

    The second is longer than the first and begins with other tokens; of the first the logits are known, since a model
    is causal.
    """
    lengths = (NUM_PROBE // 2 - 1, NUM_PROBE // 2 + 1)
    offsets = torch.tensor([0, lengths[0], NUM_PROBE], dtype=torch.int32)
    places_N = torch.cat([torch.arange(length) for length in lengths])
    packing = attention.Packing(lengths, places_N[None].to(ids_1T.device), offsets.to(ids_1T.device))
    windows: deque[int | None] = deque()
    try:
        packed_TV = model(input_ids=ids_1T, use_cache=False, **packing.inputs(windows)).logits[0]
    except (ValueError, TypeError, RuntimeError, AttributeError, IndexError):  # a family that takes no such arguments
        return False
    alone_TV = model(input_ids=ids_1T[:, lengths[0] :], use_cache=False).logits[0]
    are_seen = [*windows] == attention.expected_windows(model.config.get_text_config())
    return are_seen and _agree(packed_TV, torch.cat([logits_TV[: lengths[0]], alone_TV]), SHAPE_TOLERANCE)


def _head(model: Any, vocabulary: int) -> Head:
    linear = model.get_output_embeddings()
    if type(linear) is not nn.Linear or model.base_model is model:
        return Head(None, vocabulary)
    config = model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return make_head(linear.weight, linear.bias, vocabulary, float(scale), cap)


def _refuse_unsound_model(model: Any, ids_BT: Tensor, logits_TV: Tensor, vocabulary: int) -> None:
    name = type(model).__name__
    if logits_TV.shape[-1] < vocabulary:
        raise StageError(f"{name}: its output head has {logits_TV.shape[-1]} rows, its tokenizer {vocabulary} tokens")
    if not logits_TV.isfinite().all():
        raise StageError(f"{name}: its logits are not finite, before any training; is the dtype too narrow for it?")
    half = NUM_PROBE // 2
    shorter_TV = model(input_ids=ids_BT[:, :half], use_cache=False).logits[0]
    if not _agree(shorter_TV, logits_TV[:half], SHAPE_TOLERANCE):
        raise StageError(f"{name}: its output depends on later tokens, so it cannot be trained to predict them")


def _agree(a: Tensor, b: Tensor, tolerance: dict[torch.dtype, float]) -> bool:
    largest = float((a.double() - b.double()).abs().max())
    return largest <= tolerance[b.dtype] * float(b.double().abs().max())
