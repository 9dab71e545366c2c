"""Steps of GKD, DistiLLM and DistiLLM-2 against their authors' formulas, in float64, one row at a time."""

import pytest
import torch
from support import tiny_models as tiny
from support.reference import LENGTHS, PROMPTS, recipe, relative

from ablate.losses import parse
from ablate.training import adapters, trainable
from ablate.training.batches import StepRows
from ablate.training.loss import Objective, objective, own_objective
from ablate.training.model_parts import split_model
from ablate.training.step_loss import accumulate
from ablate.training.training import Training

V = tiny.VOCABULARY

# As in the authors' code (jongwooko/distillm, distillm/losses.py): p the teacher's, q the student's probabilities


def skewed_forward_kl(p, q, lam=0.1):
    """Without the teacher's entropy, which no gradient sees."""
    return -(p * (lam * p + (1 - lam) * q).log()).sum(-1)


def skewed_reverse_kl(p, q, lam=0.1):
    mixed = (1 - lam) * p + lam * q
    return -(q * mixed.log() - q * q.log()).sum(-1)


def js_distance(p, q, lam=0.9):
    mixed = (1 - lam) * p + lam * q
    student = -(q * mixed.log() - q * q.log()).sum(-1)
    return lam * student - (1 - lam) * (p * mixed.log() - p * p.log()).sum(-1)


def symmetric_kl(p, q, lam=0.9):
    return (1 - lam) * -(p * q.log()).sum(-1) + lam * -(q * p.log() - q * q.log()).sum(-1)


def tv_distance(p, q):
    return 0.5 * (p - q).abs().sum(-1)


def generalized_jsd(p, q, beta):
    """Agarwal et al. 2023, 2306.13649, eq. 1: D_JSD(beta)(P || Q), P the teacher."""
    mixed = beta * p + (1 - beta) * q
    return beta * (p * (p / mixed).log()).sum(-1) + (1 - beta) * (q * (q / mixed).log()).sum(-1)


PUBLISHED = {
    "skewed_forward_kl": (skewed_forward_kl, {"name": "skew_forward_kl", "beta": 0.1}),
    "skewed_reverse_kl": (skewed_reverse_kl, {"name": "skew_reverse_kl", "beta": 0.9}),
    "js_distance": (js_distance, {"name": "jsd", "beta": 0.1}),
    "symmetric_kl": (symmetric_kl, {"name": "symmetric_kl", "beta": 0.1}),
    "tv_distance": (tv_distance, "tvd"),
    "GKD, beta 0.9": (lambda p, q: generalized_jsd(p, q, 0.9), {"name": "jsd", "beta": 0.9}),
}
"""The authors' formula, with their defaults -> the loss here."""


def model(seed):
    """GPT-2, none of whose parts rounds to float32."""
    return tiny.make("gpt2", seed).double()


def ours(of_data, of_own, rows, own):
    student = model(1)
    weights = trainable.make_trainable(student, recipe("gpt2", lora=None), 0, adapters.Origin())
    teacher = split_model(model(2), V)
    training = Training(recipe(lora=None), 0, rows, split_model(student, V), weights, of_data, of_own, teacher)
    accumulate(training, StepRows(1, rows, tuple(range(len(rows))), own), 40, "cpu")
    num_tokens = int(rows.num_loss.sum())
    return {name: weight.grad / num_tokens for name, weight in weights.weights.items() if weight.grad is not None}


def published(of_data, of_own, rows, own):
    """-> the gradient of the mean over all tokens, by transformers alone."""
    student, teacher = model(1), model(2)
    total = 0
    for row in range(len(rows)):
        tokens, mask = (torch.tensor(part.tolist()) for part in rows.row(row))
        counts = mask[1:].bool()
        q = student(input_ids=tokens[None]).logits[0, :-1, :V][counts].softmax(-1)
        p = teacher(input_ids=tokens[None]).logits[0, :-1, :V][counts].softmax(-1).detach()
        total = total + (of_own if row in own else of_data)(p, q).sum()
    (total / int(rows.num_loss.sum())).backward()
    return {name: weight.grad for name, weight in student.named_parameters()}


@pytest.mark.parametrize(("formula", "loss"), PUBLISHED.values(), ids=PUBLISHED)
def test_a_step_on_own_answers_is_what_was_published(formula, loss):
    rows = tiny.random_rows(LENGTHS, PROMPTS)
    own = frozenset(range(len(rows)))
    by = Objective(1.0, parse(loss))
    assert relative(ours(by, by, rows, own), published(formula, formula, rows, own)) < 1e-9


@pytest.mark.parametrize(
    ("method", "of_data", "of_own"),
    [
        ("gkd", lambda p, q: generalized_jsd(p, q, 0.5), lambda p, q: generalized_jsd(p, q, 0.5)),
        ("distillm", skewed_reverse_kl, skewed_reverse_kl),
        ("distillm2", skewed_forward_kl, skewed_reverse_kl),
    ],
)
def test_a_step_of_a_method_is_its_authors_on_rows_of_both_writers(method, of_data, of_own):
    """DistiLLM-2 (Ko et al. 2025, 2503.07067, eq. 6): SKL where the teacher wrote, SRKL where the student did.

    Its code holds the student within the mixture of SRKL constant; DistiLLM's, and ours, does not.
    """
    rows, own = tiny.random_rows(LENGTHS, PROMPTS), frozenset({1, 2, 5, 7})
    settings = recipe(method=method)
    mine = ours(objective(settings), own_objective(settings), rows, own)
    assert relative(mine, published(of_data, of_own, rows, own)) < 1e-9
