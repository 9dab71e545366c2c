"""Identity: what may change a key, and what must."""

import json
import math
from collections.abc import Iterator
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.paths import GOLDEN

from ablate.core.registry import UnknownName
from ablate.core.values import EXTENSION, IDENTITY, RUNTIME, Frozen, canonical, digest, fields_of, identity, role_of
from ablate.losses import LOSSES, parse
from ablate.store.kind import KINDS
from ablate.study import layer
from ablate.study.data_settings import Data
from ablate.study.evaluation_settings import Evaluate
from ablate.study.training_recipes import AdamW, Distill, Finetune, Lora, Train

RECIPES = (Lora, AdamW, Train, Finetune, Distill, Data, Evaluate)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
PAYLOADS = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_every_field_of_every_recipe_is_classed(recipe):
    assert [name for name in recipe.model_fields if role_of(recipe, name) is None] == []


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_field_of_every_loss_is_classed(name):
    assert [field for field in LOSSES[name].model_fields if role_of(LOSSES[name], field) is None] == []


def test_every_loss_has_a_key_of_its_own():
    keys = {digest(identity(Distill(loss=parse(name)))) for name in LOSSES}
    assert len(keys) == len(list(LOSSES))


@given(st.dictionaries(st.text(), PAYLOADS))
def test_a_key_does_not_see_the_order_of_a_mapping(payload):
    assert digest(payload) == digest(dict(reversed(payload.items())))


def test_a_key_sees_a_default_so_that_a_changed_one_runs_again():
    assert identity(Finetune())["lr"] == 3e-4


def test_a_runtime_field_is_in_no_key_however_deep():
    class Inner(Frozen):
        what: Annotated[int, IDENTITY] = 1
        how: Annotated[int, RUNTIME] = 1

    class Outer(Frozen):
        inner: Annotated[Inner, IDENTITY] = Inner()

    assert digest(identity(Outer(inner=Inner(how=2)))) == digest(identity(Outer()))
    assert digest(identity(Outer(inner=Inner(what=2)))) != digest(identity(Outer()))


def test_a_field_that_came_later_changes_a_key_only_where_it_is_not_its_default():
    class Before(Frozen):
        what: Annotated[int, IDENTITY] = 1

    class Now(Before):
        later: Annotated[tuple[str, ...], EXTENSION] = ()

    assert digest(identity(Now())) == digest(identity(Before()))
    assert identity(Now(later=("x",))) == {"what": 1, "later": ["x"]}


def test_the_default_of_a_field_that_came_later_never_changes():
    """What is not in a key cannot show a change: with another default old results would count as new."""
    assert "distill" in KINDS  # whose look-up imports every stage's settings, and all that stands in them
    defaults = {
        f"{settings.__name__}.{name}": settings.model_fields[name].get_default(call_default_factory=True)
        for settings in _below(Frozen)
        if settings.__module__.startswith("ablate.") and settings.__module__ != layer.__name__
        for name in fields_of(settings, EXTENSION)
    }
    written = json.dumps(defaults, default=identity)
    assert json.loads(written) == json.loads((GOLDEN / "extensions.json").read_text())


def _below(model: type[Frozen]) -> Iterator[type[Frozen]]:
    for one in model.__subclasses__():
        yield one
        yield from _below(one)


def test_one_number_has_one_key_however_it_is_written():
    assert digest(identity(Finetune(lr=1))) == digest(identity(Finetune(lr=1.0)))
    assert digest(identity(Finetune(lr=3e-4))) == digest(identity(Finetune(lr=0.0003)))


def test_steps_decide_alone_where_they_are_said():
    assert digest(identity(Finetune(max_steps=5, epochs=1))) == digest(identity(Finetune(max_steps=5, epochs=3)))


def test_the_order_of_target_modules_adapts_the_same_weights():
    assert Lora(target_modules=("v_proj", "q_proj")) == Lora(target_modules=("q_proj", "v_proj", "q_proj"))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_has_no_key(value):
    with pytest.raises(ValueError):
        canonical({"x": value})


@pytest.mark.parametrize("value", [{1, 2}, object(), {1: "x"}, b"bytes"])
def test_a_value_without_a_stable_text_has_no_key(value):
    with pytest.raises(TypeError):
        canonical({"x": value})


def test_an_unknown_loss_names_the_nearest():
    with pytest.raises(UnknownName, match=r"unknown loss 'foward_kl'. Did you mean 'forward_kl'"):
        LOSSES["foward_kl"]


@pytest.mark.parametrize(
    "bad", [{"lr": "3e-4"}, {"batch_size": 1.5}, {"batch_size": True}, {"lr": math.nan}, {"lr": 0}]
)
def test_a_recipe_takes_no_value_of_another_type(bad):
    with pytest.raises(ValidationError):
        Finetune(**bad)
