"""What gives way where a training does not fit its card, from before its teachers are loaded."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from support import reference
from support import tiny_models as tiny
from support.quantised_models import quantised_model
from transformers import LlamaConfig, LlamaForCausalLM

from ablate.losses import parse
from ablate.training import card_room, given
from ablate.training.giving_way import (
    CHECKPOINTING,
    OFFLOAD,
    ORDER,
    SMALLER_CHUNK,
    fitted_budget,
    gave_way,
    give_way,
    held,
    next_change,
    training_memory,
)
from ablate.training.loss import Objective
from ablate.training.model_source import ModelSource
from ablate.training.offload import WAITING, decoder_layers, weights_of
from ablate.training.teaching import GivenTeacher, TaughtBy, taught

ROWS = tiny.random_rows(reference.LENGTHS, reference.PROMPTS)
SETTINGS = SimpleNamespace(dtype="float32")


class NotedSource(ModelSource):
    """A model, and onto which devices models were loaded, and where quantised."""

    devices: ClassVar[list[tuple[str, str]]] = []

    def load(self, dtype, device, checks, quantize_on=None):
        self.devices.append((device, quantize_on))
        return super().load(dtype, device, checks, quantize_on)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """-> of a stage whose teacher has more layers than are on a card together."""
    folder = tmp_path_factory.mktemp("inputs")
    stages = tiny.stage_inputs(folder, ROWS, tiny.random_rows([7, 8], seed=9))
    torch.manual_seed(3)
    LlamaForCausalLM(LlamaConfig(**tiny.SMALL | {"num_hidden_layers": 5})).save_pretrained(folder / "teacher-model")
    return stages


def alone(loss="reverse_kl"):
    """-> a student before its teacher is loaded."""
    return reference.training_of("llama", Objective(0.5, parse(loss)), ROWS, has_teacher=False)


def with_teacher(folder, inputs, training, room, num=1, **source):
    """-> the training beside its teacher, or several of the same, on a card of so much room."""
    job = tiny.job(folder, SETTINGS, **inputs)
    model = ModelSource(inputs["teacher"].parent / "teacher-model", **source)
    by = TaughtBy([GivenTeacher(f"teacher {number}", model, weight=1 / num) for number in range(num)])
    return taught(job, training, given.load_rows(job), model, by, room)


def needed(training, *changes):
    """-> bytes with one row, once so much has given way."""
    memory, row = training_memory(training), int(training.rows.lengths.max())
    at = memory.at(row, row, is_checkpointed=CHECKPOINTING in changes, is_least=SMALLER_CHUNK in changes)
    return at._replace(teacher=memory.teacher_offloaded() if OFFLOAD in changes else at.teacher).needed


@pytest.mark.parametrize("num", [1, 2])
def test_teachers_that_leave_no_room_wait_from_the_beginning_and_teach_the_same(num, inputs, tmp_path):
    roomy = with_teacher(tmp_path, inputs, alone(), 10**9, num)
    assert gave_way(roomy) == ()
    assert gave_way(with_teacher(tmp_path, inputs, alone(), None, num)) == ()  # a CPU
    losses, exact = reference.step(roomy)
    room = needed(roomy, *ORDER)
    small = with_teacher(tmp_path, inputs, alone(), room, num)
    assert gave_way(small) == ORDER
    memory, row = training_memory(small), int(ROWS.lengths.max())
    assert held(small, memory, row, row).needed == room  # of all layers, though none is there
    again, grads = reference.step(small)
    assert again == pytest.approx(losses, rel=1e-6)
    assert reference.relative(grads, exact) < 1e-6


def test_what_is_cheaper_gives_way_before_a_teacher_has_to_wait(inputs, tmp_path):
    roomy = with_teacher(tmp_path, inputs, alone(), None)
    plain, checkpointed, waiting = (needed(roomy, *changes) for changes in ((), (CHECKPOINTING,), ORDER))
    assert plain > checkpointed > waiting
    few = (CHECKPOINTING,)
    for room, changes in ((plain, ()), (plain - 1, few), (checkpointed, few), (checkpointed - 1, ORDER)):
        training = with_teacher(tmp_path, inputs, alone(), room)
        assert fitted_budget(training, room) >= max(reference.LENGTHS)
        assert gave_way(training) == changes


def test_a_teacher_that_reads_in_its_own_tokens_waits_from_the_beginning_too(inputs, tmp_path):
    own = inputs | {"teacher_rows": inputs["rows"]}
    roomy, small = (with_teacher(tmp_path, own, alone("dskd"), room) for room in (10**9, 1))
    assert (gave_way(roomy), gave_way(small)) == ((), ORDER)
    (losses, exact), (again, grads) = reference.step(roomy), reference.step(small)
    assert again == pytest.approx(losses, rel=1e-6)
    assert reference.relative(grads, exact) < 1e-6


def test_a_teacher_over_several_cards_does_not_wait(inputs, tmp_path):
    job = replace(tiny.job(tmp_path, SETTINGS, **inputs), layer_devices=("cpu", "cpu"))
    model = ModelSource(inputs["teacher"].parent / "teacher-model")
    training = taught(job, alone(), given.load_rows(job), model, TaughtBy([GivenTeacher("teacher", model)]), 1)
    assert not hasattr(training.teacher.model, WAITING)
    assert gave_way(training) == ()
    give_way(training, iter(partial(next_change, training), None))
    assert gave_way(training) == (CHECKPOINTING, SMALLER_CHUNK)


@pytest.mark.parametrize("form", [None, "int8"])
def test_a_model_that_waits_was_never_loaded_onto_the_card(form, inputs, tmp_path):
    folder = inputs["teacher"].parent / "teacher-model"
    if form:
        quantised_model(folder := tmp_path / "model", form)
    source, job = NotedSource(folder, quantize=form), tiny.job(tmp_path, SETTINGS)
    whole = given.load_whole(job, source)
    source.devices.clear()
    model = given.load_waiting(replace(job, device="cpu:0"), source)
    assert source.devices == [("cpu", "cpu:0")]
    assert all(weight.numel() == 0 for layer in decoder_layers(model) for weight in weights_of(layer))
    for layer, waiting in zip(decoder_layers(whole), getattr(model, WAITING).waiting, strict=True):
        assert all(map(torch.equal, weights_of(layer), waiting))
    assert card_room.model_sizes(model) == card_room.model_sizes(whole)
