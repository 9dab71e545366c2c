"""Chat templates of a model on this disk: a name that is missing or wrong is told with the study's other mistakes."""

import json
import shutil

import pytest
import yaml
from transformers import AutoTokenizer

from ablate.core.errors import StudyError
from ablate.example import assets
from ablate.study.chat_templates import chat_templates
from ablate.study.load import load

NAMED = [{"name": "rag", "template": "R{{ messages }}"}, {"name": "tool_use", "template": "T{{ documents }}"}]
WITH_DEFAULT = [*NAMED, {"name": "default", "template": "D"}]


def in_the_configuration(folder, templates):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": templates}))
    (folder / "chat_template.jinja").unlink(missing_ok=True)


def in_files_of_their_own(folder, templates):
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "additional_chat_templates").mkdir()
    for one in templates:
        name = "chat_template.jinja" if one["name"] == "default" else f"additional_chat_templates/{one['name']}.jinja"
        (folder / name).write_text(one["template"])


@pytest.fixture
def study(tmp_path):
    for role in ("teacher", "student"):
        shutil.copytree(assets() / "models" / role, tmp_path / role)
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n' * 16)
    settings = {
        "name": "named",
        "data": {"source": "rows.jsonl", "train_on_prompt": False},
        "pairs": {"p": {"teacher": {"model": "./teacher"}, "student": {"model": "./student"}}},
        "evaluate": {"tasks": ["hellaswag"]},
        "ablations": {"a": {"grid": {"distill.kd_ratio": [0.25, 0.5]}}},
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return tmp_path / "s.yaml"


def problems(study, *overrides):
    try:
        load(study, overrides)
    except StudyError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.parametrize("named", [NAMED, WITH_DEFAULT], ids=["without a default", "with one"])
@pytest.mark.parametrize("put", [in_the_configuration, in_files_of_their_own])
def test_the_templates_of_a_folder_are_those_that_transformers_loads(study, put, named):
    folder = study.parent / "student"
    put(folder, named)
    assert chat_templates(folder) == AutoTokenizer.from_pretrained(folder).chat_template


def test_a_template_without_a_name_is_the_one_that_transformers_loads(study):
    folder = study.parent / "student"
    assert chat_templates(folder) == {"": AutoTokenizer.from_pretrained(folder).chat_template}
    in_the_configuration(folder, "X")
    assert chat_templates(folder) == {"": AutoTokenizer.from_pretrained(folder).chat_template} == {"": "X"}
    assert chat_templates(study.parent / "nowhere") == {}


@pytest.mark.parametrize("put", [in_the_configuration, in_files_of_their_own])
def test_validate_lists_the_templates_of_which_the_study_names_none(study, put):
    put(study.parent / "student", NAMED)
    (problem,) = problems(study)
    assert "s.yaml:3:3: data.chat_template: the student's tokenizer has 2 chat templates (rag, tool_use)" in problem
    assert "say which one, such as data: {chat_template: rag}" in problem
    (problem,) = problems(study, "data.chat_template=tool-use")
    assert "none is called 'tool-use'. Did you mean 'tool_use'?" in problem
    assert problems(study, "data.chat_template=rag") == []
    assert problems(study, "data.template=A {{ output }}") == []


def test_validate_has_nothing_against_a_default(study):
    in_the_configuration(study.parent / "student", WITH_DEFAULT)
    assert problems(study) == []


def test_an_ablation_may_name_the_template_and_a_wrong_one_is_told_once(study):
    in_the_configuration(study.parent / "student", NAMED)
    assert problems(study, "ablations.a.set={data.chat_template: rag}") == []
    assert len(problems(study, "ablations.a.set={data.chat_template: rga}")) == 1
    assert problems(study, "ablations.a.grid={data.chat_template: [rag, tool_use]}") == []


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.chat_template=rag", "the student's tokenizer has no chat templates with names"),
        ("data.chat_template_kwargs={enable_thinking: false}", "has no use for 'enable_thinking'"),
        ("data.chat_template_kwargs={messages: []}", "messages is said by ablate to every template"),
        ("data.chat_template_kwargs=7", "a mapping is expected"),
    ],
)
def test_what_the_one_template_of_a_model_has_no_use_for_is_told(study, override, words):
    (problem,) = problems(study, override)
    assert words in problem


def test_settings_that_have_no_effect_are_told(study):
    (problem,) = problems(study, "data.answers=last", "data.train_on_prompt=true")
    assert "data.answers: last has no effect: with train_on_prompt: true all tokens count" in problem
    (problem,) = problems(study, "data.template=plain", "data.chat_template_kwargs={a: 1}")
    assert "data.chat_template_kwargs: has no effect with format alpaca and a template of plain" in problem
