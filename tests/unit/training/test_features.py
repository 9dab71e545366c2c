"""The loss on hidden states in a training: against plain transformers in float64, whatever the cut."""

import json
from dataclasses import replace

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file
from support import reference
from support import tiny_models as tiny
from torch.nn import functional

from ablate.core.errors import StageError
from ablate.feature_losses import parse
from ablate.store.job import read_metrics
from ablate.training import adapters, trainable
from ablate.training.features import PROJECTION, make_features
from ablate.training.loss import Objective
from ablate.training.model_parts import split_model
from ablate.training.projections import WithProjections
from ablate.training.trainable import FULL_WEIGHTS
from ablate.training.training import Training

ROWS = tiny.random_rows(reference.LENGTHS, reference.PROMPTS)
OTHER = {
    "llama": {"hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 4},
    "gpt2": {"n_embd": 32, "n_layer": 5},
    "gemma2": {"hidden_size": 40, "num_hidden_layers": 3},
    "phi": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4},
}
"""Of a teacher, what is not as in its student."""
TOLERANCE = {"gpt2": 1e-9, "phi": 1e-9, "llama": 1e-6, "gemma2": 1e-6}
"""The last two norm in float32 inside, whatever their dtype, and so round otherwise in batches of other shapes."""


def teacher_of(family, is_alike=False):
    """-> a deeper and wider one, unless `is_alike`."""
    name, settings = tiny.FAMILIES[family]
    torch.manual_seed(2)
    config = getattr(transformers, name)(**settings | ({} if is_alike else OTHER[family]))
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval()


def training_of(family, features, is_alike=False, **settings):
    """A training in float64 whose adapters differ from zero already."""
    student, recipe = tiny.make(family, 1, torch.float64), reference.recipe(family, **settings)
    weights = trainable.make_trainable(student, recipe, 5, adapters.Origin())
    generator = torch.Generator().manual_seed(0)
    for name, weight in weights.weights.items():
        if "lora_B" in name:
            weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64) * 0.05
    parts, teacher = split_model(student, tiny.VOCABULARY), split_model(teacher_of(family, is_alike), tiny.VOCABULARY)
    compared = make_features(parse(features), teacher, parts, 5)
    weights = WithProjections(weights, compared.trained)
    objective = Objective(0.4, recipe.loss)
    return Training(recipe, 5, ROWS, parts, weights, objective, teacher=teacher, features=compared)


def by_transformers(training, model, teacher, projection):
    """-> (loss, feature_loss) of the first step, one row at a time; gradients are left on what is trained."""
    features, sums, num = training.features.loss, [0.0, 0.0, 0.0], 0
    for index in training.rows_of(1).indices:
        tokens, mask = ROWS.row(index)
        ids, counts = torch.tensor(tokens.tolist())[None], torch.tensor(mask[1:].tolist(), dtype=torch.bool)
        outputs = model(input_ids=ids, output_hidden_states=True)
        with torch.no_grad():
            answers = teacher(input_ids=ids, output_hidden_states=True)
        q, p = (x.logits[0, :-1, : tiny.VOCABULARY][counts].log_softmax(-1) for x in (outputs, answers))
        sums[0] = sums[0] - q.gather(1, ids[0, 1:][counts][:, None]).sum()
        sums[1] = sums[1] + functional.kl_div(q, p, reduction="sum", log_target=True)
        for theirs, own in training.features.pairs:
            s, t = outputs.hidden_states[own][0, :-1][counts], answers.hidden_states[theirs][0, :-1][counts]
            s = s if projection is None else s @ projection.T
            distance = ((s - t) ** 2).mean(-1) if features.name == "mse" else 1 - torch.cosine_similarity(s, t, -1)
            sums[2] = sums[2] + distance.sum() / len(training.features.pairs)
        num += int(counts.sum())
    class_loss, kd_loss, feature_loss = (x / num for x in sums)
    loss = 0.6 * class_loss + 0.4 * kd_loss + features.weight * feature_loss
    loss.backward()
    return loss.item(), feature_loss.item()


def compare(training, tmp_path, family, is_alike=False):
    training.trainable.save(tmp_path)
    student = tiny.make(family, 1, torch.float64)
    if training.recipe.lora:
        student = PeftModel.from_pretrained(student, tmp_path, is_trainable=True)
        named = reference.trained_by_peft(student)
    else:
        named = dict(student.named_parameters())
    projection = training.features.projection_TS
    if projection is not None:
        projection = named[PROJECTION] = projection.detach().clone().requires_grad_()
    exact, exact_features = by_transformers(training, student, teacher_of(family, is_alike), projection)
    losses, grads = reference.step(training)
    assert losses["loss"] == pytest.approx(exact, rel=TOLERANCE[family])
    assert losses["feature_loss"] == pytest.approx(exact_features, rel=TOLERANCE[family])
    assert reference.relative(grads, {name: weight.grad for name, weight in named.items()}) < TOLERANCE[family]
    return grads


@pytest.mark.parametrize("name", ["mse", "cosine"])
@pytest.mark.parametrize("family", [*OTHER])
def test_a_step_is_what_transformers_and_peft_make_of_it_in_float64(family, name, tmp_path):
    grads = compare(training_of(family, {"name": name, "weight": 0.7}), tmp_path, family)
    assert float(grads[PROJECTION].norm()) > 0


@pytest.mark.parametrize("layers", ["last", [[0, 0], [1, 2]]])
def test_so_it_is_for_layers_that_are_named_and_for_models_of_one_width(layers, tmp_path):
    features = {"name": "mse", "weight": 0.7, "layers": layers}
    grads = compare(training_of("gpt2", features, is_alike=True), tmp_path, "gpt2", is_alike=True)
    assert PROJECTION not in grads


def test_so_it_is_where_every_weight_is_trained(tmp_path):
    compare(training_of("gpt2", {"name": "mse", "weight": 0.7}, lora=None), tmp_path, "gpt2")


@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True}])
def test_the_cut_into_micro_batches_and_recomputed_activations_change_nothing(settings):
    losses, grads = reference.step(training_of("gpt2", "mse"), budget=10_000)
    again, other = reference.step(training_of("gpt2", "mse", **settings), budget=17)
    assert again == pytest.approx(losses, rel=1e-9)
    assert reference.relative(other, grads) < 1e-9


def test_without_features_a_step_is_bit_for_bit_what_it_was_before_and_they_weigh_in_as_they_say():
    with_features = training_of("llama", {"name": "mse", "weight": 1e-9}, is_alike=True)
    losses, grads = reference.step(with_features)
    plain, plain_grads = reference.step(replace(with_features, features=None))
    assert "feature_loss" not in plain
    assert losses["loss"] == pytest.approx(plain["loss"] + 1e-9 * losses["feature_loss"], rel=1e-12)
    assert reference.relative(grads, plain_grads) < 1e-6


# as a stage

RECIPE = {
    "max_steps": 4,
    "batch_size": 4,
    "warmup_steps": 1,
    "lr": 1e-2,
    "lora": {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj", "v_proj"]},
}


@pytest.fixture
def inputs(tmp_path):
    inputs = tiny.stage_inputs(tmp_path, tiny.random_rows([9, 17, 5, 12, 17, 3, 11, 8]), tiny.random_rows([7], seed=9))
    teacher_of("llama").float().save_pretrained(tmp_path / "teacher-model")
    return inputs


def run(folder, inputs, **recipe):
    from ablate.store.kind import KINDS

    stage = KINDS["distill"]
    settings = stage.Settings.model_validate({"recipe": RECIPE | recipe, "dtype": "float32", "seed": 0})
    stage.run(tiny.job(folder, settings, **inputs))
    stage.check(folder)
    return folder


@pytest.mark.parametrize("lora", [RECIPE["lora"], None])
def test_the_projection_is_left_behind(inputs, tmp_path, lora):
    folder = run(tmp_path / "kd", inputs, features="mse", lora=lora)
    result = load_file(folder / "out" / (FULL_WEIGHTS if lora is None else adapters.WEIGHTS))
    assert not any("projection" in name for name in result)
    assert not [path for path in folder.rglob("*") if "projection" in path.name]
    curve = list(read_metrics(folder / "metrics.jsonl"))
    assert all(record["feature_loss"] > 0 for record in curve)
    assert curve[0]["loss"] == pytest.approx(
        0.5 * curve[0]["class_loss"] + 0.5 * curve[0]["kd_loss"] + 0.1 * curve[0]["feature_loss"]
    )


def test_a_projection_that_is_trained_comes_nearer(inputs, tmp_path):
    curve = list(read_metrics(run(tmp_path / "kd", inputs, features="cosine", max_steps=40) / "metrics.jsonl"))
    assert curve[-1]["feature_loss"] < 0.8 * curve[0]["feature_loss"]


@pytest.mark.parametrize(
    ("features", "why"),
    [
        ({"name": "mse", "layers": [[6, 2]]}, "no layer 6 of the teacher: it has 0 to 5"),
        ({"name": "mse", "projection": "none"}, "the teacher's states have width 32, the student's 24"),
    ],
)
def test_what_the_models_do_not_have_is_refused_before_the_first_step(inputs, tmp_path, features, why):
    with pytest.raises(StageError, match=why):
        run(tmp_path / "kd", inputs, features=features)
    assert not (tmp_path / "kd/metrics.jsonl").exists()


def test_a_cache_of_answers_is_left_alone(inputs, tmp_path):
    (tmp_path / "cache/out").mkdir(parents=True)
    (tmp_path / "cache/out/index.json").write_text(json.dumps({"form": "hidden"}))
    run(tmp_path / "kd", inputs | {"teacher_cache": tmp_path / "cache"}, features="cosine")
