"""Contract of every loss on hidden states: a value of the papers, 0 where states agree, layers that are there."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ablate.core.values import digest, identity
from ablate.feature_losses import FEATURE_LOSSES, parse
from ablate.study.training_recipes import Distill

NAMES = [*FEATURE_LOSSES]
REFERENCES = {
    "mse": lambda s, t: ((s - t) ** 2).sum(-1) / s.shape[-1],
    "cosine": lambda s, t: 1 - torch.cosine_similarity(s, t, dim=-1),
}


def states(seed, dtype=torch.float64):
    return torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_every_feature_loss_has_a_reference_here():
    assert set(NAMES) == set(REFERENCES)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**20))
def test_value_and_gradient_are_the_papers(name, seed):
    student, teacher = states(seed)
    leaf, other = (student.clone().requires_grad_() for _ in range(2))
    value, exact = parse(name)(leaf, teacher), REFERENCES[name](other, teacher)
    torch.testing.assert_close(value, exact, rtol=1e-9, atol=1e-12)
    grads = (torch.autograd.grad(x.sum(), y)[0] for x, y in ((value, leaf), (exact, other)))
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_states_that_agree_cost_nothing_and_are_left_alone(name):
    teacher = states(0)[0]
    leaf = teacher.clone().requires_grad_()
    value = parse(name)(leaf, teacher)
    assert float(value.detach().abs().max()) < 1e-12
    assert float(torch.autograd.grad(value.sum(), leaf)[0].abs().max()) < 1e-12


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e15])
def test_value_and_gradient_are_finite_whatever_the_states(name, scale):
    student, teacher = states(3, torch.float32) * scale
    leaf = student.requires_grad_()
    value = parse(name)(leaf, teacher)
    assert bool(value.isfinite().all())
    assert bool(torch.autograd.grad(value.sum(), leaf)[0].isfinite().all())


def test_patient_kds_loss_on_directions_is_twice_the_cosine():
    student, teacher = states(1)
    unit = torch.nn.functional.normalize
    patient = (unit(student, dim=-1) - unit(teacher, dim=-1)).square().sum(-1)
    torch.testing.assert_close(patient, 2 * parse("cosine")(student, teacher))


@pytest.mark.parametrize(
    ("teacher", "student", "pairs"),
    [
        (4, 2, ((2, 1), (4, 2))),
        (28, 24, None),
        (2, 4, ((1, 1), (1, 2), (2, 3), (2, 4))),
        (3, 3, ((1, 1), (2, 2), (3, 3))),
        (3, 2, ((2, 1), (3, 2))),
    ],
)
def test_layers_are_mapped_evenly_from_the_first_above_the_embedding_to_the_last(teacher, student, pairs):
    mapped = parse("mse").pairs(teacher, student)
    assert pairs is None or mapped == pairs
    assert [own for _, own in mapped] == list(range(1, student + 1))
    assert mapped[-1] == (teacher, student)
    assert all(abs(own * teacher / student - theirs) <= 0.5 or theirs == 1 for theirs, own in mapped)


def test_the_last_layers_and_those_that_are_named_are_compared():
    assert parse({"name": "mse", "layers": "last"}).pairs(12, 6) == ((12, 6),)
    assert parse({"name": "mse", "layers": [[4, 2], [0, 0]]}).pairs(4, 2) == ((0, 0), (4, 2))


@pytest.mark.parametrize(
    ("layers", "which"), [([[5, 1]], "layer 5 of the teacher"), ([[4, 3]], "layer 3 of the student")]
)
def test_a_layer_that_is_not_there_is_refused_with_those_that_are(layers, which):
    with pytest.raises(ValueError, match=f"no {which}: it has 0 to"):
        parse({"name": "mse", "layers": layers}).pairs(4, 2)


@pytest.mark.parametrize("layers", [[], [[1, 1], [1, 1]], [[-1, 1]], [[1]], "all"])
def test_a_map_that_is_none_is_refused(layers):
    with pytest.raises(ValidationError):
        parse({"name": "mse", "layers": layers})


def test_no_two_settings_share_a_key_and_none_is_as_before():
    told = [None, "mse", "cosine", *({"name": "mse"} | more for more in MORE)]
    keys = {digest(identity(Distill(features=one))) for one in told}
    assert len(keys) == len(told)
    assert digest(identity(Distill(features="none"))) == digest(identity(Distill()))
    same = [{"name": "mse", "layers": layers} for layers in ([[1, 1], [2, 2]], [[2, 2], [1, 1]])]
    assert len({digest(identity(Distill(features=one))) for one in same}) == 1


MORE = ({"weight": 1.0}, {"layers": "last"}, {"layers": [[1, 1]]}, {"projection": "trained"}, {"projection": "none"})
