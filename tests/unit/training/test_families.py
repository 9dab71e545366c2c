"""A few whole steps of training, of every sort of model, against a plain loop of transformers, peft and torch.optim."""

from typing import NamedTuple

import peft
import pytest
import torch
import transformers
from support import tiny_models as tiny
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from ablate.store.job import read_metrics
from ablate.study.training_recipes import Distill
from ablate.training import adapters, trainable
from ablate.training.loss import CLASS_LOSS, objective
from ablate.training.model_parts import split_model
from ablate.training.train import train
from ablate.training.training import Training

ROWS = tiny.random_rows([9, 17, 5, 12, 17, 2, 11, 8, 20, 6, 14, 7], [3, 4, 2, 12, 1, 0, 5, 0, 7, 1, 9, 2])
"""Two optimizer steps an epoch; the fourth row has no token in the loss."""
STEPS, WARMUP = 4, 2
RECIPE = {
    "batch_size": 6,
    "max_steps": STEPS,
    "warmup_steps": WARMUP,
    "lr": 3e-3,
    "max_grad_norm": 1.0,
    "optimizer": {"weight_decay": 0.1, "eps": 1e-5},  # else rounding decides where a gradient is 0, as of key biases
    "micro_batch_tokens": 40,
}
LORA = {"rank": 4, "alpha": 6.0}
IGNORED = -100
"""The label of a position that does not count, as in torch and transformers."""

DOUBLE = ("gpt2", "phi")
"""Families that are in float64 when asked to be: transformers' RMSNorm and Cohere's norm go through float32 always."""


class Tolerance(NamedTuple):
    """Relative, against a loop in float64; what was measured is a tenth of it or less."""

    losses: float
    """Of every step."""
    moved: float
    """Of how far the weights moved, and of the norm of each gradient."""


def teacher_of(dtype):
    """-> another architecture than most students, wider, its vocabulary padded differently, as Qwen's large models."""
    torch.manual_seed(2)
    settings = tiny.SMALL | {"hidden_size": 32, "vocab_size": tiny.VOCABULARY + 9, "tie_word_embeddings": False}
    config = transformers.Qwen2Config(**settings)
    return transformers.AutoModelForCausalLM.from_config(config).to(dtype).eval()


def recipe_of(family, kind, targets):
    lora = LORA | {"target_modules": list(targets or tiny.targets(family))} if kind == "lora" else None
    return Distill.model_validate(RECIPE | {"lora": lora})


def training_of(family, recipe, is_distilled, dtype):
    student = tiny.make(family, 1).to(dtype)
    weights = trainable.make_trainable(student, recipe, 5, adapters.Origin())
    return Training(
        recipe=recipe,
        seed=5,
        rows=ROWS,
        student=split_model(student, tiny.VOCABULARY),
        trainable=weights,
        objective=objective(recipe) if is_distilled else CLASS_LOSS,
        teacher=split_model(teacher_of(dtype), tiny.VOCABULARY) if is_distilled else None,
    )


def plain(family, training):
    """-> the same model in float64 as a user of transformers and peft has it, and the weights it trains."""
    model, lora = tiny.make(family, 1).double(), training.recipe.lora
    if lora is None:
        return model, dict(model.named_parameters())
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(lora.target_modules),
        fan_in_fan_out=family == "gpt2",
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(model, config).double().eval()
    loaded = peft.set_peft_model_state_dict(model, start_of(training))
    assert not loaded.unexpected_keys
    return model, {
        name.replace(".default", ""): weight for name, weight in model.named_parameters() if weight.requires_grad
    }


def start_of(training):
    return {name: weight.detach().double().clone() for name, weight in training.trainable.weights.items()}


def padded(indices):
    """-> (ids, attention mask, labels) of some rows, as data collators make them."""
    width = max(int(ROWS.lengths[index]) for index in indices)
    ids = torch.zeros(len(indices), width, dtype=torch.int64)
    seen, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    for at, index in enumerate(indices):
        tokens, in_loss = (torch.tensor(part.tolist()) for part in ROWS.row(index))
        ids[at, : len(tokens)], seen[at, : len(tokens)] = tokens, 1
        labels[at, : len(tokens)][in_loss.bool()] = tokens[in_loss.bool()]
    return ids, seen, labels


def dense_losses(model, teacher, indices):
    """-> losses of a step from whole tensors of logits; `loss` keeps its graph."""
    ids, seen, labels = padded(indices)
    labels = labels[:, 1:].flatten()
    logits = model(input_ids=ids, attention_mask=seen).logits[:, :-1, : tiny.VOCABULARY].flatten(0, 1)
    class_loss = functional.cross_entropy(logits, labels, ignore_index=IGNORED)
    if teacher is None:
        return {"loss": class_loss, "class_loss": class_loss}
    with torch.no_grad():
        answers = teacher(input_ids=ids, attention_mask=seen).logits[:, :-1, : tiny.VOCABULARY].flatten(0, 1)
    each = functional.kl_div(logits.log_softmax(-1), answers.log_softmax(-1), reduction="none", log_target=True)
    kd_loss = each.sum(-1)[labels != IGNORED].mean()
    return {"loss": 0.5 * class_loss + 0.5 * kd_loss, "class_loss": class_loss, "kd_loss": kd_loss}


def plain_loop(model, teacher, weights, training):
    """-> the records of every step; `weights` are trained."""
    optimizer = torch.optim.AdamW(weights.values(), lr=RECIPE["lr"], **RECIPE["optimizer"])
    warmup = LinearLR(optimizer, 1 / WARMUP, total_iters=WARMUP - 1)
    schedule = SequentialLR(optimizer, [warmup, CosineAnnealingLR(optimizer, STEPS - WARMUP)], [WARMUP])
    records = []
    for step in range(1, STEPS + 1):
        losses = dense_losses(model, teacher, training.rows_of(step).indices)
        optimizer.zero_grad()
        losses["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(weights.values(), RECIPE["max_grad_norm"])
        lr = optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        records.append({"step": step, **values, "lr": lr, "grad_norm": float(norm)})
    return records


def tolerance_of(family, dtype):
    if dtype == torch.float32:
        return Tolerance(1e-5, 1e-3)
    return Tolerance(1e-12, 1e-12) if family in DOUBLE else Tolerance(1e-6, 3e-5)


def distance(ours, exact, start):
    """-> how far our weights end from the exact ones, relative to how far these moved."""
    parts = [(ours[name].double() - exact[name], exact[name] - start[name]) for name in exact]
    off, moved = (torch.cat([part.detach().flatten() for part in side]) for side in zip(*parts, strict=True))
    return float(off.norm() / moved.norm())


def compare(tmp_path, family, kind, dtype, *, is_distilled, targets=()):
    training = training_of(family, recipe_of(family, kind, targets), is_distilled, dtype)
    start = start_of(training)
    model, weights = plain(family, training)
    teacher = teacher_of(torch.float64) if is_distilled else None
    exact = plain_loop(model, teacher, weights, training)
    job = tiny.job(tmp_path)
    train(job, training)
    allowed = tolerance_of(family, dtype)
    for ours, theirs in zip(read_metrics(job.metrics.path), exact, strict=True):
        assert ours["grad_norm"] == pytest.approx(theirs.pop("grad_norm"), rel=allowed.moved)
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs, rel=allowed.losses)
    assert weights.keys() == training.trainable.weights.keys()
    assert distance(training.trainable.weights, weights, start) < allowed.moved


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("is_distilled", [False, True], ids=["finetuned", "distilled"])
@pytest.mark.parametrize("kind", ["lora", "everything"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_few_steps_are_those_of_a_plain_loop(family, kind, is_distilled, dtype, tmp_path):
    compare(tmp_path, family, kind, dtype, is_distilled=is_distilled)


@pytest.mark.parametrize("is_distilled", [False, True], ids=["finetuned", "distilled"])
@pytest.mark.parametrize("family", ["llama", "granite", "phi"])
def test_adapters_on_the_head_too_take_the_steps_of_a_plain_loop(family, is_distilled, tmp_path):
    targets = (*tiny.targets(family), "lm_head")
    compare(tmp_path, family, "lora", torch.float64, is_distilled=is_distilled, targets=targets)
