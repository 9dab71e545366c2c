"""Papers' methods by name: what each fills in, what lies over and under it, and that one training has one key."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.core.errors import StudyError
from ablate.core.values import digest, identity
from ablate.core.yaml import dump
from ablate.study.cells import rows
from ablate.study.distillation_methods import PRESETS
from ablate.study.explain import explain
from ablate.study.load import load
from ablate.study.training_recipes import Distill

BASE = {
    "name": "methods",
    "data": {"source": "yahma/alpaca-cleaned", "train_on_prompt": False, "holdout": 8},
    "pairs": {"one": {"teacher": {"model": "big/teacher"}, "student": {"model": "small/student"}}},
}


def study_of(folder: Path, distill=None, pair=None, **ablation):
    data = BASE | {"ablations": {"a": ablation}} | ({"distill": distill} if distill else {})
    if pair:
        data |= {"pairs": {"one": BASE["pairs"]["one"] | {"distill": pair}}}
    path = folder / "study.yaml"
    path.write_text(dump(data))
    return load(path)


def recipes(study):
    return [row.setting.distill for row in rows(study) if row.model == "distill"]


def again(study, folder: Path):
    path = folder / "explained.yaml"
    path.write_text(explain(study))
    return load(path)


def key(**settings):
    return digest(identity(Distill.model_validate(settings)))


def test_an_axis_of_methods_is_a_row_for_each_that_no_other_equals(tmp_path):
    grid = {"distill.method": [*PRESETS]}
    made = recipes(study_of(tmp_path, grid=grid))
    assert [recipe.method for recipe in made] == [*PRESETS]
    assert len({digest(identity(recipe)) for recipe in made}) == len(PRESETS) == 6


@pytest.mark.parametrize(
    ("method", "answers", "fraction", "kd_ratio", "loss", "own_loss", "objective"),
    [
        ("seqkd", "teacher", 0, 0, "forward_kl", None, "divergence"),
        ("gkd", "dataset", 0.5, 1, "jsd", None, "divergence"),
        ("minillm", "mixed", 1, 1, "reverse_kl", None, "policy_gradient"),
        ("distillm", "dataset", 0, 1, "skew_reverse_kl", None, "divergence"),
        ("distillm2", "teacher", 0.5, 1, "skew_forward_kl", "skew_reverse_kl", "divergence"),
        ("opd", "student", 1, 1, "reverse_kl", None, "policy_gradient"),
    ],
)
def test_a_method_is_its_papers(method, answers, fraction, kd_ratio, loss, own_loss, objective):
    recipe = Distill(method=method)
    assert (recipe.answers, recipe.student_fraction, recipe.kd_ratio) == (answers, fraction, kd_ratio)
    assert (recipe.loss.name, recipe.student_loss and recipe.student_loss.name) == (loss, own_loss)
    assert (recipe.objective, recipe.temperature) == (objective, 1)


def test_a_methods_settings_are_its_papers():
    assert Distill(method="gkd").loss.beta == 0.5
    assert Distill(method="seqkd").sampling.temperature == 0
    minillm, opd = (Distill(method=name).policy_gradient for name in ("minillm", "opd"))
    assert (minillm.discount, minillm.single_step, minillm.normalize_length) == (1, "exact", True)
    assert (opd.discount, opd.single_step) == (0, "sampled")
    assert Distill(method="minillm").sampling.mix == 0.2
    replay = Distill(method="distillm").replay
    assert (replay.capacity, replay.adaptive.step, replay.adaptive.tolerance) == (1000, 0.1, 0.1)
    second = Distill(method="distillm2")
    assert (second.loss.beta, second.student_loss.beta) == (0.1, 0.9)
    assert (second.sampling.temperature, second.sampling.top_p) == (0.8, 0.95)


@pytest.mark.parametrize("method", PRESETS)
def test_a_method_has_the_key_of_what_it_fills_in(method):
    assert key(method=method) == key(**PRESETS[method])


@pytest.mark.parametrize("method", ["seqkd", "gkd", "distillm", "distillm2", "minillm", "opd"])
def test_a_method_lies_over_all_that_is_said_below_it(method, tmp_path):
    below = {"answers": "student", "student_loss": "jsd", "objective": "divergence", "kd_ratio": 0.7}
    below |= {"sampling": {"top_p": 0.5, "temperature": 2.0}, "loss": "tvd", "temperature": 3.0}
    study = study_of(tmp_path, below, grid={"distill.method": [method], "distill.lr": [1e-3, 1e-4]})
    plain = Distill(method=method)
    for recipe in recipes(study):
        for name in ("answers", "student_fraction", "replay", "objective", "student_loss", "kd_ratio"):
            assert getattr(recipe, name) == getattr(plain, name)


def test_what_is_said_beside_or_above_a_method_lies_over_it(tmp_path):
    beside = {"method": "gkd", "student_fraction": 0.25}
    study = study_of(tmp_path, beside, grid={"distill.loss.beta": [0.1, 0.9]})
    assert [(recipe.student_fraction, recipe.loss.beta) for recipe in recipes(study)] == [(0.25, 0.1), (0.25, 0.9)]
    study = study_of(
        tmp_path, {"method": "minillm"}, {"student_fraction": 0.75}, grid={"distill.method": ["gkd", "none"]}
    )
    gkd, none = recipes(study)
    assert gkd.student_fraction == 0.5  # the cell's method, over the pair's fraction
    assert (none.answers, none.objective, none.student_fraction) == ("dataset", "divergence", 0.75)


def test_no_method_above_undoes_one_below(tmp_path):
    study = study_of(tmp_path, {"method": "minillm"}, grid={"distill.method": ["none", "seqkd"]})
    plain, seqkd = recipes(study)
    assert identity(plain) == identity(Distill())
    assert identity(seqkd) == identity(Distill(method="seqkd"))


@pytest.mark.parametrize(
    ("distill", "ablation"),
    [
        (
            {},
            {
                "set": {"distill.answers": "student", "distill.student_loss": "jsd"},
                "grid": {"distill.lr": [1e-3, 1e-4]},
            },
        ),
        ({"answers": "student"}, {"grid": {"distill.student_loss": ["jsd", {"name": "jsd", "beta": 0.3}]}}),
        ({"student_fraction": 0.5, "student_loss": "jsd"}, {"grid": {"distill.student_loss.beta": [0.3, 0.4]}}),
    ],
)
def test_the_loss_of_own_answers_can_be_said_where_all_are_own_and_its_setting_can_be_an_axis(
    tmp_path, distill, ablation
):
    losses = [recipe.student_loss or recipe.loss for recipe in recipes(study_of(tmp_path, distill, **ablation))]
    assert [loss.name for loss in losses] == ["jsd", "jsd"]
    if "distill.lr" not in ablation["grid"]:
        assert losses[0] != losses[1]


METHODS = st.sampled_from([*PRESETS, "none"])
SETTINGS = {
    "method": METHODS,
    "answers": st.sampled_from(["dataset", "teacher", "student", "mixed"]),
    "student_fraction": st.sampled_from([0, 0.5, 1]),
    "kd_ratio": st.sampled_from([0, 0.5, 1]),
    "loss": st.sampled_from(["jsd", "reverse_kl", {"name": "jsd", "beta": 0.2}, {"beta": 0.3}]),
    "student_loss": st.sampled_from(["none", "jsd", "tvd"]),
    "temperature": st.sampled_from([1, 2]),
    "objective": st.sampled_from(["divergence", "policy_gradient"]),
    "sampling": st.sampled_from([{"temperature": 0}, {"top_p": 0.9}, {"mix": 0.8}, {"max_new_tokens": 9}]),
    "policy_gradient": st.sampled_from([{"discount": 0}, {"clip": "none"}, {"clip": 1.1}, {"single_step": "sampled"}]),
    "replay": st.sampled_from(["none", {"reuse": 2}, {"adaptive": {}}]),
}
SOME = st.fixed_dictionaries({}, optional=SETTINGS)


@settings(max_examples=40, deadline=None)
@given(file=SOME, pair=SOME, over=SOME, cell=st.lists(METHODS, min_size=2, max_size=3, unique=True))
def test_whatever_a_study_says_of_methods_spelled_out_it_is_the_same_study(tmp_path_factory, file, pair, over, cell):
    folder = tmp_path_factory.getbasetemp()
    with contextlib.suppress(StudyError):
        over = {f"distill.{name}": value for name, value in over.items() if name != "method"}
        study = study_of(folder, file, pair, set=over, grid={"distill.method": cell})
        assert rows(again(study, folder)) == rows(study)
        assert explain(again(study, folder)) == explain(study)
    with contextlib.suppress(StudyError):
        study = study_of(folder, file, pair, grid={"distill.lr": [1e-3, 1e-4]})
        assert rows(again(study, folder)) == rows(study)
        assert explain(again(study, folder)) == explain(study)


def test_a_study_spelled_out_says_what_its_methods_fill_in(tmp_path):
    text = explain(study_of(tmp_path, {"method": "gkd", "student_fraction": 0.3}, grid={"distill.lr": [1e-3, 1e-4]}))
    for line in ("  method: gkd", "  student_fraction: 0.3", "    name: jsd", "  kd_ratio: 1.0"):
        assert f"{line}\n" in text
    assert '# method gkd fills in, under what is said beside it: {"answers": "dataset"' in text
    text = explain(study_of(tmp_path, grid={"distill.method": ["opd", "none", "seqkd"]}))
    assert [line.split()[2] for line in text.splitlines() if line.startswith("# method")] == ["opd", "seqkd"]


MINILLM = {"method": "minillm"}
OPD = {"method": "opd"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (OPD, OPD | {"policy_gradient": {"normalize_length": False}}),
        (OPD, OPD | {"policy_gradient": {"clip": 1.1}}),
        (OPD, OPD | {"policy_gradient": {"clip": "none"}}),
        (OPD, OPD | {"student_fraction": 0.3, "kd_ratio": 0.2, "student_loss": "reverse_kl"}),
        (MINILLM, MINILLM | {"policy_gradient": {"clip": 1.25}}),
        (MINILLM, MINILLM | {"policy_gradient": {"clip": 7}}),
        (
            MINILLM | {"sampling": {"mix": 0.8}, "policy_gradient": {"clip": 6}},
            MINILLM | {"sampling": {"mix": 0.8}, "policy_gradient": {"clip": 9}},
        ),
        ({"answers": "student"}, {"answers": "dataset", "student_fraction": 1}),
        ({"answers": "student"}, {"answers": "teacher", "student_fraction": 1.0}),
        ({"answers": "student"}, {"answers": "student", "sampling": {"mix": 0.5}}),
        ({"answers": "student"}, {"answers": "student", "policy_gradient": {"discount": 0}}),
        (
            {"answers": "teacher", "sampling": {"temperature": 0}},
            {"answers": "teacher", "sampling": {"temperature": 0, "top_p": 0.5, "top_k": 3}},
        ),
        (
            {"student_fraction": 0.5, "loss": "jsd"},
            {"student_fraction": 0.5, "loss": "jsd", "student_loss": {"name": "jsd", "beta": 0.5}},
        ),
        ({"student_fraction": 0.5}, {"student_fraction": 0.5, "student_loss": "forward_kl"}),
        ({"student_fraction": 0.5}, {"student_fraction": 0.5, "replay": {"reuse": 1, "capacity": 9}}),
        ({"replay": {"reuse": 1, "adaptive": {}}}, {"replay": {"reuse": 1, "adaptive": {}, "capacity": 9}}),
        ({}, {"sampling": {"top_p": 0.5}, "policy_gradient": {"discount": 0}, "student_loss": "jsd"}),
    ],
)
def test_what_means_nothing_beside_the_rest_is_in_no_key(one, other):
    assert key(**one) == key(**other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (MINILLM, MINILLM | {"policy_gradient": {"clip": 1.2}}),
        (MINILLM, MINILLM | {"policy_gradient": {"clip": "none"}}),
        (MINILLM | {"sampling": {"mix": 0.8}}, MINILLM | {"sampling": {"mix": 0.8}, "policy_gradient": {"clip": 5}}),
        (MINILLM, MINILLM | {"policy_gradient": {"normalize_length": False}}),
        (MINILLM, MINILLM | {"sampling": {"mix": 0.3}}),
        (OPD, OPD | {"policy_gradient": {"single_step": "exact"}}),
        (OPD, {"answers": "student", "loss": "reverse_kl"}),
        ({"student_fraction": 0.5}, {"student_fraction": 0.5, "replay": {"reuse": 1, "adaptive": {}}}),
        ({"student_fraction": 0.5}, {"student_fraction": 0.5, "replay": {"reuse": 2}}),
        (
            {"student_fraction": 0.5, "loss": "jsd"},
            {"student_fraction": 0.5, "loss": "jsd", "student_loss": {"name": "jsd", "beta": 0.4}},
        ),
    ],
)
def test_what_changes_a_training_changes_its_key(one, other):
    assert key(**one) != key(**other)
