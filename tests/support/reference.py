"""The training step against a dense reference in float64, written with transformers and peft alone."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch.nn import functional

from ablate.study.training_recipes import Distill
from ablate.training import adapters, trainable
from ablate.training.model_parts import split_model
from ablate.training.step_loss import accumulate, mean_losses
from ablate.training.training import Training
from support import tiny_models as tiny

LENGTHS = [9, 17, 5, 12, 17, 2, 11, 8]
PROMPTS = [3, 4, 2, 12, 1, 0, 5, 0]


def recipe(family="llama", **settings):
    lora = {"rank": 4, "alpha": 6.0, "target_modules": list(tiny.targets(family))}
    return Distill.model_validate({"batch_size": 8, "warmup_steps": 0, "lora": lora} | settings)


def training_of(family, objective, rows, *, has_teacher=True, settings=None):
    """A training whose adapters already differ from zero."""
    student, teacher = tiny.make(family, 1), tiny.make(family, 2)
    settings = settings or recipe(family)
    weights = trainable.make_trainable(student, settings, 5, adapters.Origin())
    generator = torch.Generator().manual_seed(0)
    for name, weight in weights.weights.items():
        if "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.05
        elif "lora_A" not in name:
            weight.data = weight.data * (1 + 0.1 * torch.randn(weight.shape, generator=generator))
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
    for index in training.rows_of(1).indices:
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
    sums = accumulate(training, training.rows_of(1), budget, "cpu")
    num_tokens = int(training.rows.num_loss[list(training.rows_of(1).indices)].sum())
    grads = {name: weight.grad / num_tokens for name, weight in training.trainable.weights.items()}
    return mean_losses(training, sums, num_tokens), grads


def relative(ours, reference):
    """-> the largest difference of two sets of tensors, over the norm of the reference."""
    ours = torch.cat([ours[name].double().flatten() for name in sorted(reference)])
    exact = torch.cat([reference[name].double().flatten() for name in sorted(reference)])
    return float((ours - exact).norm() / exact.norm())


def trained_by_peft(model):
    """-> the weights that a PeftModel trains, under the names of its files."""
    named = {name.replace(".default", ""): weight for name, weight in model.named_parameters() if weight.requires_grad}
    named = {name.replace("lora_magnitude_vector.weight", "lora_magnitude_vector"): w for name, w in named.items()}
    return {name.replace(".modules_to_save", ""): weight for name, weight in named.items()}


def compare(family, objective, rows, tmp_path: Path, **more):
    training = training_of(family, objective, rows, **more)
    training.trainable.save(tmp_path)
    model = PeftModel.from_pretrained(tiny.make(family, 1), tmp_path, is_trainable=True).double()
    exact = dense(training, model, tiny.make(family, 2).double())
    exact_grads = {name: weight.grad for name, weight in trained_by_peft(model).items()}
    losses, grads = step(training)
    assert losses["loss"] == pytest.approx(exact[0], rel=1e-5)
    assert losses["class_loss"] == pytest.approx(exact[1], rel=1e-5)
    if "kd_loss" in losses:
        assert losses["kd_loss"] == pytest.approx(exact[2], rel=1e-5)
    assert grads.keys() == exact_grads.keys()
    assert relative(grads, exact_grads) < 1e-5
    return losses
