"""A frozen model whose layers wait in the machine's memory."""

import pytest
import torch
from support import judged_memory as judged
from support import tiny_models as tiny
from support.allocations import allocations
from support.quantised_models import quantised_model

from ablate.study.training_recipes import Distill
from ablate.training import card_room
from ablate.training.memory_estimate import Beside, TrainingMemory
from ablate.training.model_parts import split_model
from ablate.training.offload import Copies, decoder_layers, keep_on_host
from ablate.training.quantized import FORMS

IDS = torch.arange(12)[None]


def held_by(module):
    """-> bytes of a module's tensors."""
    return sum(tensor.untyped_storage().nbytes() for tensor in (*module.parameters(), *module.buffers()))


class NotedCopies(Copies):
    """Copies to a device, and what is there after each."""

    def __init__(self):
        super().__init__(torch.device("cpu"))
        self.begun = []
        self.finished = []

    def begin(self, weights):
        self.begun.append(len(self.finished))
        return super().begin(weights)

    def finish(self, weights):
        super().finish(weights)
        self.finished.append(len(self.begun))


def test_a_model_whose_layers_wait_answers_as_it_did_again_and_again():
    for family in ("llama", "gpt2", "gemma2", "phi"):
        model = tiny.make(family, 1).requires_grad_(False)
        expected = model(IDS).logits
        assert keep_on_host(model, torch.device("cpu"))
        assert not keep_on_host(model, torch.device("cpu"))
        for _ in range(2):
            assert torch.equal(model(IDS).logits, expected)
        assert all(weight.numel() == 0 for layer in decoder_layers(model) for weight in layer.parameters())


def test_the_next_layer_is_on_its_way_before_one_runs_and_no_more_than_two_are_there():
    model, copies = tiny.make("llama", 1).requires_grad_(False), NotedCopies()
    layer = sum(weight.numel() * 4 for weight in decoder_layers(model)[0].parameters())
    keep_on_host(model, torch.device("cpu"), copies)
    with torch.no_grad(), allocations(model.parameters()) as held:
        model.base_model(IDS)
        assert held.live - held.given < layer
    assert copies.begun == [0, 1]  # the second while the first is not over
    assert held.peak - held.given > layer


def test_a_model_that_is_trained_keeps_its_layers():
    model = tiny.make("llama", 1).requires_grad_(True)
    assert not keep_on_host(model, torch.device("cpu"))


def test_a_layer_that_runs_out_of_memory_leaves_the_model_as_it_was():
    model = tiny.make("llama", 1).requires_grad_(False)
    expected = model(IDS).logits
    keep_on_host(model, torch.device("cpu"))

    def refuse(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    hook = decoder_layers(model)[1].mlp.register_forward_hook(refuse)
    try:
        model(IDS)
    except torch.OutOfMemoryError:
        hook.remove()
    assert torch.equal(model(IDS).logits, expected)


@pytest.mark.parametrize("form", FORMS)
def test_a_quantised_models_codes_wait_too_and_free_what_is_estimated(form, tmp_path):
    model = quantised_model(tmp_path, form)
    sizes, cutting = card_room.model_sizes(model), split_model(model, tiny.VOCABULARY).cutting
    layers, expected, whole = decoder_layers(model), model(IDS).logits, held_by(model)
    of_layers = [held_by(layer) for layer in layers]
    assert keep_on_host(model, torch.device("cpu"))
    assert whole - held_by(model) == sum(of_layers)
    for _ in range(2):
        assert torch.equal(model(IDS).logits, expected)
    assert sum(map(held_by, layers)) == 0
    assert card_room.model_sizes(model) == sizes  # as if all of it were there
    assert split_model(model, tiny.VOCABULARY).cutting == cutting
    memory = TrainingMemory(Distill(), sizes, "bfloat16", Beside((sizes,)))
    freed = memory.teacher - memory.teacher_offloaded()
    assert freed == pytest.approx(sum(of_layers) - 2 * max(of_layers), rel=0.05)


def test_what_waits_is_not_counted_among_what_is_on_the_card():
    teacher = tiny.make("llama", 1)
    sizes = judged.sizes(teacher)
    memory = TrainingMemory(Distill(), sizes, "float32", Beside((sizes,)))
    layers = [sum(weight.numel() for weight in layer.parameters()) for layer in decoder_layers(teacher)]
    assert memory.teacher - memory.teacher_offloaded() == 4 * (sum(layers) - 2 * max(layers))
