"""The training step against a dense reference in float64, written with transformers and peft alone."""

from pathlib import Path

import pytest
import tiny_models as tiny
import torch
from peft import PeftModel
from torch.nn import functional

from ablate.losses import LOSSES, parse
from ablate.store.job import read_metrics
from ablate.study.schema import Distill
from ablate.training import adapters, trainable
from ablate.training import loss as engine_loss
from ablate.training.loss import CLASS_LOSS, Objective
from ablate.training.model_parts import split_model
from ablate.training.train import Training, accumulate, mean_losses, train

LENGTHS = [9, 17, 5, 12, 17, 2, 11, 8]
PROMPTS = [3, 4, 2, 12, 1, 0, 5, 0]


def recipe(family="llama", **settings):
    lora = {"rank": 4, "alpha": 6.0, "target_modules": list(tiny.targets(family))}
    return Distill.model_validate({"batch_size": 8, "warmup_steps": 0, "lora": lora} | settings)


def training_of(family, objective, rows, *, has_teacher=True, settings=None):
    """A training whose adapters already differ from zero."""
    student, teacher = tiny.make(family, 1), tiny.make(family, 2)
    settings = settings or recipe(family)
    weights = trainable.make(student, settings, 5, adapters.Origin())
    generator = torch.Generator().manual_seed(0)
    for name, weight in weights.weights.items():
        if "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.05
    return Training(
        recipe=settings,
        seed=5,
        rows=rows,
        student=split_model(student, tiny.VOCABULARY),
        trainable=weights,
        objective=objective,
        teacher=split_model(teacher, tiny.VOCABULARY) if has_teacher else None,
    )


def dense(training, model, teacher):
    """-> (loss, class_loss, kd_loss) of the first step; gradients are left on `model`. One row at a time."""
    objective, temperature = training.objective, training.objective.temperature
    class_sum = kd_sum = num_tokens = 0
    for index in training.rows_of(1):
        tokens, mask = training.rows.row(index)
        ids = torch.tensor(tokens.tolist())[None]
        counts = torch.tensor(mask[1:].tolist(), dtype=torch.bool)
        logits = model(input_ids=ids).logits[0, :-1, : tiny.VOCABULARY][counts]
        with torch.no_grad():
            answers = teacher(input_ids=ids).logits[0, :-1, : tiny.VOCABULARY][counts]
        class_sum = class_sum + functional.cross_entropy(logits, ids[0, 1:][counts], reduction="sum")
        q, p = (logits / temperature).log_softmax(-1), (answers / temperature).log_softmax(-1)
        kd_sum = kd_sum + functional.kl_div(q, p, reduction="sum", log_target=True)
        num_tokens += int(counts.sum())
    class_loss, kd_loss = class_sum / num_tokens, kd_sum / num_tokens
    scale = temperature**2 if objective.scale_by_t2 else 1
    loss = (1 - objective.kd_ratio) * class_loss + objective.kd_ratio * scale * kd_loss
    loss.backward()
    return float(loss), float(class_loss), float(kd_loss)


def step(training, budget=40):
    """-> (losses, mean gradients by name) of the first optimizer step."""
    for weight in training.trainable.weights.values():
        weight.grad = None
    sums = accumulate(training, 1, budget, "cpu")
    num_tokens = int(training.rows.num_loss[list(training.rows_of(1))].sum())
    grads = {name: weight.grad / num_tokens for name, weight in training.trainable.weights.items()}
    return mean_losses(training, sums, num_tokens), grads


def relative(ours, reference):
    """-> the largest difference of two sets of tensors, over the norm of the reference."""
    ours = torch.cat([ours[name].double().flatten() for name in sorted(reference)])
    exact = torch.cat([reference[name].double().flatten() for name in sorted(reference)])
    return float((ours - exact).norm() / exact.norm())


def compare(family, objective, rows, tmp_path: Path, **more):
    training = training_of(family, objective, rows, **more)
    training.trainable.save(tmp_path)
    model = PeftModel.from_pretrained(tiny.make(family, 1), tmp_path, is_trainable=True).double()
    exact = dense(training, model, tiny.make(family, 2).double())
    exact_grads = {
        name.replace(".default", ""): weight.grad for name, weight in model.named_parameters() if weight.requires_grad
    }
    losses, grads = step(training)
    assert losses["loss"] == pytest.approx(exact[0], rel=1e-5)
    assert losses["class_loss"] == pytest.approx(exact[1], rel=1e-5)
    if "kd_loss" in losses:
        assert losses["kd_loss"] == pytest.approx(exact[2], rel=1e-5)
    assert grads.keys() == exact_grads.keys()
    assert relative(grads, exact_grads) < 1e-5
    return losses


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


@pytest.mark.parametrize("name", [*LOSSES])
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
    monkeypatch.setitem(engine_loss.CHUNK_TOKENS, "cpu", (3, 3))
    assert relative(step(training)[1], one_by_one) < 1e-5


def full_training(family, dtype=torch.float32):
    student = tiny.make(family, 1, dtype)
    settings = recipe(lora=None)
    weights = trainable.make(student, settings, 5, adapters.Origin())
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
