"""A step with several teachers, or beside a teacher's layers, on the data's answers and on the student's own."""

from dataclasses import replace

import pytest
import torch
import transformers
from support import reference
from support import tiny_models as tiny
from torch.nn import functional

from ablate.feature_losses import parse as parse_features
from ablate.losses import parse
from ablate.training import adapters, trainable
from ablate.training.asked_teachers import SeveralTeachers
from ablate.training.batches import StepRows
from ablate.training.features import make_features
from ablate.training.loss import Objective, Policy
from ablate.training.model_parts import split_model
from ablate.training.step_loss import accumulate, mean_losses
from ablate.training.training import Training

ROWS = tiny.random_rows(reference.LENGTHS, reference.PROMPTS)
OWN = frozenset({1, 4, 7})
WEIGHTS = (0.3, 0.7)


def teacher(seed, **settings):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(**tiny.FAMILIES["gpt2"][1] | settings)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval()


TEACHERS = (teacher(2, n_embd=32), teacher(3, n_layer=3, vocab_size=tiny.VOCABULARY + 1))


def training_of(mean=None, features=None, **settings):
    student, recipe = tiny.make("gpt2", 1, torch.float64), reference.recipe("gpt2", lora=None)
    weights = trainable.make_trainable(student, recipe, 5, adapters.Origin())
    parts = split_model(student, tiny.VOCABULARY)
    beside = tuple(split_model(one, tiny.VOCABULARY) for one in TEACHERS)
    training = Training(
        recipe,
        5,
        ROWS,
        parts,
        weights,
        Objective(0.4, parse("forward_kl"), 2.0),
        own_objective=Objective(1.0, parse("reverse_kl"), 2.0),
        teacher=SeveralTeachers(beside, WEIGHTS, mean) if mean else beside[1],
    )
    compared = make_features(parse_features(features), beside[1], parts, 5) if features else None
    return replace(training, features=compared, **settings)


def step(training, budget=40):
    """-> losses and mean gradients of the first step, of which some rows are the student's own."""
    training.trainable.discard_grads()
    rows = StepRows(1, ROWS, tuple(range(len(ROWS))), OWN)
    sums = accumulate(training, rows, budget, "cpu")
    num = int(ROWS.num_loss.sum())
    grads = {name: weight.grad / num for name, weight in training.trainable.weights.items()}
    return mean_losses(training, sums, num), grads, sums


def kl(a, b):
    return functional.kl_div(b, a, reduction="sum", log_target=True)


def by_transformers(training, mean):
    """-> (loss, model with its gradients), one row at a time."""
    student, total, num = tiny.make("gpt2", 1, torch.float64), 0.0, 0
    for row in range(len(ROWS)):
        tokens, mask = ROWS.row(row)
        ids, counts = torch.tensor(tokens.tolist())[None], torch.tensor(mask[1:].tolist(), dtype=torch.bool)
        outputs = student(input_ids=ids, output_hidden_states=True)
        with torch.no_grad():
            answers = [one(input_ids=ids, output_hidden_states=True) for one in TEACHERS]
        z, *others = (x.logits[0, :-1, : tiny.VOCABULARY][counts] for x in (outputs, *answers))
        q, *p = ((x / 2.0).log_softmax(-1) for x in (z, *others))
        weighted = [(1.0, p[1])]
        if mean == "losses":
            weighted = list(zip(WEIGHTS, p, strict=True))
        elif mean == "probabilities":
            weighted = [(1.0, sum(w * x.exp() for w, x in zip(WEIGHTS, p, strict=True)).log())]
        if row in OWN:
            total = total + sum(w * kl(q, x) for w, x in weighted)
        else:
            labels = ids[0, 1:][counts]
            total = total + 0.6 * functional.cross_entropy(z, labels, reduction="sum")
            total = total + 0.4 * sum(w * kl(x, q) for w, x in weighted)
        if training.features:
            for theirs, own in training.features.pairs:
                s, t = (x.hidden_states[i][0, :-1][counts] for x, i in ((outputs, own), (answers[1], theirs)))
                total = total + training.features.loss.weight * ((s - t) ** 2).mean(-1).sum() / len(
                    training.features.pairs
                )
        num += int(counts.sum())
    (total / num).backward()
    return float((total / num).detach()), {name: weight.grad for name, weight in student.named_parameters()}


@pytest.mark.parametrize(
    ("mean", "features"),
    [("probabilities", None), ("losses", None), (None, {"name": "mse", "weight": 0.5})],
)
def test_a_step_is_what_transformers_make_of_it_on_data_and_on_own_answers(mean, features):
    training = training_of(mean, features)
    loss, exact = by_transformers(training, mean)
    losses, grads, _ = step(training)
    assert losses["loss"] == pytest.approx(loss, rel=1e-9)
    assert reference.relative(grads, exact) < 1e-9
    again, other, _ = step(training, budget=17)
    assert again["loss"] == pytest.approx(loss, rel=1e-9)
    assert reference.relative(other, exact) < 1e-9


def test_what_is_recorded_of_own_answers_is_of_the_mean_distribution_whichever_mean_is_trained_on():
    by_mean = {mean: step(training_of(mean))[2].own for mean in ("probabilities", "losses")}
    for row in OWN:
        one, other = (sums.log_probs[row] for sums in by_mean.values())
        assert one == pytest.approx(other, rel=1e-12)
    tokens, mask = ROWS.row(4)
    ids, counts = torch.tensor(tokens.tolist())[None], torch.tensor(mask[1:].tolist(), dtype=torch.bool)
    with torch.no_grad():
        p = sum(
            weight * one(input_ids=ids).logits[0, :-1, : tiny.VOCABULARY][counts].softmax(-1)
            for weight, one in zip(WEIGHTS, TEACHERS, strict=True)
        )
    chosen = p.gather(1, ids[0, 1:][counts][:, None]).log().mean()
    assert by_mean["losses"].log_probs[4].teacher == pytest.approx(float(chosen), rel=1e-9)


@pytest.mark.parametrize("discount", [0.0, 1.0])
def test_a_policy_gradient_takes_its_reward_from_the_mean_of_probabilities(discount):
    policy = Policy(discount, False, False, None, 0.0)
    own = Objective(1.0, parse("reverse_kl"), policy=policy)
    twins = training_of("probabilities", own_objective=own)
    alone = training_of(own_objective=own)
    twins = replace(twins, teacher=SeveralTeachers((alone.teacher, alone.teacher), WEIGHTS, "probabilities"))
    (one, grads, _), (two, others, _) = step(alone), step(twins)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-9)
    assert reference.relative(others, grads) < 1e-9
