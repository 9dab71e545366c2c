"""A model over several cards: each holds its share, and the answers are those of one."""

import pytest
import torch
import transformers
from support import tiny_models as tiny
from support.quantised_models import quantised_model

from ablate.core.errors import StageError
from ablate.training.batches import batch
from ablate.training.layer_placement import num_bytes, place_layers, places
from ablate.training.model_parts import split_model


def llama_70b():
    config = transformers.LlamaConfig(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=128256,
    )
    with torch.device("meta"):
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


@pytest.mark.parametrize("num", [2, 4, 8])
def test_each_card_holds_its_share_of_a_70b_model_to_a_layer(num):
    model, devices = llama_70b(), [f"cuda:{number}" for number in range(num)]
    where = places(model, devices)
    held = dict.fromkeys(devices, 0)
    for name, device in where.items():
        module = model.get_submodule(name)
        is_layer = name.rpartition(".")[2].isdecimal()
        own = num_bytes(module) if is_layer else sum(w.nbytes for w in own_weights(module))
        held[device] += own
    assert sum(held.values()) == num_bytes(model)
    layer = num_bytes(model.model.layers[0])
    assert max(held.values()) - min(held.values()) <= 2 * layer


def own_weights(module):
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def test_weights_in_few_bits_count_with_their_codes(tmp_path):
    model = quantised_model(tmp_path, "int8")
    where = places(model, ["cuda:0", "cuda:1"])
    layers = [where[f"model.layers.{number}"] for number in range(4)]
    assert layers == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
    assert num_bytes(model.model.layers[0]) > 4 * 128 * 128  # a byte a weight


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "phi"])
def test_a_model_whose_layers_are_brought_their_inputs_answers_bit_for_bit_as_a_whole_one(family):
    whole, placed = (tiny.make(family).requires_grad_(False) for _ in range(2))
    place_layers(placed, ["cpu", "cpu"])
    parts = [split_model(model, tiny.VOCABULARY) for model in (whole, placed)]
    assert parts[0].cutting.is_packed == parts[1].cutting.is_packed
    asked = batch(tiny.random_rows([5, 9, 7]), [1, 2, 0], is_packed=parts[0].cutting.is_packed)
    assert torch.equal(*(one.hidden(asked) for one in parts))
    assert all(hasattr(layer, "_hf_hook") for layer in layers_of(placed))
    assert placed.base_model._hf_hook.io_same_device  # its hidden states come back to where the head is


def layers_of(model):
    return [module for module in model.modules() if type(module).__name__ in model._no_split_modules]


def test_a_model_without_layers_is_refused_in_words():
    model = torch.nn.Linear(2, 2)
    model._no_split_modules, model.base_model = None, None
    with pytest.raises(StageError, match="has no layers that could lie on several cards"):
        places(model, ["cuda:0", "cuda:1"])
