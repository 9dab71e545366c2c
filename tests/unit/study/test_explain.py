"""`--explain` spells a study out and reads back as the same study; the JSON schema knows every field."""

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.paths import STUDIES

from ablate.core.errors import AblateError, StudyError
from ablate.core.yaml import dump, read
from ablate.losses import LOSSES
from ablate.planning.warnings import study_warnings
from ablate.study.cells import rows
from ablate.study.explain import explain, json_schema
from ablate.study.load import load
from ablate.study.schema import Study
from ablate.study.template import write_template
from ablate.study.training_recipes import Distill


def _again(study: Study, folder: Path) -> Study:
    path = folder / "explained.yaml"
    path.write_text(explain(study))
    return load(path)


def test_the_tutorials_study_reads_back_as_it_was(tmp_path):
    study = load(STUDIES / "kd_llama.yaml")
    again = _again(study, tmp_path)
    assert rows(again) == rows(study)
    assert explain(again) == explain(study)


def test_every_default_is_spelled_out():
    text = explain(load(STUDIES / "quickstart.yaml"))
    assert all(f"{name}:" in text for name in Distill.model_fields)
    assert "holdout: 0" in text


def test_the_record_of_a_study_reads_back_as_it_was():
    study = load(STUDIES / "kd_llama.yaml", ["distill.loss={name: jsd, beta: 0.25}"])
    assert Study.model_validate(study.model_dump(mode="json")) == study


LORA = st.one_of(
    st.just("none"),
    st.fixed_dictionaries(
        {}, optional={"rank": st.integers(1, 64), "alpha": st.integers(1, 64), "target_modules": st.just(["q_proj"])}
    ),
)
TRAIN = {
    "epochs": st.integers(1, 3),
    "max_steps": st.integers(1, 50),
    "batch_size": st.integers(1, 64),
    "lr": st.floats(1e-6, 1e-1),
    "warmup_steps": st.integers(0, 10),
    "schedule": st.sampled_from(["cosine", "linear", "constant"]),
    "lora": LORA,
    "optimizer": st.fixed_dictionaries({}, optional={"eps": st.floats(1e-9, 1e-5)}),
}
DISTILL = TRAIN | {
    "kd_ratio": st.floats(0, 1),
    "loss": st.sampled_from(["forward_kl", "jsd", {"name": "jsd", "beta": 0.25}]),
    "teacher": st.sampled_from(["baseline", "finetuned"]),
    "scale_by_t2": st.booleans(),
}


def _some(fields):
    return st.fixed_dictionaries({}, optional=fields)


PAIR = st.fixed_dictionaries(
    {
        "teacher": st.fixed_dictionaries(
            {"model": st.just("big/teacher")},
            optional={"finetune": _some(TRAIN), "label": st.sampled_from(["1e3", "on", "8B"])},
        ),
        "student": st.fixed_dictionaries({"model": st.just("small/student")}, optional={"finetune": _some(TRAIN)}),
    },
    optional={"distill": _some(DISTILL)},
)
STUDY = st.fixed_dictionaries(
    {
        "name": st.just("drawn"),
        "data": st.just({"source": "yahma/alpaca-cleaned"}),
        "pairs": st.fixed_dictionaries({"one": PAIR}, optional={"two.5": PAIR}),
        "ablations": st.just({"a": {"grid": {"distill.temperature": [1.5, 2.5]}}}),
    },
    optional={
        "train": _some(TRAIN),
        "finetune": _some(TRAIN),
        "distill": _some(DISTILL),
        "seeds": st.just([3, 4]),
        "dtype": st.just("float32"),
    },
)


@settings(max_examples=60, deadline=None)
@given(STUDY)
def test_any_study_spelled_out_is_the_same_study(tmp_path_factory, drawn):
    folder = tmp_path_factory.getbasetemp()
    path = folder / "drawn.yaml"
    path.write_text(dump(drawn))
    study = load(path)
    again = _again(study, folder)
    assert rows(again) == rows(study)
    assert explain(again) == explain(study)


PATHS = [
    "distill.lr",
    "distill.loss",
    "distill.pair",
    "distill.loss.beta",
    "distill.lora",
    "distill.lora.rank",
    "finetune.lr",
    "evaluate.tasks",
    "data.template",
    "data.source",
    "data.columns",
    "evaluate.include_path",
    "pairs.llama.student.model",
    "pairs.qwen2.distill.lr",
    "dtype",
]
NAMES = [
    "name",
    "lr",
    "loss",
    "beta",
    "pair",
    "train",
    "grid",
    "zip",
    "set",
    "exclude",
    "rows",
    "label",
    "settings",
    "max_steps",
    "epochs",
    "optimizer",
    "control",
    "references",
    "extends",
    "published",
    "revision",
    "model",
]
WORDS = ["", "none", "jsd", "llama", "..", "builtin:tiny/", "~", "./", "hellaswag", "finetuned", "{{ x", "=1", *NAMES]
NUMBERS = [None, True, 0, -1, 1.5, 1e-3, 10**400]
MAPPINGS = [{}, {"name": "jsd"}, {"beta": 0.3}, {"name": 1}, {"rank": 8}, {"label": "x", "settings": {}}]
GRIDS = [
    {"distill.pair": "qwen2"},
    {"distill.pair": ["llama", "qwen2"]},
    {"distill.lr": [1, 2]},
    [{"distill.lr": 1e-3}],
]
VALUES = st.sampled_from([*WORDS, *NUMBERS, *MAPPINGS, *GRIDS, [], [None], [[]], ["x"], [["hellaswag"]]])
HOW = ["value", "remove", "rename", "add"]
CHANGE = st.tuples(
    st.integers(0, 300),
    st.sampled_from(HOW),
    st.sampled_from([*PATHS, *NAMES]),
    VALUES,
)


def _places(value: Any, outer: Any = None, key: Any = None) -> Iterator[tuple[Any, Any]]:
    if outer is not None:
        yield outer, key
    for inner in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from _places(value[inner], value, inner)


def _changed(study: Any, changes: list[Any]) -> Any:
    study = copy.deepcopy(study)
    for number, how, name, value in changes:
        places = list(_places(study))
        outer, key = places[number % len(places)]
        if how == "value":
            outer[key] = copy.deepcopy(value)
        elif how == "remove":
            del outer[key]
        elif isinstance(outer, dict):
            outer[name] = outer.pop(key) if how == "rename" else copy.deepcopy(value)
    return study


@settings(max_examples=80, deadline=None)
@given(st.lists(CHANGE, min_size=1, max_size=4))
def test_whatever_a_study_says_only_a_study_error_comes_of_it(tmp_path_factory, changes):
    path = tmp_path_factory.getbasetemp() / "odd.yaml"
    path.write_text(dump(_changed(read(STUDIES / "kd_llama.yaml").data | {"published": None}, changes)))
    with contextlib.suppress(StudyError):
        study = load(path)
        study_warnings(study, rows(study))
        assert rows(_again(study, path.parent)) == rows(study)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([*PATHS, "pairs", "ablations.kd_ratio.grid.distill.kd_ratio", "ablations.qwen2.set", "seeds"]),
    VALUES,
)
def test_whatever_is_set_only_a_study_error_comes_of_it(path, value):
    with contextlib.suppress(StudyError):
        rows(load(STUDIES / "kd_llama.yaml", [f"{path}={dump(value)}"]))


def test_the_json_schema_knows_each_losss_settings_and_extends():
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["additionalProperties"] is False
    assert "extends" in schema["properties"]
    assert schema["$defs"]["AnyLoss"]["anyOf"][0] == {"enum": list(LOSSES)}
    assert len(schema["$defs"]["AnyLoss"]["anyOf"]) == 1 + len(list(LOSSES))


def test_the_json_schema_describes_each_field_of_each_recipe():
    recipe = json_schema()["$defs"]["SomeDistill"]["properties"]
    assert recipe.keys() == Distill.model_fields.keys()
    assert recipe["kd_ratio"]["description"] == "0: class loss alone; 1: KD loss alone."
    assert {"const": "none"} in recipe["lora"]["anyOf"]


def test_the_template_is_a_right_study_and_never_written_over_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    write_template(path)
    study = load(path)
    assert study_warnings(study, rows(study)) == ()
    with pytest.raises(AblateError, match="exists already"):
        write_template(path)
