"""Training on a card: the numbers of float64 on a CPU, whatever the dtype, the cut and the memory."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from support import tiny_models as tiny
from support.reference import dense, recipe, relative, trained_by_peft

from ablate.core.errors import Interrupted
from ablate.losses import LOSSES, parse
from ablate.store.job import read_metrics
from ablate.store.kind import KINDS
from ablate.training import adapters, trainable
from ablate.training.loss import Objective
from ablate.training.model_parts import split_model
from ablate.training.step_loss import accumulate, mean_losses
from ablate.training.train import train
from ablate.training.training import Training

LENGTHS = [9, 17, 5, 12, 17, 2, 11, 8, 20, 6, 14, 7, 9, 18, 16, 19]
ROWS = tiny.random_rows(LENGTHS)
DTYPES = (torch.float32, torch.bfloat16)
KEPT = ("loss", "class_loss", "kd_loss", "teacher_entropy", "grad_norm")
LORA = {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj", "v_proj", "down_proj"]}
RECIPE = {"max_steps": 6, "batch_size": 8, "warmup_steps": 1, "lr": 1e-2, "lora": LORA}


def training_of(objective, dtype=torch.float32, family="llama", **settings):
    """A training on the card whose adapters already differ from zero."""
    student, teacher = (tiny.make(family, seed, dtype).cuda() for seed in (1, 2))
    settings = recipe(family, **settings)
    weights = trainable.make_trainable(student, settings, 5, adapters.Origin())
    generator = torch.Generator().manual_seed(0)
    for name, weight in weights.weights.items():
        if "lora_B" in name:
            weight.data = (torch.randn(weight.shape, generator=generator) * 0.05).cuda()
    return Training(
        recipe=settings,
        seed=5,
        rows=ROWS,
        student=split_model(student, tiny.VOCABULARY),
        trainable=weights,
        objective=objective,
        teacher=split_model(teacher, tiny.VOCABULARY),
    )


def step(training, budget=40):
    """-> (losses, mean gradients by name) of the first optimizer step."""
    training.trainable.discard_grads()
    sums = accumulate(training, training.rows_of(1), budget, "cuda")
    num_tokens = int(training.rows.num_loss[list(training.rows_of(1).indices)].sum())
    grads = {name: weight.grad.cpu() / num_tokens for name, weight in training.trainable.weights.items()}
    return mean_losses(training, sums, num_tokens), grads


def gradients(model):
    """-> those of a PeftModel, by the names that ours have."""
    return {name: weight.grad.cpu() for name, weight in trained_by_peft(model).items()}


DORA = {"rank": 4, "alpha": 6.0, "target_modules": "all-linear", "use_dora": True, "use_rslora": True}
STEPS = [
    *((family, {}) for family in ("llama", "llama_tied", "qwen2", "gpt2", "gemma2")),
    *((family, {"lora": DORA}) for family in ("llama", "gpt2")),
    ("llama", {"lora": DORA | {"modules_to_save": ["embed_tokens", "lm_head"]}}),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("family", "settings"), STEPS)
def test_a_step_on_the_card_is_as_near_to_float64_as_one_of_peft(family, settings, dtype, tmp_path):
    training = training_of(Objective(0.4, parse("forward_kl")), dtype, family, **settings)
    training.trainable.save(tmp_path)
    models = [[tiny.make(family, seed, dtype).cuda() for seed in (1, 2)] for _ in range(2)]
    plain, exact = (PeftModel.from_pretrained(student, tmp_path, is_trainable=True) for student, _ in models)
    with torch.device("cuda"):
        dense(training, plain, models[0][1])
        reference = dense(training, exact.double(), models[1][1].double())  # the same rounded weights, wide
    losses, ours = step(training)
    error, of_peft = (relative(grads, gradients(exact)) for grads in (ours, gradients(plain)))
    assert error < 1.2 * of_peft + 1e-6
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    assert [losses["loss"], losses["kd_loss"]] == pytest.approx([reference[0], reference[2]], rel=tolerance)


@pytest.mark.parametrize("name", [*LOSSES])
def test_the_gradient_does_not_depend_on_how_a_step_is_cut(name):
    training = training_of(Objective(0.5, parse(name)))
    losses, whole = step(training, budget=10_000)
    for budget in (1, 40, 100):
        again, grads = step(training, budget)
        assert again == pytest.approx(losses, rel=1e-4)
        assert relative(grads, whole) < 2e-5


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float32, 2e-5), (torch.bfloat16, 5e-2)], ids=str)
def test_what_dropout_keeps_does_not_depend_on_how_a_step_is_cut(dtype, rel):
    training = training_of(Objective(0.5, parse("forward_kl")), dtype, lora=LORA | {"dropout": 0.3})
    _, whole = step(training, budget=10_000)
    for budget in (1, 40):
        _, grads = step(training, budget)
        assert relative(grads, whole) < rel
    _, without = step(training_of(Objective(0.5, parse("forward_kl")), dtype, lora=LORA), budget=10_000)
    assert relative(without, whole) > 0.1  # it was on


@pytest.mark.parametrize("name", [*LOSSES])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(name, dtype):
    training = training_of(Objective(1.0, parse(name)), dtype)
    for weight in training.trainable.weights.values():
        weight.data = torch.zeros_like(weight.data)
    training.trainable.update_model()
    alike = replace(training, teacher=split_model(tiny.make("llama", 1, dtype).cuda(), tiny.VOCABULARY))
    losses, grads = step(alike)
    assert abs(losses["kd_loss"]) < 1e-5
    assert max(float(grad.abs().max()) for grad in grads.values()) < 1e-4


# whole stages


@pytest.fixture
def inputs(tmp_path):
    return tiny.stage_inputs(tmp_path, ROWS, tiny.random_rows([7, 8], seed=9))


def run(folder: Path, kind: str, settings, inputs, device="cuda", **changed):
    stage = KINDS[kind]
    job = replace(tiny.job(folder, stage.Settings.model_validate(settings), **inputs), device=device, **changed)
    stage.run(job)
    stage.check(folder)
    return job


def distilled(folder, inputs, device="cuda", dtype="float32", **recipe):
    return run(folder, "distill", {"recipe": RECIPE | recipe, "dtype": dtype, "seed": 0}, inputs, device)


def same_curve(one, other, rel):
    pairs = list(zip(read_metrics(one.metrics.path), read_metrics(other.metrics.path), strict=True))
    assert len(pairs) == RECIPE["max_steps"]
    for ours, theirs in pairs:
        assert [ours[name] for name in KEPT] == pytest.approx([theirs[name] for name in KEPT], rel=rel)


def test_a_distillation_has_the_curve_that_it_has_on_a_cpu(inputs, tmp_path):
    on_card = distilled(tmp_path / "cuda", inputs)
    same_curve(on_card, distilled(tmp_path / "cpu", inputs, "cpu"), 1e-3)
    losses = [json.loads((tmp_path / device / "out/holdout.json").read_text()) for device in ("cuda", "cpu")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(("dtype", "rel"), [("float32", 1e-4), ("bfloat16", 5e-2)])
@pytest.mark.parametrize("form", ["vector", "hidden"])
def test_a_teacher_that_was_asked_once_gives_the_curve_of_one_beside(form, dtype, rel, inputs, tmp_path):
    run(tmp_path / "cache", "teacher_cache", {"form": form, "dtype": dtype}, inputs)
    beside = distilled(tmp_path / "beside", inputs, dtype=dtype)
    cached = distilled(tmp_path / "cached", inputs | {"teacher_cache": tmp_path / "cache"}, dtype=dtype)
    assert cached.notes["teacher"] == "its answers were read from cache"
    same_curve(cached, beside, rel)


def test_a_first_training_finds_the_card_sound(inputs, tmp_path):
    settings = {"recipe": RECIPE, "dtype": "bfloat16", "seed": 0}
    run(tmp_path / "kd", "distill", settings, inputs, checks=tmp_path / "checks", device_name="a card")
    assert len(list((tmp_path / "checks").iterdir())) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_that_was_stopped_goes_on_to_the_same_curve(dtype, inputs, tmp_path):
    whole = distilled(tmp_path / "whole", inputs, dtype=dtype)
    asked = []
    with pytest.raises(Interrupted):
        run(
            tmp_path / "stopped",
            "distill",
            {"recipe": RECIPE, "dtype": dtype, "seed": 0},
            inputs,
            is_stopping=lambda: asked.append(1) or len(asked) > 4,
        )
    same_curve(distilled(tmp_path / "stopped", inputs, dtype=dtype), whole, 1e-5 if dtype == "float32" else 1e-2)


# memory


def wide_training(width=1024):
    """A model wide enough that its micro-batches, not its weights, fill what a test leaves of the card."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    settings = tiny.SMALL | {"hidden_size": width, "intermediate_size": 4 * width, "initializer_range": 0.02}
    settings["max_position_embeddings"] = 512
    torch.manual_seed(0)
    student = AutoModelForCausalLM.from_config(LlamaConfig(**settings)).cuda()
    chosen = recipe(max_steps=3, batch_size=64, micro_batch_tokens=32_768)
    return Training(
        recipe=chosen,
        seed=5,
        rows=tiny.random_rows([200 + 4 * number for number in range(64)]),
        student=split_model(student, tiny.VOCABULARY),
        trainable=trainable.make_trainable(student, chosen, 5, adapters.Origin()),
        objective=Objective(0.0, parse("forward_kl")),
    )


def test_a_card_that_is_too_small_is_answered_with_smaller_micro_batches_and_the_same_curve(tmp_path):
    jobs = [replace(tiny.job(tmp_path / name), device="cuda") for name in ("whole", "small")]
    train(jobs[0], wide_training())
    peak = max(record["peak_memory"] for record in read_metrics(jobs[0].metrics.path))
    training = wide_training()
    held, total = torch.cuda.memory_allocated(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((held + (peak - held) / 3) / total)
    train(jobs[1], training)
    assert "halved" in str(jobs[1].notes["out of memory"])
    assert "out of memory" not in jobs[0].notes
    curves = [[(record["loss"], record["grad_norm"]) for record in read_metrics(job.metrics.path)] for job in jobs]
    for ours, theirs in zip(*curves, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("way", [{"answers": "student"}, {"answers": "mixed"}, {"student_fraction": 0.5}])
def test_a_student_writes_and_learns_on_the_card_as_on_a_cpu(way, tmp_path):
    asked = tiny.random_rows(LENGTHS, [max(1, length // 2) for length in LENGTHS])
    inputs = tiny.stage_inputs(tmp_path, asked, tiny.random_rows([7, 8], [2, 3], seed=9))
    settings = way | {"loss": "reverse_kl", "sampling": {"max_new_tokens": 8}, "max_steps": 1}
    jobs = [distilled(tmp_path / device, inputs, device, **settings) for device in ("cuda", "cpu")]
    on_card, on_cpu = (next(read_metrics(job.metrics.path)) for job in jobs)
    names = ("loss", "own_reverse_kl", "student_entropy", "answer_length", "written")
    assert [on_card[name] for name in names] == pytest.approx([on_cpu[name] for name in names], rel=1e-3)
