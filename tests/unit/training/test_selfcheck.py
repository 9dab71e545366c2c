"""No training on a device where the gradient depends on how a step's rows are cut."""

import json
from dataclasses import replace

import pytest
import torch
import transformers
from support import reference
from support import tiny_models as tiny
from support.allocations import allocations

from ablate.core.errors import StageError
from ablate.core.failures import Ending, ending_of
from ablate.execution.scheduler import Scheduler
from ablate.execution.task_graph import Task
from ablate.losses import parse
from ablate.machine.slots import Slot
from ablate.training import adapters, selfcheck, trainable
from ablate.training.loss import CLASS_LOSS, Objective
from ablate.training.model_parts import split_model
from ablate.training.step_loss import accumulate
from ablate.training.teacher_cache import CachedTeacher, CacheIndex
from ablate.training.training import Training

ROWS = tiny.random_rows(reference.LENGTHS, reference.PROMPTS)
BUDGET = 2048


def checked(folder, training, **of_job):
    job = replace(tiny.job(folder), checks=folder / "checks", device_name="a card", **of_job)
    selfcheck.require_sound(job, training, BUDGET)
    return [json.loads(path.read_text()) for path in (folder / "checks").glob("*.json")]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sound_device_is_noted_with_what_was_measured(family, dtype, tmp_path):
    training = reference.training_of(family, Objective(0.5, parse("forward_kl")), ROWS)
    student = training.student.model.to(dtype)
    (note,) = checked(tmp_path, replace(training, student=split_model(student, tiny.VOCABULARY)))
    assert note["difference"] < selfcheck.TOLERANCE[dtype]
    assert (note["device"], note["dtype"]) == ("a card", str(dtype))
    assert all(weight.grad is None for weight in training.trainable.weights.values())


def planted(training, fault):
    """-> the same training with a forward pass that does wrong to rows that are not alone."""

    def wrong(module, args, kwargs, output):
        output.last_hidden_state = fault(output.last_hidden_state, len(kwargs["row_lengths"]))
        return output

    training.student.model.base_model.register_forward_hook(wrong, with_kwargs=True)
    return training


FAULTS = {
    "a mean over the micro-batch": lambda x, num_rows: x / num_rows,
    "rows that see each other": lambda x, num_rows: x + 0.3 * (num_rows > 1) * (x.mean(1, keepdim=True) - x),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_gradient_that_depends_on_the_cut_stops_the_study_before_a_step_is_taken(fault, tmp_path):
    training = planted(reference.training_of("llama", CLASS_LOSS, ROWS, has_teacher=False), FAULTS[fault])
    with pytest.raises(StageError, match=r"depends on how its rows are cut: .* of its norm") as caught:
        checked(tmp_path, training)
    ending = ending_of(caught.value)
    scheduler = Scheduler(
        [Task(name, "finetune", name, "heavy", (), 1.0) for name in "ab"], [Slot("s", frozenset({"heavy"}))]
    )
    scheduler.run("a", "s")
    scheduler.finish("a", ending, 0.0)
    assert scheduler.is_over
    assert scheduler.outcomes["b"].phase == "blocked"
    assert "a stopped the study: the gradient" in scheduler.outcomes["b"].message


def test_a_cached_teacher_is_noted_by_the_name_that_earlier_notes_have_so_that_they_hold(tmp_path):
    training = reference.training_of("llama", Objective(0.5, parse("forward_kl")), ROWS)
    (tmp_path / "index.json").write_text(json.dumps({"form": None, "why": "", "shards": []}))
    cached = CachedTeacher(CacheIndex(tmp_path), {}, "cpu")
    names = [
        selfcheck._conditions(tiny.job(tmp_path), replace(training, teacher=teacher))["teacher"]
        for teacher in (None, training.teacher, cached)
    ]
    assert names == ["NoneType", "LlamaForCausalLM", "Cache"]


def test_like_trainings_on_like_devices_are_checked_once(tmp_path):
    training = reference.training_of("llama", CLASS_LOSS, ROWS, has_teacher=False)
    checked(tmp_path, training)
    broken = planted(training, FAULTS["a mean over the micro-batch"])
    checked(tmp_path, broken)  # known to be sound
    job = replace(tiny.job(tmp_path), checks=tmp_path / "checks", device_name="another card")
    with pytest.raises(StageError):
        selfcheck.require_sound(job, broken, BUDGET)


def test_memory_that_allows_no_two_rows_together_does_not_keep_a_training_from_beginning(tmp_path):
    training = reference.training_of("llama", CLASS_LOSS, ROWS, has_teacher=False)

    def full(module, args, kwargs):
        if len(kwargs["row_lengths"]) > 1:
            raise torch.OutOfMemoryError

    training.student.model.base_model.register_forward_pre_hook(full, with_kwargs=True)
    assert checked(tmp_path, training) == []


def test_a_stage_that_ends_any_other_way_stops_no_other():
    scheduler = Scheduler(
        [Task(name, "finetune", name, "heavy", (), 1.0) for name in "ab"], [Slot("s", frozenset({"heavy"}))]
    )
    scheduler.run("a", "s")
    scheduler.finish("a", Ending("error", "why"), 0.0)
    assert scheduler.outcomes["b"].phase == "waiting"


def test_a_gradient_that_is_no_number_in_one_cut_alone_is_no_sound_one(tmp_path):
    training = reference.training_of("llama", CLASS_LOSS, ROWS, has_teacher=False)
    planted(training, lambda x, num_rows: x * float("nan") if num_rows > 1 else x)
    with pytest.raises(StageError, match="depends on how its rows are cut"):
        checked(tmp_path, training)


def test_the_check_holds_at_most_6_bytes_a_weight_beyond_a_step_of_the_training(tmp_path):
    training = wide_training()
    weights = [*training.student.model.parameters(), *training.trainable.weights.values()]
    num_weights = sum(weight.numel() for weight in training.trainable.weights.values())
    with allocations(weights) as step:
        accumulate(training, training.rows_of(1), 64, "cpu")
    training.trainable.discard_grads()
    with allocations(weights) as check:
        (note,) = checked(tmp_path, training)
    assert note["difference"] < selfcheck.TOLERANCE[torch.float32]
    assert num_weights > 2e6
    assert check.peak - step.peak < 6 * num_weights


def wide_training():
    """-> one of all weights, whose numbers are many beside those of its activations."""
    shape = tiny.SMALL | {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 3}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape, attn_implementation="sdpa")).eval()
    recipe = reference.recipe(lora=None)
    weights = trainable.make_trainable(model, recipe, 5, adapters.Origin())
    rows = tiny.random_rows([5, 4, 6, 3])
    return Training(recipe, 5, rows, split_model(model, tiny.VOCABULARY), weights, CLASS_LOSS)
