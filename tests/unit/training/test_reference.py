"""The training step against a dense reference in float64, written with transformers and peft alone."""

import pytest
import torch
from peft import PeftModel
from support import tiny_models as tiny
from support.reference import LENGTHS, PROMPTS, compare, dense, recipe, relative, step, training_of

from ablate.losses import LOSSES, parse
from ablate.store.job import read_metrics
from ablate.training import adapters, loss_chunks, trainable
from ablate.training.loss import CLASS_LOSS, Objective
from ablate.training.model_parts import split_model
from ablate.training.train import train
from ablate.training.training import Training


@pytest.mark.parametrize("is_prompt_in_loss", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("kd_ratio", [0.0, 0.3, 1.0])
def test_a_step_is_what_transformers_and_peft_make_of_it_in_float64(kd_ratio, temperature, is_prompt_in_loss, tmp_path):
    rows = tiny.random_rows(LENGTHS, None if is_prompt_in_loss else PROMPTS)
    for scale_by_t2 in {False, temperature != 1.0}:
        objective = Objective(kd_ratio, parse("forward_kl"), temperature, scale_by_t2)
        compare("llama", objective, rows, tmp_path)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_sort_of_head_gives_the_exact_step(family, tmp_path):
    rows = tiny.random_rows(LENGTHS, PROMPTS)
    compare(family, Objective(0.4, parse("forward_kl")), rows, tmp_path)


def test_fine_tuning_is_the_class_loss_alone(tmp_path):
    losses = compare("llama", CLASS_LOSS, tiny.random_rows(LENGTHS, PROMPTS), tmp_path, has_teacher=False)
    assert losses.keys() == {"loss", "class_loss"}


@pytest.mark.parametrize("max_grad_norm", [None, 0.01])
def test_a_whole_step_is_adamws_on_the_exact_mean_gradient(max_grad_norm, tmp_path):
    # eps is so large that the gradient's scale matters, as it does to clipping
    optimizer = {"eps": 0.1, "weight_decay": 0.3}
    settings = recipe(max_steps=1, lr=0.1, optimizer=optimizer, max_grad_norm=max_grad_norm)
    rows, objective = tiny.random_rows(LENGTHS, PROMPTS), Objective(0.3, parse("forward_kl"))
    training = training_of("llama", objective, rows, settings=settings)
    training.trainable.save(tmp_path)
    model = PeftModel.from_pretrained(tiny.make("llama", 1), tmp_path, is_trainable=True).double()
    dense(training, model, tiny.make("llama", 2).double())
    exact = {n.replace(".default", ""): weight for n, weight in model.named_parameters() if weight.requires_grad}
    norm = torch.nn.utils.clip_grad_norm_(exact.values(), max_grad_norm or 1e9)
    torch.optim.AdamW(exact.values(), lr=0.1, **optimizer).step()
    job = tiny.job(tmp_path / "job")
    train(job, training)
    (record,) = read_metrics(job.metrics.path)
    assert record["grad_norm"] == pytest.approx(float(norm), rel=1e-5)
    assert relative(training.trainable.weights, exact) < 1e-5


def test_gradient_checkpointing_changes_nothing(tmp_path):
    rows = tiny.random_rows(LENGTHS, PROMPTS)
    settings = recipe("gpt2", gradient_checkpointing=True)
    training = training_of("gpt2", Objective(0.4, parse("forward_kl")), rows, settings=settings)
    assert any(module.training for module in training.student.model.modules())
    plain = training_of("gpt2", Objective(0.4, parse("forward_kl")), rows)
    assert relative(step(training)[1], step(plain)[1]) < 1e-6


@pytest.mark.parametrize("name", [name for name in LOSSES if LOSSES[name].needs != "rows"])
def test_the_gradient_of_a_step_does_not_depend_on_how_it_is_cut(name):
    rows = tiny.random_rows([16] * 8, [4] * 8)
    training = training_of("llama", Objective(0.3, parse(name), 2.0), rows)
    whole_losses, whole = step(training, budget=8 * 16)
    for num_cuts in (2, 4, 8):
        losses, grads = step(training, budget=8 * 16 // num_cuts)
        assert relative(grads, whole) < 1e-5
        assert losses == pytest.approx(whole_losses, rel=1e-5)


def test_the_gradient_does_not_depend_on_padding_or_the_size_of_chunks(monkeypatch):
    training = training_of("llama", Objective(0.3, parse("forward_kl")), tiny.random_rows(LENGTHS, PROMPTS))
    _, one_by_one = step(training, budget=1)
    _, together = step(training, budget=10_000)
    assert relative(together, one_by_one) < 1e-5
    monkeypatch.setitem(loss_chunks.CHUNK_TOKENS, "cpu", (3, 3))
    assert relative(step(training)[1], one_by_one) < 1e-5


def full_training(family, dtype=torch.float32):
    student = tiny.make(family, 1, dtype)
    settings = recipe(lora=None)
    weights = trainable.make_trainable(student, settings, 5, adapters.Origin())
    rows = tiny.random_rows(LENGTHS, PROMPTS)
    return Training(settings, 5, rows, split_model(student, tiny.VOCABULARY), weights, CLASS_LOSS)


@pytest.mark.parametrize("family", ["llama", "llama_tied", "gpt2", "gemma2", "phi"])
def test_training_every_weight_gives_the_exact_step_tied_head_or_not(family):
    training = full_training(family)
    model = tiny.make(family, 1).double()
    loss, _, _ = dense(training, model, model)
    losses, grads = step(training)
    assert losses["loss"] == pytest.approx(loss, rel=1e-5)
    assert relative(grads, {name: weight.grad for name, weight in model.named_parameters()}) < 1e-5


def test_training_every_weight_of_a_bfloat16_model_keeps_float32_weights():
    training = full_training("llama_tied", torch.bfloat16)
    model = tiny.make("llama_tied", 1, torch.bfloat16).double()
    dense(training, model, model)
    _, grads = step(training)
    assert {weight.dtype for weight in training.trainable.weights.values()} == {torch.float32}
    assert relative(grads, {name: weight.grad for name, weight in model.named_parameters()}) < 0.05


def test_a_frozen_head_gets_no_gradient_and_padded_rows_no_say():
    training = training_of("llama", Objective(0.4, parse("forward_kl")), tiny.random_rows(LENGTHS))
    losses, grads = step(training)
    head = training.student.model.lm_head.weight
    assert head.grad is None
    for model in (training.student.model, training.teacher.model):
        model.lm_head.weight.data[tiny.VOCABULARY :] = 100.0
    again, same = step(training)
    assert again == losses
    assert relative(same, grads) == 0
