"""A model as a study names it: what lies on this machine is looked at before anything is run, with its base."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from support.stub_models import stub_model

from ablate.core.errors import StudyError
from ablate.core.hub import Repo
from ablate.example import assets
from ablate.planning.builder import make_plan
from ablate.planning.plan import Plan
from ablate.planning.project import open_study
from ablate.planning.warnings import study_warnings
from ablate.store.hub_lock import Pins
from ablate.store.store import Store
from ablate.study.cells import rows
from ablate.study.load import load
from ablate.study.sources import local_sources, repositories

TASKS = {"tasks": ["tiny_letters"], "include_path": "builtin:tiny/tasks", "allow_code": True}


def study_of(folder: Path, student: dict, grid: dict | None = None, **pair) -> Path:
    study = {
        "name": "s",
        "data": {"source": "builtin:tiny/data/train.jsonl"},
        "pairs": {"p": {"teacher": {"model": "builtin:tiny/models/teacher"}, "student": student, **pair}},
        "evaluate": TASKS,
        "ablations": {"a": {"grid": grid or {"distill.kd_ratio": [0.5]}}},
    }
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def plan_of(path: Path) -> Plan:
    study = load(path)
    return make_plan(study, rows(study), Pins({}, {}, ()), Store(path.parent))


def adapter(folder: Path, base: str | None, **settings) -> Path:
    stub_model(folder)
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "config.json").unlink()
    config = {"peft_type": "LORA", "base_model_name_or_path": base} | settings
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def fetches(plan: Plan) -> dict[str, object]:
    return {Path(stage.settings.path).name: stage for stage in plan.stages if stage.kind == "fetch"}


def mistake(path: Path) -> str:
    with pytest.raises(StudyError) as caught:
        load(path)
    return str(caught.value)


def test_a_student_that_cannot_be_loaded_is_told_with_its_line(tmp_path):
    folder = stub_model(tmp_path / "student", quantization_config={"quant_method": "gptq", "bits": 8})
    (folder / "model.safetensors").unlink()
    why = mistake(study_of(tmp_path, {"model": "./student"}))
    assert why.startswith(f"{tmp_path}/s.yaml:9:14: model: {folder} holds no model that can be loaded: ")
    assert "quantised (gptq, 8 bits)" in why
    assert "it has no weights" in why


def test_a_teacher_and_a_model_of_an_axis_are_looked_at_as_well(tmp_path):
    shutil.copytree(assets() / "models/student", tmp_path / "whole")
    broken = stub_model(tmp_path / "broken")
    (broken / "tokenizer.json").unlink()
    path = study_of(tmp_path, {"model": "./whole"}, {"pairs.p.student.model": ["./whole", "./broken"]})
    assert f"{broken} holds no model that can be loaded: it has no tokenizer" in mistake(path)
    path = study_of(tmp_path, {"model": "./whole"}, teacher={"model": "./broken"})
    assert mistake(path).count("it has no tokenizer") == 1


@pytest.mark.parametrize(
    ("base", "where"),
    [
        ("builtin:tiny/models/student", assets() / "models/student"),
        ("./base", Path("base")),
        ("../base", Path("base")),
        ("inner", Path("adapter/inner")),
    ],
)
def test_an_adapter_is_merged_on_the_base_that_its_own_file_names(base, where, tmp_path):
    stub_model(tmp_path / "base")
    folder = adapter(tmp_path / "adapter", base)
    stub_model(folder / "inner", 2)
    path = study_of(tmp_path, {"model": "./adapter"})
    student = fetches(plan_of(path))["adapter"]
    assert Path(student.inputs["base"].settings.path) == tmp_path / where
    assert str(tmp_path / where) in local_sources(rows(load(path)))
    (told,) = [line for line in study_warnings(load(path), rows(load(path))) if "adapter" in line]
    assert told.startswith(f"{folder} is an adapter: it is merged on ")


def test_a_base_is_in_the_key_of_what_is_made_with_its_adapter(tmp_path):
    stub_model(tmp_path / "base")
    adapter(tmp_path / "adapter", "./base")
    path = study_of(tmp_path, {"model": "./adapter"})
    before = {stage.key for stage in plan_of(path).work if stage.kind == "distill"}
    stub_model(tmp_path / "base", 2)
    after = {stage.key for stage in plan_of(path).work if stage.kind == "distill"}
    assert before
    assert not before & after


def test_the_study_says_a_base_where_the_adapters_file_does_not(tmp_path):
    stub_model(tmp_path / "base")
    adapter(tmp_path / "adapter", "/home/somebody/else")
    path = study_of(tmp_path, {"model": "./adapter"})
    assert "is not here, nor the id of a repository: '/home/somebody/else': say `base:` beside model" in mistake(path)
    path = study_of(tmp_path, {"model": "./adapter", "base": "./base"})
    assert Path(fetches(plan_of(path))["adapter"].inputs["base"].settings.path) == tmp_path / "base"
    adapter(tmp_path / "adapter", None)
    assert plan_of(path)
    path = study_of(tmp_path, {"model": "./adapter", "base": "./baze"})
    assert "./baze is not there" in mistake(path)


def test_a_base_on_the_hub_is_pinned_as_any_model_is(tmp_path):
    adapter(tmp_path / "adapter", "some/base", revision="v1")
    study = load(study_of(tmp_path, {"model": "./adapter"}))
    assert [tuple(repo) for repo in repositories(rows(study))] == [("model", "some/base", "v1")]
    study = load(study_of(tmp_path, {"model": "hub/adapter", "base": "other/base"}))
    assert [repo.id for repo in repositories(rows(study))] == ["hub/adapter", "other/base"]


def test_an_adapter_on_the_hub_has_the_base_that_is_pinned_with_it(tmp_path):
    study = load(study_of(tmp_path, {"model": "hub/adapter"}))
    adapter_repo, base = Repo("model", "hub/adapter"), Repo("model", "hub/base", "v1")
    pins = Pins({adapter_repo: "a" * 40, base: "b" * 40}, {}, (), bases={adapter_repo: base})
    plan = make_plan(study, rows(study), pins, Store(tmp_path))
    (student,) = [stage for stage in plan.stages if getattr(stage.settings, "repo", None) == "hub/adapter"]
    assert student.inputs["base"].settings.revision == "b" * 40
    assert plan.label(student) == "fetch hub/adapter, an adapter on hub/base"


def test_adapters_may_lie_on_each_other_but_not_in_a_circle(tmp_path):
    adapter(tmp_path / "one", "./two")
    adapter(tmp_path / "two", "builtin:tiny/models/student")
    path = study_of(tmp_path, {"model": "./one"})
    one = fetches(plan_of(path))["one"]
    assert Path(one.inputs["base"].inputs["base"].settings.path) == assets() / "models/student"
    adapter(tmp_path / "two", "./one")
    assert "leads back to itself" in mistake(path)


def test_a_base_that_cannot_be_loaded_is_told_of_the_adapter(tmp_path):
    adapter(tmp_path / "adapter", "./base")
    (stub_model(tmp_path / "base") / "model.safetensors").unlink()
    assert f"{tmp_path}/base holds no model" in mistake(study_of(tmp_path, {"model": "./adapter"}))


def test_an_adapter_beside_weights_is_told_and_a_base_for_weights_refused(tmp_path):
    folder = stub_model(tmp_path / "student")
    (folder / "adapter_config.json").write_text("{}")
    study = load(study_of(tmp_path, {"model": "./student"}))
    assert f"{folder} has an adapter beside its weights, and that is not used" in study_warnings(study, rows(study))
    why = mistake(study_of(tmp_path, {"model": "./student", "base": "builtin:tiny/models/student"}))
    assert "base: only an adapter is merged on a base, and this model has weights of its own" in why


def test_an_adapter_in_a_pickle_is_refused(tmp_path):
    folder = adapter(tmp_path / "adapter", "builtin:tiny/models/student")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert "only adapter_model.bin, which can run code" in mistake(study_of(tmp_path, {"model": "./adapter"}))


def test_a_plan_without_a_hub_knows_the_base_of_the_last_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    project = open_study(study_of(tmp_path, {"model": "hub/adapter"}), tmp_path)
    adapter_repo, base = Repo("model", "hub/adapter"), Repo("model", "hub/base")
    pins = Pins({adapter_repo: "a" * 40, base: "b" * 40}, {}, (), bases={adapter_repo: base})
    ran = make_plan(project.study, project.rows, pins, project.store)
    project.record(pins, ran)
    for is_online in (True, False):
        keys = [stage.key for stage in project.plan(is_online=is_online).stages]
        assert keys == [stage.key for stage in ran.stages]
