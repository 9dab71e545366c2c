"""`--explain` spells a study out and reads back as the same study; the JSON schema knows every field."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.errors import AblateError, StudyError
from ablate.losses import LOSSES
from ablate.spec.cells import rows
from ablate.spec.explain import explain, json_schema
from ablate.spec.load import load, warnings
from ablate.spec.schema import Distill, Study
from ablate.spec.template import write_template
from ablate.spec.yaml import dump

STUDIES = Path(__file__).parents[1] / "studies"


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
    st.fixed_dictionaries({}, optional={"rank": st.integers(1, 64), "alpha": st.integers(1, 64), "target_modules": st.just(["q_proj"])}),
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
        "teacher": st.fixed_dictionaries({"model": st.just("big/teacher")}, optional={"finetune": _some(TRAIN), "label": st.sampled_from(["1e3", "on", "8B"])}),
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
    optional={"train": _some(TRAIN), "finetune": _some(TRAIN), "distill": _some(DISTILL), "seeds": st.just([3, 4]), "dtype": st.just("float32")},
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


KEYS = st.sampled_from(
    ["name", "data", "source", "pairs", "llama", "teacher", "student", "model", "ablations", "grid", "set", "rows", "zip", "exclude", "label", "settings",
     "distill.lr", "distill.loss", "distill.pair", "lr", "distill", "train", "finetune", "loss", "lora", "evaluate", "tasks", "include_path", "extends",
     "seeds", "report", "primary", "references", "control", "published", "template", "columns", "epochs", "max_steps", "optimizer", "beta", "pair"]
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(10**400), 10**400), st.integers(-2, 5), st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(["none", "jsd", "llama", "hellaswag", "{{ x", "builtin:tiny/", "../x", "~", "x.jsonl", "finetuned", "", "=1"]), KEYS,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=25,
)  # fmt: skip
SOUND = {
    "name": "sound",
    "data": {"source": "a/b"},
    "pairs": {"llama": {"teacher": {"model": "a/t"}, "student": {"model": "a/s"}}},
    "ablations": {"one": {"grid": {"distill.lr": [1e-3, 1e-4]}}},
}


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=6), st.booleans())
def test_whatever_a_study_says_only_a_study_error_comes_of_it(tmp_path_factory, drawn, is_over_sound):
    path = tmp_path_factory.getbasetemp() / "odd.yaml"
    path.write_text(dump(SOUND | drawn if is_over_sound else drawn))
    with contextlib.suppress(StudyError):
        rows(load(path))


@settings(max_examples=300, deadline=None)
@given(st.lists(KEYS, min_size=1, max_size=4), VALUES)
def test_whatever_is_set_only_a_study_error_comes_of_it(tmp_path_factory, path, value):
    study = tmp_path_factory.getbasetemp() / "sound.yaml"
    study.write_text(dump(SOUND))
    with contextlib.suppress(StudyError):
        rows(load(study, [f"{'.'.join(path)}={dump(value)}"]))


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
    assert warnings(load(path)) == ()
    with pytest.raises(AblateError, match="exists already"):
        write_template(path)
