"""A student's own answers in its training: the same as by hand, whatever is stopped, cut or resumed."""

import itertools
import json
import random
from dataclasses import replace

import pytest
import torch
from support import slow_writer
from support import tiny_models as tiny

from ablate.core.errors import Interrupted, StageError
from ablate.store.job import read_metrics
from ablate.store.kind import KINDS
from ablate.study.answer_settings import AdaptiveShare, Replay
from ablate.study.training_recipes import Distill
from ablate.training import adapters, batches, decode_loop, trainable
from ablate.training.decode_loop import Writer
from ablate.training.loss import objective, own_objective
from ablate.training.model_parts import ModelParts, split_model
from ablate.training.on_policy import Writing
from ablate.training.optimizer import learning_rate
from ablate.training.own_rows import own_rows, repetition, rounded
from ablate.training.prompts import Answer, Prompt, prompt_ids
from ablate.training.replay import ReplayBuffer, next_share
from ablate.training.step_loss import accumulate
from ablate.training.token_draws import Draws
from ablate.training.train import train
from ablate.training.training import Training

ROWS = tiny.random_rows([9, 17, 5, 12, 17, 8, 11, 8, 14, 6, 13, 10], [3, 5, 2, 4, 6, 2, 4, 3, 5, 2, 4, 3])
HELD_OUT = tiny.random_rows([7, 8], [2, 3], seed=9)
ENDS = frozenset({1, 2, 3})
LORA = {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj", "v_proj"]}
RECIPE = {"max_steps": 3, "batch_size": 4, "warmup_steps": 1, "lr": 1e-3, "lora": None, "kd_ratio": 0.7}
SHORT = {"max_new_tokens": 7}


def training_of(dtype=torch.float64, family="gpt2", **more):
    recipe = Distill.model_validate(RECIPE | {"sampling": SHORT} | more)
    student, teacher = tiny.make(family, 1, dtype), split_model(tiny.make(family, 2, dtype), tiny.VOCABULARY)
    weights = trainable.make_trainable(student, recipe, 3, adapters.Origin())
    parts = split_model(student, tiny.VOCABULARY)
    training = Training(
        recipe=recipe,
        seed=3,
        rows=ROWS,
        student=parts,
        trainable=weights,
        objective=objective(recipe),
        own_objective=own_objective(recipe),
        teacher=teacher,
        holdout=HELD_OUT,
    )
    writer = Writer(parts, ENDS, teacher if recipe.answers == "mixed" else None)
    return replace(training, writing=Writing(recipe, 3, training.num_steps, writer, lambda ids: str(list(ids))))


# by hand


def divergence(name, student, teacher):
    """-> of each position."""
    q, p = student.softmax(-1), teacher.softmax(-1)
    if name == "jsd":
        middle = 0.5 * p + 0.5 * q
        return 0.5 * (p * (p / middle).log()).sum(-1) + 0.5 * (q * (q / middle).log()).sum(-1)
    a, b = (p, q) if name == "forward_kl" else (q, p)
    return (a * (a / b).log()).sum(-1)


def logits_of(model, ids, counted):
    return model(input_ids=torch.tensor([ids])).logits[0, :-1, : tiny.VOCABULARY][counted]


def written_by_hand(training, student, teacher, step, rows):
    recipe = training.recipe
    draws, models = Draws(training.seed, step), (teacher, student) if recipe.answers == "mixed" else (student,)
    prompts = [Prompt(row, n, prompt_ids(ROWS, row)) for row in rows for n in range(recipe.sampling.num_answers)]
    return [slow_writer.write(prompt, models, recipe.sampling, draws, ENDS, tiny.VOCABULARY) for prompt in prompts]


def step_by_hand(training, student, teacher, step):
    """-> (loss, answers): GKD's objective; gradients are left on the student."""
    own = own_rows(training.rows_of(step), training.recipe.student_fraction, training.seed)
    answers = written_by_hand(training, student, teacher, step, own)
    return loss_by_hand(training, student, teacher, answers, set(training.rows_of(step).indices) - set(own)), answers


def loss_by_hand(training, student, teacher, answers, others):
    """-> of a step, a row at a time: `answers` of the student, and the data's of other rows."""
    recipe = training.recipe
    total, num_tokens = 0, 0
    for answer in answers:
        ids = [*answer.prompt.ids, *answer.ids]
        counted = [place >= len(answer.prompt.ids) for place in range(1, len(ids))]
        student_logits, teacher_logits = (logits_of(model, ids, counted) for model in (student, teacher))
        name = (recipe.student_loss or recipe.loss).name
        total = total + divergence(name, student_logits, teacher_logits.detach()).sum()
        num_tokens += sum(counted)
    for row in others:
        ids, mask = (part.tolist() for part in ROWS.row(row))
        counted = [bool(mask[place]) for place in range(1, len(ids))]
        student_logits, teacher_logits = (logits_of(model, ids, counted) for model in (student, teacher))
        labels = torch.tensor(ids[1:])[torch.tensor(counted)]
        class_loss = torch.nn.functional.cross_entropy(student_logits, labels, reduction="sum")
        kd_loss = divergence(recipe.loss.name, student_logits, teacher_logits.detach()).sum()
        total = total + (1 - recipe.kd_ratio) * class_loss + recipe.kd_ratio * kd_loss
        num_tokens += sum(counted)
    loss = total / num_tokens
    loss.backward()
    return float(loss.detach())


WAYS = {
    "student": {"answers": "student", "loss": "reverse_kl"},
    "student, several answers": {"answers": "student", "loss": "forward_kl", "sampling": SHORT | {"num_answers": 2}},
    "mixed": {"answers": "mixed", "loss": "jsd", "sampling": SHORT | {"mix": 0.4}},
    "half": {"student_fraction": 0.5, "loss": "jsd"},
    "half, another loss": {"student_fraction": 0.5, "loss": "forward_kl", "student_loss": "reverse_kl"},
    "some": {"student_fraction": 0.3, "loss": "reverse_kl", "sampling": SHORT | {"temperature": 0.0}},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_training_on_own_answers_is_that_of_a_plain_loop(tmp_path, way):
    training, job = training_of(**WAYS[way]), tiny.job(tmp_path)
    train(job, training)
    student, teacher = tiny.make("gpt2", 1, torch.float64), tiny.make("gpt2", 2, torch.float64)
    adamw = torch.optim.AdamW(student.parameters(), betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    for record in read_metrics(job.metrics.path):
        adamw.zero_grad()
        loss, answers = step_by_hand(training, student, teacher, record["step"])
        assert record["loss"] == pytest.approx(loss, rel=1e-9)
        assert record["written"] == len(answers)
        if answers:
            assert record["answer_length"] == sum(len(answer.ids) for answer in answers) / len(answers)
            assert record["ended"] == sum(answer.ended for answer in answers) / len(answers)
        adamw.param_groups[0]["lr"] = learning_rate(record["step"], 3, training.recipe)
        adamw.step()
    for name, weight in student.named_parameters():
        torch.testing.assert_close(training.trainable.weights[name].detach(), weight.detach(), rtol=0, atol=1e-9)


def test_the_curve_tells_what_the_answers_are_like(tmp_path):
    training, job = training_of(**WAYS["student, several answers"], lr=1e-30), tiny.job(tmp_path)
    train(job, training)
    for record in read_metrics(job.metrics.path):
        student, teacher = training.student.model, training.teacher.model
        _, answers = step_by_hand(training, student, teacher, record["step"])
        kl = entropy = num_tokens = 0
        for answer in answers:
            ids = [*answer.prompt.ids, *answer.ids]
            counted = [place >= len(answer.prompt.ids) for place in range(1, len(ids))]
            q, p = (logits_of(model, ids, counted).detach().softmax(-1) for model in (student, teacher))
            kl += float((q * (q / p).log()).sum())
            entropy -= float((q * q.log()).sum())
            num_tokens += len(answer.ids)
        assert record["own_reverse_kl"] == pytest.approx(kl / num_tokens, rel=1e-9)
        assert record["student_entropy"] == pytest.approx(entropy / num_tokens, rel=1e-9)
        assert record["repetition"] == sum(repetition(answer.ids) for answer in answers) / len(answers)
        assert record["class_loss"] is None  # own answers are no labels
        assert record["student_share"] == 1
        assert record["written_tokens_s"] > 0


def test_means_of_a_mixed_step_are_over_the_tokens_that_they_are_of(tmp_path):
    training, job = training_of(**WAYS["half"], lr=1e-30), tiny.job(tmp_path)
    train(job, training)
    plain = training_of(kd_ratio=0.7, loss="jsd", lr=1e-30)
    for record in read_metrics(job.metrics.path):
        base = training.rows_of(record["step"])
        others = [row for row in base.indices if row not in own_rows(base, 0.5, 3)]
        sums = accumulate(plain, base._replace(indices=tuple(others)), 1000, "cpu")
        num_labels = int(ROWS.num_loss[others].sum())
        assert record["class_loss"] == pytest.approx(float(sums.data.class_loss) / num_labels, rel=1e-9)
        num_own = record["tokens"] - num_labels
        own_kd = (record["loss"] - record["class_loss"] * 0.3 * num_labels / record["tokens"]) * record["tokens"]
        own_kd -= 0.7 * float(sums.data.kd_loss)
        assert num_own == round(record["written"] * record["answer_length"])
        mean = (own_kd + float(sums.data.kd_loss)) / record["tokens"]
        assert record["kd_loss"] == pytest.approx(mean, rel=1e-9)


def test_runs_of_four_tokens_that_come_again_are_repetition():
    assert repetition([1, 2, 3]) == 0
    assert repetition([1, 2, 3, 4, 5]) == 0
    assert repetition([7] * 8) == 4 / 5
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.62, 1.0])
def test_the_students_share_of_a_steps_rows_is_as_said_and_drawn_among_all(share):
    rows = tiny.random_rows([5] * 8)
    steps = [batches.StepRows(step, rows, tuple(range(8))) for step in range(1, 1001)]
    chosen = [own_rows(step, share, 3) for step in steps]
    assert {len(rows) for rows in chosen} <= {int(8 * share), int(8 * share) + (8 * share != int(8 * share))}
    assert sum(map(len, chosen)) / 8000 == pytest.approx(share, abs=0.01)
    for row in range(8):
        assert sum(row in rows for rows in chosen) / 1000 == pytest.approx(share, abs=0.05)
    assert chosen == [own_rows(step, share, 3) for step in steps]
    assert all(len(set(rows)) == len(rows) for rows in chosen)


def test_a_row_without_an_answer_is_not_written_either():
    rows = tiny.random_rows([5, 6, 4], [5, 2, 2])
    assert sorted(own_rows(batches.StepRows(1, rows, (0, 1, 2)), 1.0, 3)) == [1, 2]


# stopped, killed, cut otherwise


EVERY = {"student_fraction": 0.5, "loss": "jsd", "max_steps": 4, "batch_size": 6}
ALL_KINDS = LORA | {"dropout": 0.2, "use_dora": True, "modules_to_save": ["lm_head"]}
KINDS_OF_TRAINING = {
    "everything": {},
    "adapters": {"lora": LORA | {"dropout": 0.2}},
    "all kinds": {"lora": ALL_KINDS, "gradient_checkpointing": True},
    "replayed": {"replay": {"capacity": 5, "reuse": 2}},
    "adaptive": {"student_fraction": 0.1, "replay": {"reuse": 2, "adaptive": {"every": 1, "step": 0.3}}},
}
OF_A_CLOCK = ("seconds", "peak_memory", "written_tokens_s")


@pytest.fixture
def _small_groups(monkeypatch):
    monkeypatch.setattr(decode_loop, "most_together", lambda num_bytes: 1)


def result(job, training):
    """-> all that must be the same, whatever happened on the way."""
    curve = [{k: v for k, v in one.items() if k not in OF_A_CLOCK} for one in read_metrics(job.metrics.path)]
    weights = {name: weight.detach().clone() for name, weight in training.trainable.weights.items()}
    return curve, (job.out / "samples.jsonl").read_text(), weights, job.notes


def require_same(a, b):
    assert a[0] == b[0]
    assert a[1] == b[1]
    assert a[3] == b[3]
    for name, weight in a[2].items():
        assert torch.equal(weight, b[2][name])


def trained(folder, **more):
    job, training = tiny.job(folder), training_of(torch.float32, "llama", **EVERY | more)
    train(job, training)
    return result(job, training)


@pytest.mark.usefixtures("_small_groups")
@pytest.mark.parametrize("kind", KINDS_OF_TRAINING)
def test_a_training_stopped_wherever_it_may_be_loses_no_answer_and_ends_the_same(tmp_path, monkeypatch, kind):
    more = KINDS_OF_TRAINING[kind]
    undisturbed = trained(tmp_path / "a", **more)
    written: list[Prompt] = []
    group = decode_loop._group
    monkeypatch.setattr(decode_loop, "_group", lambda asked, prompts: written.extend(prompts) or group(asked, prompts))
    for _ in range(100):
        job = tiny.job(tmp_path / "b")
        asked = iter((False, True))
        job.is_stopping = lambda asked=asked: next(asked, True)  # at the second place where it may
        training = training_of(torch.float32, "llama", **EVERY | more)
        try:
            train(job, training)
            break
        except Interrupted:
            pass
    require_same(result(job, training), undisturbed)
    assert len(written) == sum(record["written"] for record in undisturbed[0])  # none of them twice


@pytest.mark.usefixtures("_small_groups")
def test_a_stop_between_two_answers_is_a_checkpoint_beyond_the_last_steps(tmp_path):
    job = tiny.job(tmp_path)
    places = []

    def is_stopping():
        places.append([path.name for _, path in job.checkpoints.complete()])
        return False

    job.is_stopping = is_stopping
    train(job, training_of(**EVERY, checkpoint_every_s=1e-9))
    names = [names[-1] for names in places if names]
    assert names == sorted(names)
    assert {"step-0.000001", "step-0.000002", "step-0.000003", "step-1", "step-1.000001"} <= set(names)


@pytest.mark.parametrize("budget", [1, 60, 1000])
def test_another_cut_of_the_micro_batches_leaves_the_answers_as_they_are(tmp_path, budget):
    texts = []
    for number, tokens in enumerate((budget, 25)):
        job = tiny.job(tmp_path / str(number))
        train(job, training_of(torch.float64, **WAYS["half"], micro_batch_tokens=tokens))
        texts.append([json.loads(line)["answer"] for line in (job.out / "samples.jsonl").read_text().splitlines()])
    assert texts[0] == texts[1] != []


@pytest.mark.parametrize("kind", ["adapters", "all kinds"])
def test_nothing_is_dropped_while_answers_are_written_and_the_model_is_as_it_was(tmp_path, kind):
    training = training_of(torch.float32, "llama", **EVERY | KINDS_OF_TRAINING[kind])
    modes = {name: module.training for name, module in training.student.model.named_modules()}
    assert any(modes.values())
    job = tiny.job(tmp_path)
    train(job, training)
    assert {name: module.training for name, module in training.student.model.named_modules()} == modes
    first = json.loads((job.out / "samples.jsonl").read_text().splitlines()[0])
    fresh = training_of(torch.float32, "llama", **EVERY | KINDS_OF_TRAINING[kind] | {"lora": LORA})
    prompt = Prompt(first["row"], 0, prompt_ids(ROWS, first["row"]))
    recipe = training.recipe
    answer = slow_writer.write(prompt, (fresh.student.model,), recipe.sampling, Draws(3, 1), ENDS, tiny.VOCABULARY)
    assert first["answer"] == str(list(answer.ids))


class Diverse(ModelParts):
    """Runs out of memory in the first forward pass of a training step that comes after answers were written."""

    has_failed = False

    def hidden(self, batch):
        if torch.is_grad_enabled() and not Diverse.has_failed:
            Diverse.has_failed = True
            raise torch.OutOfMemoryError
        return super().hidden(batch)


def answers_of(sample):
    return {name: value for name, value in json.loads(sample).items() if "logprob" not in name}  # which are rounded


def test_out_of_memory_in_a_step_writes_no_answer_anew(tmp_path):
    undisturbed = trained(tmp_path / "a", micro_batch_tokens=60)
    training = training_of(torch.float32, "llama", **EVERY, micro_batch_tokens=120)
    training = replace(training, student=Diverse(training.student.model, training.student.head))
    job = tiny.job(tmp_path / "b")
    train(job, training)
    assert Diverse.has_failed
    assert [answers_of(one) for one in result(job, training)[1].splitlines()] == [
        answers_of(one) for one in undisturbed[1].splitlines()
    ]
    assert "out of memory" in job.notes


# replay


def test_of_so_many_answers_trained_on_one_is_new_and_the_buffer_forgets_the_oldest():
    settings, answers = Replay(capacity=20, reuse=4), [Answer(Prompt(n, 0, (1,)), (2,), True) for n in range(4000)]
    buffer, num_new, num_used = ReplayBuffer(settings), 0, 0
    for step in range(1000):
        new = buffer.num_new(6, 1, f"3/{step}")
        drawn = buffer.drawn(6 - new, f"3/{step}")
        assert len(drawn) == len(set(drawn)) == 6 - new
        assert set(drawn) <= set(buffer.kept)
        num_used += 6
        buffer.keep(answers[num_new : num_new + new])
        num_new += new
        assert buffer.kept == answers[max(0, num_new - 20) : num_new]
    assert num_used / num_new == pytest.approx(4, rel=0.03)


def test_the_share_rises_by_a_step_whenever_the_loss_did_and_ends_at_one():
    settings = AdaptiveShare(every=2, step=0.25, tolerance=0.1)
    losses = [3.0, 2.0, 2.05, 2.2, 2.1, 2.3, 2.5, 2.8, 3.5]
    share, shares = 0.1, []
    for before, loss in itertools.pairwise(losses):
        share = next_share(share, loss, before, settings)
        shares.append(share)
    assert shares == pytest.approx([0.1, 0.1, 0.35, 0.35, 0.6, 0.85, 1.0, 1.0])


def held_out_by_hand(training, student, teacher):
    total = num_tokens = 0
    for row in range(len(HELD_OUT)):
        ids, mask = (part.tolist() for part in HELD_OUT.row(row))
        counted = [bool(mask[place]) for place in range(1, len(ids))]
        q, p = (logits_of(model, ids, counted).detach() for model in (student, teacher))
        labels = torch.tensor(ids[1:])[torch.tensor(counted)]
        ratio = training.recipe.kd_ratio
        total += (1 - ratio) * float(torch.nn.functional.cross_entropy(q, labels, reduction="sum"))
        total += ratio * float(divergence(training.recipe.loss.name, q, p).sum())
        num_tokens += sum(counted)
    return total / num_tokens


def test_replay_and_the_adaptive_share_are_distillms_in_a_plain_loop(tmp_path):
    """Ko et al. 2024, algorithm 1, with a share in the place of its probability."""
    adaptive = {"every": 2, "step": 0.3}
    way = {"student_fraction": 0.25, "loss": "jsd", "max_steps": 9, "lr": 0.05, "batch_size": 6, "sampling": SHORT}
    training, job = training_of(**way, replay={"capacity": 3, "reuse": 2, "adaptive": adaptive}), tiny.job(tmp_path)
    train(job, training)
    records = list(read_metrics(job.metrics.path))
    student, teacher = tiny.make("gpt2", 1, torch.float64), tiny.make("gpt2", 2, torch.float64)
    adamw = torch.optim.AdamW(student.parameters(), betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    share, kept, before = 0.25, [], held_out_by_hand(training, student, teacher)
    num_replayed = 0
    for record in records:
        step, draw = record["step"], f"3/{record['step']}"
        assert record["student_share"] == pytest.approx(share)
        own = own_rows(training.rows_of(step), share, 3)
        num_new = max(rounded(len(own) / 2, f"new/{draw}"), len(own) - len(kept))
        new = written_by_hand(training, student, teacher, step, own[:num_new])
        replayed = random.Random(f"ablate/replay/{draw}").sample(kept, len(own) - num_new)
        num_replayed += len(replayed)
        adamw.zero_grad()
        others = set(training.rows_of(step).indices) - set(own)
        loss = loss_by_hand(training, student, teacher, [*new, *replayed], others)
        assert (record["written"], record["loss"]) == (len(new), pytest.approx(loss, rel=1e-7))
        adamw.param_groups[0]["lr"] = learning_rate(step, 9, training.recipe)
        adamw.step()
        kept = (kept + new)[-3:]
        if step % 2 == 0:
            after = held_out_by_hand(training, student, teacher)
            share, before = min(share + 0.3 * (after > before), 1.0), after
    assert num_replayed > 3
    assert len({record["student_share"] for record in records}) > 2


def test_a_share_that_adapts_begins_where_it_is_set(tmp_path):
    training, job = training_of(replay={"adaptive": {"every": 1}}), tiny.job(tmp_path)
    train(job, training)
    first = next(read_metrics(job.metrics.path))
    assert (first["student_share"], first["written"], first["answer_length"]) == (0, 0, None)


def test_replayed_answers_are_trained_on_beside_new_ones(tmp_path):
    training, job = training_of(student_fraction=0.5, replay={"reuse": 2}, max_steps=6), tiny.job(tmp_path)
    train(job, training)
    records = list(read_metrics(job.metrics.path))
    assert [record["written"] for record in records] == [2, 1, 1, 1, 1, 1]
    assert all(record["own_reverse_kl"] > 0 for record in records)


# the stage


@pytest.fixture
def inputs(tmp_path):
    return tiny.stage_inputs(tmp_path, ROWS, HELD_OUT)


def staged(folder, recipe, inputs, checks=None):
    stage = KINDS["distill"]
    settings = stage.Settings.model_validate({"recipe": RECIPE | recipe, "dtype": "float32", "seed": 0})
    job = replace(tiny.job(folder, settings, **inputs), checks=checks)
    stage.run(job)
    stage.check(folder)
    return job


@pytest.mark.parametrize("way", WAYS)
def test_a_distillation_leaves_samples_of_what_was_written_on_its_way_and_at_its_end(inputs, tmp_path, way):
    job = staged(tmp_path / "kd", {"lora": LORA, "sampling": SHORT} | WAYS[way], inputs, tmp_path / "checks")
    samples = [json.loads(line) for line in (job.out / "samples.jsonl").read_text().splitlines()]
    names = ("step", "row", "prompt", "answer", "num_tokens", "ended", "teacher_logprob", "student_logprob", "writer")
    assert samples
    assert all(tuple(sample) == names for sample in samples)
    assert {sample["writer"] for sample in samples} == {"mixed" if way == "mixed" else "student"}
    assert all(sample["teacher_logprob"] < 0 > sample["student_logprob"] for sample in samples)
    finals = [json.loads(line) for line in (job.out / "final_samples.jsonl").read_text().splitlines()]
    assert [(sample["split"], sample["row"]) for sample in finals] == [("holdout", 0), ("holdout", 1)]
    assert all(sample["num_tokens"] <= 7 and sample["student_logprob"] < 0 for sample in finals)


def test_a_held_out_prompt_without_room_for_an_answer_fails_no_finished_training(tmp_path):
    held_out = tiny.random_rows([126, 8, 9], [123, 3, 4], seed=9)
    job = staged(tmp_path / "kd", WAYS["half"] | {"sampling": SHORT}, tiny.stage_inputs(tmp_path, ROWS, held_out))
    finals = [json.loads(line) for line in (job.out / "final_samples.jsonl").read_text().splitlines()]
    assert [sample["row"] for sample in finals] == [1, 2]


def test_answers_that_did_not_end_are_counted_and_told(inputs, tmp_path):
    job = staged(tmp_path / "kd", WAYS["student"] | {"sampling": {"max_new_tokens": 2}}, inputs)
    num = sum(round(record["written"] * (1 - record["ended"])) for record in read_metrics(job.metrics.path))
    assert 0 < num < 12
    cut = f"{num} of 12 that the student wrote had not ended with 2 tokens: they were cut there"
    assert job.notes["answers"] == cut


def test_a_plain_distillation_leaves_no_samples(inputs, tmp_path):
    job = staged(tmp_path / "kd", {"lora": LORA}, inputs)
    assert sorted(path.name for path in job.out.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "holdout.json",
    ]


def test_answers_that_have_no_room_behind_a_prompt_are_refused_before_training(inputs, tmp_path):
    with pytest.raises(StageError, match=r"a prompt of 6 tokens and an answer of 123 are more than the 128 positions"):
        staged(tmp_path / "kd", WAYS["student"] | {"sampling": {"max_new_tokens": 123}}, inputs)
    assert not (tmp_path / "kd/metrics.jsonl").exists()


def test_rows_without_prompts_are_refused_before_training(tmp_path):
    inputs = tiny.stage_inputs(tmp_path, tiny.random_rows([7, 8]), HELD_OUT)
    with pytest.raises(StageError, match="row 0 has no prompt"):
        staged(tmp_path / "kd", WAYS["student"], inputs)
