"""Settings laid over settings: what is merged, and that every value knows who said it."""

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.core.errors import StudyError
from ablate.study.load import load
from ablate.study.overlays import CELL, FILE, SET, Leaf, Origin, is_said, laid_over, settings_at, traced

LORA = st.sampled_from(["none", {}, {"rank": 4}, {"alpha": 8}, {"rank": 8, "alpha": 2}])
LOSS = st.sampled_from(["jsd", {"name": "jsd", "beta": 0.3}, {"beta": 0.7}, {"name": "top_k", "k": 8}])
RECIPE = st.fixed_dictionaries(
    {},
    optional={
        "lr": st.sampled_from([1e-3, 1e-4]),
        "epochs": st.sampled_from([1, None]),
        "max_steps": st.sampled_from([5, "none"]),
        "lora": LORA,
        "loss": LOSS,
    },
)
LEVELS = (FILE, SET, CELL)


def plain(value):
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items() if key is not None}
    return value.value


def leaves(value):
    return [value] if isinstance(value, Leaf) else [leaf for inner in value.values() for leaf in leaves(inner)]


@given(st.lists(RECIPE, min_size=3, max_size=3))
def test_traced_recipes_laid_over_each_other_are_the_same_recipe(recipes):
    merged = reduce(laid_over, [traced(recipe, Origin(level, ())) for level, recipe in enumerate(recipes)], {})
    assert plain(merged) == reduce(laid_over, recipes, {})


@given(st.lists(RECIPE, min_size=3, max_size=3))
def test_whatever_stands_was_said_where_its_origin_says(recipes):
    merged = reduce(laid_over, [traced(recipe, Origin(level, ())) for level, recipe in enumerate(recipes)], {})
    for value, (level, loc) in leaves(merged):
        assert is_said(recipes[level], loc)
        original = settings_at(recipes[level], loc)
        assert value == ({} if isinstance(original, dict) else original)


def test_a_bare_name_keeps_its_origin_below_its_own_settings():
    below, above = traced({"loss": "jsd"}, Origin(FILE, ())), traced({"loss": {"beta": 0.3}}, Origin(CELL, ()))
    assert laid_over(below, above) == {
        "loss": {
            "name": Leaf("jsd", Origin(FILE, ("loss",))),
            "beta": Leaf(0.3, Origin(CELL, ("loss", "beta"))),
            None: Leaf({}, Origin(CELL, ("loss",))),
        },
        None: Leaf({}, Origin(CELL, ())),
    }


BASE = """
name: base
data: {source: yahma/alpaca-cleaned}
pairs: {llama: {teacher: {model: big/teacher}, student: {model: small/student}}}
"""
ALONE = "set: {distill.teacher: baseline}, references: [student/baseline], control: student/baseline"


@pytest.mark.parametrize("part", ["train", "finetune", "distill", "data", "evaluate"])
def test_an_override_that_says_nothing_of_a_recipe_is_no_mistake(tmp_path, part):
    path = tmp_path / "study.yaml"
    path.write_text(f"{BASE}train: {{lr: 1e-2}}\nablations: {{one: {{}}}}")
    load(path, [f"{part}={{}}"])


OVERRIDDEN = [
    ("train: {lr: 0.1}\ndistill: {lr: 0.2}", "train.lr=0.3", "distill.lr"),
    ("distill: {lr: 0.2}\npairs: {llama: {distill: {lr: 0.4}}}", "train.lr=0.3", "pairs.llama.distill.lr"),
    ("distill: {epochs: 2}", "train.max_steps=8", "distill.epochs"),
    ("distill: {max_steps: 9}", "train.epochs=2", "distill.max_steps"),
    ("distill: {lora: none}", "train.lora.rank=8", "distill.lora"),
    ("distill: {lora: none}\npairs: {llama: {distill: {lora: {alpha: 4}}}}", "train.lora.rank=8", "distill.lora"),
]


@pytest.mark.parametrize(("text", "override", "overrider"), OVERRIDDEN)
def test_the_uppermost_thing_that_alone_would_override_a_setting_is_named(tmp_path, text, override, overrider):
    (tmp_path / "base.yaml").write_text(BASE)
    study = tmp_path / "study.yaml"
    study.write_text(f"extends: base.yaml\n{text}\nablations: {{one: {{{ALONE}}}}}")
    with pytest.raises(StudyError) as error:
        load(study, [override])
    path = override.partition("=")[0]
    assert str(error.value) == f"--set {override}: {path} changes nothing: {overrider} overrides it"


def test_what_a_later_override_says_again_is_not_judged(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(f"{BASE}ablations: {{one: {{}}}}")
    study = load(path, ["distill.loss={name: jsd, beta: 0.2}", "distill.loss=forward_kl"])
    assert study.distill["loss"] == "forward_kl"


def test_a_set_that_only_the_cells_make_whole_is_reported(tmp_path):
    path = tmp_path / "study.yaml"
    ablation = "{set: {distill.loss.beta: 0.2}, grid: {distill.loss: [{name: jsd}, forward_kl]}}"
    path.write_text(f"{BASE}ablations: {{one: {ablation}}}")
    with pytest.raises(StudyError, match=r"study\.yaml:5:44: distill\.loss: a loss is a name such as forward_kl"):
        load(path)
