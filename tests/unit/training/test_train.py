"""Batches, steps, and the training loop: resumed, out of memory, diverged."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_models as tiny

from ablate.core.errors import Diverged, Interrupted, StageError
from ablate.data import steps
from ablate.data.masks import TokenRow
from ablate.data.tokens import lay
from ablate.losses import parse
from ablate.store.job import read_metrics
from ablate.study.training_recipes import Distill, Train
from ablate.training import adapters, batches, trainable
from ablate.training.head import Head
from ablate.training.loss import Objective, fused_loss
from ablate.training.model_parts import ModelParts, split_model
from ablate.training.optimizer import learning_rate
from ablate.training.teacher_outputs import NoTeacher
from ablate.training.train import train
from ablate.training.training import Training

ROWS = tiny.random_rows([9, 17, 5, 12, 17, 3, 11, 8, 20, 6, 14, 7, 9])
"""13 rows: at a batch of 4, 3 steps an epoch and one row over."""


ALL_KINDS = {
    "rank": 4,
    "alpha": 8.0,
    "dropout": 0.2,
    "target_modules": "all-linear",
    "use_rslora": True,
    "use_dora": True,
    "modules_to_save": ["embed_tokens", "lm_head"],
}
"""Everything that LoRA can be beside itself."""

# batches


def test_the_token_after_a_position_is_its_label_by_hand():
    rows = lay([TokenRow([10, 11, 12, 13, 14], [False, False, True, True, True])])
    batch = batches.batch(rows, [0])
    assert batch.positions_M.tolist() == [1, 2, 3]
    assert batch.labels_M.tolist() == [12, 13, 14]


def test_the_class_loss_of_five_tokens_by_hand():
    # the "hidden states" are the logits: token 0 always has half of the probability, the others a quarter each
    logits = torch.tensor([0.5, 0.25, 0.25]).log().repeat(4, 1)
    labels = torch.tensor([0, 1, 0, 2])
    fused = fused_loss(Objective(0.0, parse("forward_kl")), logits, Head(None, 3), labels, NoTeacher())
    assert float(fused.sums.class_loss) == pytest.approx(6 * torch.tensor(2.0).log().item())
    assert fused.grad_MD[0].tolist() == pytest.approx([-0.5, 0.25, 0.25])


def test_rows_are_padded_on_the_right_and_no_padding_is_gathered():
    rows = tiny.random_rows([3, 6])
    batch = batches.batch(rows, [1, 0])
    assert batch.ids_BT.shape == (2, 6)
    assert batch.positions_M.tolist() == [0, 1, 2, 3, 4, 6, 7]


def cost(lengths, cuts):
    return sum(len(cut) * max(lengths[index] for index in cut) + batches.OVERHEAD for cut in cuts)


@given(st.lists(st.integers(2, 400), min_size=1, max_size=7), st.integers(1, 1200))
def test_a_cut_holds_every_row_once_within_the_budget_and_none_is_cheaper(lengths, budget):
    rows = tiny.random_rows(lengths)
    cuts = batches.cut(rows, range(len(lengths)), budget)
    assert sorted(index for cut in cuts for index in cut) == list(range(len(lengths)))
    assert all(len(cut) == 1 or len(cut) * max(lengths[index] for index in cut) <= budget for cut in cuts)
    by_length = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for places in itertools.product([False, True], repeat=len(lengths) - 1):
        ends = [0, *(i + 1 for i, is_end in enumerate(places) if is_end), len(lengths)]
        other = [by_length[begin:end] for begin, end in itertools.pairwise(ends)]
        if all(len(cut) == 1 or len(cut) * lengths[cut[0]] <= budget for cut in other):
            assert cost(lengths, cuts) <= cost(lengths, other)


@pytest.mark.parametrize("num", [16, 32, 128])
def test_rows_as_long_as_alpacas_are_padded_by_less_than_6_percent(num):
    drawn = np.random.default_rng(num)
    forwarded = real = 0
    for _ in range(20):
        lengths = np.clip(30 + drawn.lognormal(4.85, 0.75, num), 32, 1024).astype(int)
        cuts = batches.cut(tiny.random_rows(lengths.tolist()), range(num), batches.CPU_BUDGET)
        forwarded += sum(len(cut) * max(lengths[list(cut)]) for cut in cuts)
        real += lengths.sum()
    assert forwarded / real < 1.06


def test_no_row_stands_beside_one_beyond_a_border():
    rows = tiny.random_rows([9, 17, 5, 12, 16, 3, 18])
    cuts = batches.cut(rows, range(7), 10_000, batches.Cutting(24, (8, 16)))
    assert sorted(sorted(int(rows.lengths[i]) for i in cut) for cut in cuts) == [[3, 5], [9, 12, 16], [17, 18]]


def test_a_row_of_a_model_with_two_sets_of_frequencies_has_one_loss_whatever_is_beside_it():
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 6, "long_factor": [4.0] * 6}
    sizes = tiny.SMALL | {"rope_parameters": rope, "original_max_position_embeddings": 16, "pad_token_id": 0}
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(transformers.Phi3Config(**sizes)).eval()
    parts = split_model(model, tiny.VOCABULARY)
    rows = tiny.random_rows([18, 15])
    assert parts.cutting.borders == (16,)

    def loss(cuts):
        micro_batches = [batches.batch(rows, cut) for cut in cuts]
        logits = [parts.head.logits(parts.hidden(batch)) for batch in micro_batches]
        pairs = zip(logits, micro_batches, strict=True)
        return sum(float(torch.nn.functional.cross_entropy(x, batch.labels_M, reduction="sum")) for x, batch in pairs)

    with torch.no_grad():
        together = loss(batches.cut(rows, [0, 1], 10_000, parts.cutting))
        assert together == pytest.approx(loss([(0,), (1,)]), rel=1e-6)
        assert together != pytest.approx(loss([(0, 1)]), rel=1e-4)


def test_a_row_without_a_loss_bearing_token_is_not_forwarded():
    rows = tiny.random_rows([5, 6, 1, 0], [5, 2, 0, 0])
    assert batches.cut(rows, [0, 1, 2, 3], 100) == [(1,)]
    assert batches.counts(batches.StepRows(1, rows, (0, 1, 2, 3))) == (4, 6)


# steps


@pytest.mark.parametrize(
    ("num_rows", "batch_size", "epochs", "max_steps", "drop_last", "expected"),
    [
        (51_760, 128, 1, None, True, 404),  # the tutorial's
        (51_760, 16, 1, None, True, 3235),
        (13, 4, 2, None, True, 6),
        (13, 4, 2, None, False, 8),
        (13, 16, 1, None, True, 1),  # the only batch is never dropped
        (12, 4, 1, None, True, 3),
        (13, 4, None, 100, True, 100),
        (0, 4, 1, None, True, 0),
        (0, 4, None, 5, True, 0),
    ],
)
def test_optimizer_steps_are_counted(num_rows, batch_size, epochs, max_steps, drop_last, expected):
    assert steps.num_steps(num_rows, batch_size, epochs, max_steps, drop_last) == expected


def test_every_epoch_sees_every_row_once_in_an_order_of_its_own():
    seen = [steps.rows_of_step(step, 12, 4, True, 3) for step in range(1, 7)]
    first, second = sum(seen[:3], ()), sum(seen[3:], ())
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert seen[0] != steps.rows_of_step(1, 12, 4, True, 4)


def test_the_last_partial_batch_comes_where_it_is_not_dropped():
    assert [len(steps.rows_of_step(step, 13, 4, False, 0)) for step in range(1, 9)] == [4, 4, 4, 1] * 2


def test_the_order_of_rows_is_the_same_for_ever():
    # a change here re-orders everybody's training: raise the versions of finetune and distill
    assert steps.order(8, 0, 0) == (5, 6, 4, 7, 1, 3, 0, 2)


def test_no_step_has_rate_zero_and_the_peak_is_reached():
    recipe = Train(lr=1e-3, warmup_steps=4)
    rates = [learning_rate(step, 10, recipe) for step in range(1, 11)]
    assert rates[:5] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3])
    assert min(rates) > 0
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert learning_rate(10, 10, Train(lr=1e-3, warmup_steps=0, schedule="linear")) == pytest.approx(1e-4)
    assert learning_rate(10, 10, Train(lr=1e-3, warmup_steps=4, schedule="constant")) == 1e-3


# the loop


def training_of(rows=ROWS, *, dtype=torch.float32, family="llama", **settings):
    lora = {"rank": 4, "alpha": 8.0, "target_modules": list(tiny.targets(family)), "dropout": 0.2}
    common = {"batch_size": 4, "epochs": 3, "warmup_steps": 2, "lr": 1e-2, "lora": lora, "micro_batch_tokens": 40}
    recipe = Distill.model_validate(common | settings)
    student, teacher = tiny.make(family, 1, dtype), tiny.make(family, 2, dtype)
    weights = trainable.make_trainable(student, recipe, 3, adapters.Origin())
    return Training(
        recipe=recipe,
        seed=3,
        rows=rows,
        student=split_model(student, tiny.VOCABULARY),
        trainable=weights,
        objective=Objective(recipe.kd_ratio, recipe.loss),
        teacher=split_model(teacher, tiny.VOCABULARY),
    )


def curve(job):
    """-> the records of a training, but for what a clock or the memory says."""
    return [
        {name: value for name, value in record.items() if name not in ("seconds", "peak_memory")}
        for record in read_metrics(job.metrics.path)
    ]


def weights_of(training):
    return {name: weight.detach().clone() for name, weight in training.trainable.weights.items()}


def run(folder, **settings):
    job, training = tiny.job(folder), training_of(**settings)
    train(job, training)
    return curve(job), weights_of(training)


def test_training_learns(tmp_path):
    records, _ = run(tmp_path, max_steps=60, max_grad_norm=1.0)
    assert records[-1]["loss"] < 0.85 * records[0]["loss"]
    assert [record["step"] for record in records] == list(range(1, 61))
    assert records[0].keys() == {
        "step",
        "loss",
        "class_loss",
        "kd_loss",
        "teacher_entropy",
        "lr",
        "grad_norm",
        "tokens",
        "tokens_all",
    }


def test_a_bfloat16_model_follows_the_float32_weights_that_are_trained(tmp_path):
    training = training_of(lora=None, lr=1e-3, dtype=torch.bfloat16)
    train(tiny.job(tmp_path), training)
    for name, parameter in training.student.model.named_parameters():
        assert torch.equal(parameter, training.trainable.weights[name].bfloat16())


def test_one_seed_is_one_curve(tmp_path):
    assert run(tmp_path / "a")[0] == run(tmp_path / "b")[0]


@pytest.mark.parametrize("stop_after", [2, 8])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora": None, "lr": 1e-3},
        {"lora": None, "lr": 1e-3, "dtype": torch.bfloat16},
        {"lora": ALL_KINDS},
        {"lora": ALL_KINDS, "dtype": torch.bfloat16},
    ],
    ids=["lora", "full", "full-bfloat16", "dora", "dora-bfloat16"],
)
def test_a_training_stopped_in_mid_epoch_or_in_the_last_goes_on_with_the_same_curve(tmp_path, stop_after, settings):
    undisturbed = run(tmp_path / "a", **settings)
    first = tiny.job(tmp_path / "b")
    first.is_stopping = lambda: len(curve(first)) >= stop_after
    with pytest.raises(Interrupted):
        train(first, training_of(**settings))
    assert len(curve(first)) == stop_after
    resumed = run(tmp_path / "b", **settings)
    assert resumed[0] == undisturbed[0]
    for name, weight in undisturbed[1].items():
        assert torch.equal(resumed[1][name], weight)


class Killed(BaseException):
    pass


def test_a_killed_training_goes_on_from_its_last_checkpoint_each_step_recorded_once(tmp_path):
    undisturbed = run(tmp_path / "a")
    job = tiny.job(tmp_path / "b")

    def dies_at_six():
        if len(curve(job)) == 6:
            raise Killed
        return False

    job.is_stopping = dies_at_six
    with pytest.raises(Killed):
        train(job, training_of(checkpoint_every_s=1e-9))
    assert job.checkpoints.latest()[0] == 6
    assert run(tmp_path / "b")[0] == undisturbed[0]


def test_a_resumed_training_needs_no_metrics_but_the_checkpoints(tmp_path):
    undisturbed = run(tmp_path / "a")
    job = tiny.job(tmp_path / "b")
    job.is_stopping = lambda: len(curve(job)) >= 5
    with pytest.raises(Interrupted):
        train(job, training_of())
    job.metrics.path.unlink()
    assert run(tmp_path / "b")[0] == undisturbed[0]


OTHER_WEIGHTS = {
    "other modules": {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj"]},
    "more modules": {"rank": 4, "alpha": 8.0, "target_modules": [*tiny.targets("llama"), "k_proj"]},
    "another rank": {"rank": 1, "alpha": 8.0, "target_modules": list(tiny.targets("llama"))},
    "every weight": None,
}


@pytest.mark.parametrize("kind", OTHER_WEIGHTS)
def test_a_checkpoint_of_other_weights_is_refused_not_taken_in_part(kind, tmp_path):
    """A tensor of rank 1 would be broadcast, and one that lacks would stay as it began."""
    job = tiny.job(tmp_path)
    job.is_stopping = lambda: len(curve(job)) >= 3
    with pytest.raises(Interrupted):
        train(job, training_of(lora=OTHER_WEIGHTS[kind]))
    with pytest.raises(StageError, match="tensors of this checkpoint are not those of the training"):
        train(tiny.job(tmp_path), training_of())


class StumblingCard(ModelParts):
    """Runs out of memory once, in the backward pass of the second micro-batch of a step."""

    num_calls = 0

    def hidden(self, batch):
        StumblingCard.num_calls += 1
        hidden_MD = super().hidden(batch)
        if StumblingCard.num_calls == 2:
            hidden_MD.register_hook(_stumble)
        return hidden_MD


def _stumble(_):
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_out_of_memory_in_mid_step_leaves_no_gradient_behind(tmp_path):
    settings = {"lora": None, "dtype": torch.bfloat16, "micro_batch_tokens": 40, "max_steps": 1}
    (whole,), _ = run(tmp_path / "a", **settings)
    job, training = tiny.job(tmp_path / "b"), training_of(**settings)
    StumblingCard.num_calls = 0
    train(job, replace(training, student=StumblingCard(training.student.model, training.student.head)))
    assert curve(job)[0]["grad_norm"] == pytest.approx(whole["grad_norm"], rel=2e-3)


@pytest.mark.parametrize("settings", [{}, {"lora": ALL_KINDS}], ids=["lora", "dora"])
def test_dropout_does_not_depend_on_how_a_step_is_cut(tmp_path, settings):
    (one,), _ = run(tmp_path / "a", max_steps=1, micro_batch_tokens=40, **settings)
    (other,), _ = run(tmp_path / "b", max_steps=1, micro_batch_tokens=400, **settings)
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


def test_a_loss_that_is_not_finite_is_recorded_and_ends_the_training(tmp_path):
    job = tiny.job(tmp_path)
    with pytest.raises(Diverged) as caught:
        train(job, training_of(lr=1e30, warmup_steps=0))
    records = curve(job)
    assert len(records) == caught.value.step
    assert records[-1]["loss"] in ("NaN", "Infinity") or records[-1]["grad_norm"] in ("NaN", "Infinity")


def test_no_dropout_asked_for_none_applied():
    training = training_of(lora={"rank": 4, "alpha": 8.0, "target_modules": ["q_proj"]})
    for part in (training.student, training.teacher):
        assert not any(module.training for module in part.model.modules())


def test_dropout_is_the_adapters_alone():
    training = training_of()
    on = {type(module).__name__ for module in training.student.model.modules() if module.training}
    assert on == {"LoraLinear"}
    assert not any(module.training for module in training.teacher.model.modules())


def test_a_step_without_a_loss_bearing_token_changes_nothing_but_is_recorded(tmp_path):
    rows = tiny.random_rows([5] * 4, [5] * 4)
    job, training = tiny.job(tmp_path), training_of(rows, epochs=1)
    before = weights_of(training)
    train(job, training)
    assert curve(job)[0]["loss"] is None  # a mean of nothing is no 0
    assert curve(job)[0]["tokens"] == 0
    assert all(torch.equal(weight, before[name]) for name, weight in weights_of(training).items())


def test_a_training_of_no_row_is_refused(tmp_path):
    with pytest.raises(StageError, match="no rows"):
        train(tiny.job(tmp_path), training_of(lay([])))
