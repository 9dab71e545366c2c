"""Several teachers and hidden states as a study says them: one key for one training, every mistake with its place."""

import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from support.stub_models import stub_model

from ablate.core.errors import StudyError
from ablate.core.values import digest, identity
from ablate.study.cells import rows, work_key
from ablate.study.load import load
from ablate.study.several_teachers import teacher_inputs
from ablate.study.training_recipes import Distill

BIG, SMALL = {"pair": "big", "teacher": "baseline"}, {"pair": "small"}


def study(folder: Path, grid, **more):
    """-> the file of a study of two pairs, teachers of 4 layers of width 32, students of 2 of 16."""
    pairs = {}
    for pair in ("big", "small"):
        sizes = {"teacher": (4, 32), "student": (2, 16)}
        pairs[pair] = {role: {"model": f"./{pair}_{role}"} for role in sizes}
        for role, (depth, width) in sizes.items():
            config = {"num_hidden_layers": depth, "hidden_size": width, "vocab_size": 100}
            stub_model(folder / f"{pair}_{role}", name=f"{pair}_{role}", **config)
    (folder / "rows.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n')
    data = {"name": "s", "data": {"source": "rows.jsonl"}, "pairs": pairs, "evaluate": {"tasks": ["hellaswag"]}}
    data |= {"ablations": {"a": {"grid": grid}}} | more
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def distilled(path):
    return [row for row in rows(load(path)) if row.model == "distill"]


def mistakes(path):
    with pytest.raises(StudyError) as caught:
        load(path)
    return str(caught.value)


def test_rows_are_named_by_their_teachers(tmp_path):
    several = [BIG | {"weight": 3}, SMALL | {"weight": 1}]
    table = distilled(study(tmp_path, {"distill.teachers": ["none", [BIG, SMALL], several, [SMALL]]}))
    assert [row.name for row in table] == [
        "teachers=none",
        "teachers=big-baseline+small-finetuned",
        "teachers=big-baseline-3.0+small-finetuned-1.0",
        "teachers=small-finetuned",
    ]
    assert [row.label for row in table] == [
        "KD, its pair's teacher",
        "KD, teachers: baseline big + fine-tuned small",
        "KD, teachers: baseline big (3) + fine-tuned small (1)",
        "KD, teachers: fine-tuned small",
    ]


@pytest.mark.parametrize(
    "alike",
    [
        [[BIG, SMALL], [SMALL, BIG]],
        [[BIG | {"weight": 0.2}, SMALL | {"weight": 0.2}], [BIG, SMALL]],
        [[BIG | {"weight": 3}, SMALL], [BIG | {"weight": 0.75}, SMALL | {"weight": 0.25}]],
        [[{"teacher": "baseline"}, SMALL], [BIG, SMALL]],
        ["none", [{"pair": "big"}]],
        [[BIG | {"weight": 0.3}], [BIG]],
    ],
)
def test_one_training_is_one_work_however_its_teachers_are_named(tmp_path, alike):
    assert "are the same work" in mistakes(study(tmp_path, {"distill.teachers": alike}))


def test_two_names_of_one_teacher_are_one_with_both_weights(tmp_path):
    path = study(tmp_path, {"distill.teachers": [[BIG, SMALL]]})
    text = path.read_text().replace("./small_teacher", "./big_teacher")
    path.write_text(text)
    (row,) = distilled(path)
    assert [(one.pair, one.weight) for one in row.setting.teachers] == [("big", 0.5), ("small", 0.5)]  # one is tuned
    path.write_text(text.replace("teacher: baseline", "teacher: finetuned"))
    (row,) = distilled(path)
    assert [(one.pair, one.weight) for one in row.setting.teachers] == [("big", 1.0)]


def test_weights_are_shares_and_a_share_stays_what_it_is():
    recipe = Distill(pair="p", teachers=[{"weight": 0.1}, {"pair": "q", "weight": 0.2}])
    assert [one.weight for one in recipe.teachers] == pytest.approx([1 / 3, 2 / 3])
    again = Distill.model_validate(json.loads(recipe.model_dump_json()))
    assert digest(identity(again)) == digest(identity(recipe))
    assert identity(recipe)["teachers"] == [{"weight": one.weight} for one in recipe.teachers]


def test_what_says_nothing_beside_teachers_is_in_no_key():
    several = [{"pair": "p"}, {"pair": "q"}]
    assert Distill(teachers=several, teacher="baseline") == Distill(teachers=several)
    assert identity(Distill(teacher_mean="losses")) == identity(Distill())
    assert digest(identity(Distill(teachers=several, teacher_mean="losses"))) != digest(
        identity(Distill(teachers=several))
    )
    assert teacher_inputs(3) == ("teacher", "teacher_2", "teacher_3")


@pytest.mark.parametrize(
    ("teachers", "why"),
    [
        ([BIG, BIG], "named twice, as numbers 1 and 2"),
        ([BIG | {"weight": 0}, SMALL], "greater than 0"),
        ([BIG | {"weight": -1.0}, SMALL], "greater than 0"),
        ([BIG | {"weight": 1e308}, SMALL | {"weight": 1e308}], "from 1e-09 to 1e+09 is expected, got 1e+308"),
        ([BIG | {"weight": 1e-320}, SMALL], "from 1e-09 to 1e+09 is expected, got 9.99989e-321"),
        ([{"pair": "big", "teacher": "tuned"}], "'baseline' or 'finetuned'"),
        ([{"peir": "big"}], "unknown key 'peir'"),
        ([{"pair": "bigg"}], "unknown pair 'bigg'. Did you mean 'big'?"),
        ("big", "list"),
    ],
)
def test_teachers_that_are_none_are_told_with_their_place(tmp_path, teachers, why):
    in_grid = mistakes(study(tmp_path, {"distill.teachers": [teachers]}))
    in_file = mistakes(study(tmp_path, {"distill.kd_ratio": [0.5]}, distill={"teachers": teachers}))
    for text in (in_grid, in_file):
        assert why in text
        assert "s.yaml:" in text


def test_a_teacher_of_the_row_named_beside_its_own_pairs_is_the_same_one(tmp_path):
    text = mistakes(study(tmp_path, {"distill.teachers": [[BIG, {"teacher": "baseline"}]]}))
    assert "the baseline teacher of pair big is named twice" in text


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"answers": "teacher"}, "answers: teacher are written with one teacher, and distill.teachers names 2"),
        ({"features": "mse"}, "features compare hidden states with one teacher's, and distill.teachers names 2"),
        ({"teacher_top_k": 8}, "teacher_top_k cuts one teacher"),
        ({"loss": "uld"}, "uld aligns the tokens of one teacher"),
    ],
)
def test_what_is_of_one_teacher_is_refused_beside_several(more, why):
    with pytest.raises(ValidationError, match=why):
        Distill(teachers=[{"pair": "p"}, {"pair": "q"}], **more)


def test_a_setting_that_teachers_override_is_told(tmp_path):
    path = study(tmp_path, {"distill.teachers": [[BIG, SMALL]], "distill.teacher": ["baseline"]})
    assert "distill.teacher changes nothing: distill.teachers overrides it" in mistakes(path)
    path = study(tmp_path, {"distill.teacher_mean": ["losses"]})
    assert "distill.teacher_mean changes nothing" in mistakes(path)


def test_what_a_row_sets_of_another_pairs_teacher_changes_it(tmp_path):
    grid = {"distill.teachers": [[BIG, SMALL]], "pairs.small.teacher.finetune.lr": [1e-3, 1e-4]}
    assert len({work_key(row) for row in distilled(study(tmp_path, grid))}) == 2
    grid["distill.teachers"] = [[{"pair": "big"}]]
    text = mistakes(study(tmp_path, grid))
    assert "pairs.small.teacher.finetune.lr changes nothing" in text


# hidden states


@pytest.mark.parametrize(
    ("features", "why"),
    [
        ({"name": "mse", "layers": [[5, 2]]}, "there is no layer 5 of the teacher: it has 0 to 4"),
        ({"name": "mse", "layers": [[4, 3]]}, "there is no layer 3 of the student: it has 0 to 2"),
        ({"name": "mse", "projection": "none"}, "the teacher's states have width 32, the student's 16"),
        ({"name": "mse", "weight": 0}, "greater than 0"),
        ({"name": "mse", "layer": "last"}, "unknown key 'layer'"),
        ("mae", "unknown feature loss 'mae'"),
    ],
)
def test_features_that_cannot_be_are_told_with_their_place(tmp_path, features, why):
    in_grid = mistakes(study(tmp_path, {"distill.features": [features]}))
    in_file = mistakes(study(tmp_path, {"distill.kd_ratio": [0.5]}, distill={"features": features}))
    for text in (in_grid, in_file):
        assert why in text
        assert "s.yaml:" in text


def test_features_are_an_axis_like_any_other(tmp_path):
    grid = {"distill.features": ["none", "cosine", {"name": "mse", "layers": "last", "weight": 1}]}
    table = distilled(study(tmp_path, grid))
    assert [row.name for row in table] == ["features=none", "features=cosine", "features=mse-layerslast-weight1"]
    assert [row.setting.distill.features is None for row in table] == [True, False, False]
    grid = {"distill.features.weight": [0.1, 1.0]}
    table = distilled(study(tmp_path, grid, distill={"features": "cosine"}))
    assert [row.setting.distill.features.weight for row in table] == [0.1, 1.0]
