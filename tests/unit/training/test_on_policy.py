"""A student's own answers in its training: the same as by hand, whatever is stopped, cut or resumed."""

from dataclasses import replace

import pytest
import torch
from support import slow_writer
from support import tiny_models as tiny

from ablate.store.job import read_metrics
from ablate.study.training_recipes import Distill
from ablate.training import adapters, trainable
from ablate.training.decode_loop import Writer
from ablate.training.loss import objective, own_objective
from ablate.training.model_parts import split_model
from ablate.training.on_policy import Writing
from ablate.training.optimizer import learning_rate
from ablate.training.own_rows import own_rows
from ablate.training.prompts import Prompt, prompt_ids
from ablate.training.token_draws import Draws
from ablate.training.train import Training, train

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


def step_by_hand(training, student, teacher, step):
    """-> (loss, answers): GKD's objective, a row at a time; gradients are left on the student."""
    recipe, base = training.recipe, training.rows_of(step)
    own = own_rows(base, recipe.student_fraction, training.seed)
    draws, models = Draws(training.seed, step), (teacher, student) if recipe.answers == "mixed" else (student,)
    prompts = [Prompt(row, n, prompt_ids(ROWS, row)) for row in own for n in range(recipe.sampling.num_answers)]
    answers = [slow_writer.write(prompt, models, recipe.sampling, draws, ENDS, tiny.VOCABULARY) for prompt in prompts]
    total, num_tokens = 0, 0
    for answer in answers:
        ids = [*answer.prompt.ids, *answer.ids]
        counted = [place >= len(answer.prompt.ids) for place in range(1, len(ids))]
        student_logits, teacher_logits = (logits_of(model, ids, counted) for model in (student, teacher))
        name = (recipe.student_loss or recipe.loss).name
        total = total + divergence(name, student_logits, teacher_logits.detach()).sum()
        num_tokens += sum(counted)
    for row in set(base.indices) - set(own):
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
    return float(loss.detach()), answers


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
