"""Questions in the words of a model's chat template: the one that is named, on every day, or none is asked."""

import json

import pytest
from support import tiny_models
from support.asking import evaluated, evaluation_inputs, save_model

from ablate.core.errors import Interrupted, StageError

OWN = ("own_endings", "own_letters")
PLAIN = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}. {% endfor %}"


def _with_templates(folder, **templates):
    """-> the stages of an evaluation of a model that has these chat templates."""
    model = save_model(folder / "model")
    (model / "chat_template.jinja").unlink()
    config = model / "tokenizer_config.json"
    listed = [{"name": name, "template": template} for name, template in templates.items()]
    config.write_text(json.dumps(json.loads(config.read_text()) | ({"chat_template": listed} if listed else {})))
    return evaluation_inputs(folder, model)


def test_a_chat_template_is_chosen_by_its_name(tmp_path):
    """lm-eval's command line takes a name too, and asks by the default all the same."""
    several = _with_templates(tmp_path / "several", default=tiny_models.CHAT, plain=PLAIN)
    one = _with_templates(tmp_path / "one", default=PLAIN)
    asked = {
        name: evaluated(tmp_path / name, inputs, tasks=OWN, apply_chat_template=template)["tasks"]
        for name, inputs, template in (("a", several, "plain"), ("b", one, True), ("c", several, True))
    }
    assert asked["a"] == asked["b"]
    assert asked["a"]["own_letters"]["prompts"] != asked["c"]["own_letters"]["prompts"]


def test_a_chat_template_that_asks_for_the_date_is_told_the_same_every_day(tmp_path):
    today = "{{ strftime_now('%d %b %Y') }}: " + PLAIN
    asked = _with_templates(tmp_path / "asked", default=today)
    written = _with_templates(tmp_path / "written", default=f"26 Jul 2024: {PLAIN}")
    prompts = [
        evaluated(folder / "stage", inputs, tasks=OWN, apply_chat_template=True)["tasks"]["own_letters"]["prompts"]
        for folder, inputs in ((tmp_path / "asked", asked), (tmp_path / "written", written))
    ]
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize(
    ("templates", "template", "why"),
    [
        ({}, True, "the model has no chat template: say apply_chat_template: false"),
        ({"default": PLAIN, "rag": PLAIN}, "rags", "has no chat template 'rags'. Did you mean 'rag'?"),
        ({"rag": PLAIN, "tools": PLAIN}, True, "none is the default: name one of rag, tools"),
    ],
)
def test_a_model_without_the_template_is_told_before_anything_is_asked(tmp_path, templates, template, why):
    tasks = [OWN[0], {"task": OWN[1], "apply_chat_template": template}]
    with pytest.raises(StageError) as error:
        evaluated(tmp_path / "stage", _with_templates(tmp_path, **templates), tasks=tasks)
    assert why in str(error.value)
    assert not (tmp_path / "stage" / "progress.json").exists()


def test_a_killed_evaluation_goes_on_in_the_way_each_task_is_asked(tmp_path):
    inputs = evaluation_inputs(tmp_path, save_model(tmp_path / "model"))
    tasks = [{"task": OWN[0], "limit": 4, "num_fewshot": 1}, {"task": OWN[1], "apply_chat_template": True}]
    whole = evaluated(tmp_path / "whole", inputs, tasks=tasks)
    calls = iter([False, True])
    with pytest.raises(Interrupted):
        evaluated(tmp_path / "stage", inputs, tasks=tasks, is_stopping=lambda: next(calls, True))
    assert evaluated(tmp_path / "stage", inputs, tasks=tasks) == whole
    assert [whole["tasks"][task]["n"] for task in OWN] == [4, 9]
