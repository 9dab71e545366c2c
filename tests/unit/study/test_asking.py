"""How a study says what lm-eval is to ask: one spelling one key, each task its own way, and what cannot be is told."""

import json
import math
import re

import pytest
from pydantic import ValidationError
from support import local_study
from transformers import GenerationConfig

from ablate.core.errors import StudyError
from ablate.core.values import identity
from ablate.planning.warnings import study_warnings
from ablate.stages.task_sizes import num_questions, task_size
from ablate.study.asked_task import GENERATION
from ablate.study.catalog.metrics import OF_OUTPUT, aggregation_names
from ablate.study.cells import rows
from ablate.study.chat_templates import template_names
from ablate.study.evaluation_settings import Evaluate
from ablate.study.load import load
from ablate.study.rehearsal import QUESTIONS, rehearsed_questions

study = local_study.study


def key(**settings):
    return identity(Evaluate(**settings).shortest())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"tasks": ["piqa"]}, {"tasks": [{"task": "piqa"}]}),
        ({"tasks": ["piqa"], "limit": 8}, {"tasks": [{"task": "piqa", "limit": 8}], "limit": 8}),
        ({"tasks": ["piqa"]}, {"tasks": [{"task": "piqa", "limit": "none", "gen_kwargs": {}, "fewshot_seed": 1234}]}),
        ({"tasks": ["piqa"]}, {"tasks": ["piqa"], "fewshot_as_multiturn": False}),
        ({"apply_chat_template": True}, {"apply_chat_template": True, "fewshot_as_multiturn": True}),
        ({"gen_kwargs": {"until": "."}}, {"gen_kwargs": {"until": ["."]}}),
        ({"gen_kwargs": {"temperature": 1, "top_p": 1}}, {"gen_kwargs": {"temperature": 1.0, "top_p": 1.0}}),
        ({"apply_chat_template": True}, {"apply_chat_template": "default"}),
        ({"tasks": ["piqa"]}, {"tasks": [{"task": "piqa", "num_fewshot": "none"}]}),
        (
            {"tasks": [{"task": "a", "metric_list": ["acc"]}]},
            {"tasks": [{"task": "a", "metric_list": [{"metric": "acc"}]}]},
        ),
    ],
)
def test_what_is_asked_alike_has_one_key(one, other):
    assert key(**one) == key(**other)


@pytest.mark.parametrize(
    "settings",
    [
        {"apply_chat_template": True},
        {"apply_chat_template": "rag"},
        {"apply_chat_template": True, "fewshot_as_multiturn": False},
        {"system_instruction": "Be brief."},
        {"gen_kwargs": {"temperature": 0.5}},
        {"fewshot_seed": 7},
        {"limit": 0.1},
        {"limit": 1},
        {"tasks": [{"task": "piqa", "num_fewshot": 0}]},
        {"tasks": [{"task": "piqa", "num_fewshot": "none"}], "num_fewshot": 3},
        {"tasks": [{"task": "piqa", "limit": "none"}], "limit": 3},
        {"tasks": [{"task": "piqa", "system_instruction": "none"}], "system_instruction": "Be brief."},
        {"tasks": [{"task": "piqa", "metric_list": ["acc"]}]},
        {"tasks": [{"task": "piqa", "fewshot_as_multiturn": False}], "apply_chat_template": True},
    ],
)
def test_what_is_asked_otherwise_has_another_key(settings):
    plain = settings | {"tasks": ["piqa"]}
    seen = {
        json.dumps(key(**one)) for one in (settings | {"tasks": settings.get("tasks", ["piqa"])}, {"tasks": ["piqa"]})
    }
    assert len(seen) == 2
    assert "tasks" not in settings or key(**settings) != key(**plain)


def test_a_task_is_asked_as_it_says_itself_else_as_all_are():
    recipe = Evaluate(
        tasks=[
            "a",
            {"task": "b", "num_fewshot": 2, "limit": 0.1, "gen_kwargs": {"top_k": 3}, "apply_chat_template": True},
        ],
        **{"limit": 8, "num_fewshot": 1, "gen_kwargs": {"temperature": 0.5}, "system_instruction": "Be brief."},
    )
    assert recipe.task_names == ("a", "b")
    one, other = map(recipe.asking, recipe.task_names)
    assert (one.num_fewshot, one.limit, one.gen_kwargs, one.fewshot_as_multiturn) == (1, 8, {"temperature": 0.5}, False)
    assert (other.num_fewshot, other.limit, other.fewshot_as_multiturn) == (2, 0.1, True)
    assert other.gen_kwargs == {"temperature": 0.5, "top_k": 3}
    assert one.system_instruction == other.system_instruction == "Be brief."


def test_a_record_of_a_run_reads_back_as_it_was():
    recipe = Evaluate(tasks=["a", {"task": "b", "limit": "none", "metric_list": ["acc"]}], gen_kwargs={"until": "."})
    assert Evaluate.model_validate(json.loads(json.dumps(recipe.model_dump(mode="json")))) == recipe


def test_a_rehearsal_asks_few_questions_of_every_task_whatever_it_says():
    tasks = ["a", {"task": "b", "limit": 4}, {"task": "c", "limit": "none"}, {"task": "d", "limit": 0.9}]
    recipe = rehearsed_questions(Evaluate(tasks=tasks, limit=0.5))
    assert [recipe.asking(name).limit for name in "abcd"] == [QUESTIONS, 4, QUESTIONS, QUESTIONS]


@pytest.mark.parametrize("limit", [0.001, 0.1, 0.5, 0.999])
def test_a_part_of_the_questions_is_counted_as_lm_eval_does(limit):
    from lm_eval.evaluator_utils import get_sample_size

    class Task:
        eval_docs = range(task_size("hellaswag").questions)

    assert num_questions("hellaswag", limit) == get_sample_size(Task, limit) == math.ceil(10042 * limit)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"top_p": "high"}, "top_p: a number from 0 to 1 is expected"),
        ({"top_k": 1.5}, "top_k: a whole number from 0 up is expected"),
        ({"num_beams": 0}, "num_beams: a whole number from 1 up is expected"),
        ({"repetition_penalty": None}, "repetition_penalty: a number from 0 up is expected"),
        ({"do_sample": True, "temperature": 0}, "to sample (do_sample: true) it must be greater than 0"),
    ],
)
def test_what_would_stop_a_generation_after_the_training_is_told_before_it(settings, expected):
    with pytest.raises(ValidationError, match=re.escape(expected)):
        Evaluate(gen_kwargs=settings)


def test_metrics_in_place_of_a_tasks_own_are_some():
    with pytest.raises(ValidationError, match="at least 1 item"):
        Evaluate(tasks=[{"task": "piqa", "metric_list": []}])


@pytest.mark.parametrize("settings", ["{top_p: .inf}", "{sequence_bias: [[[1], 1e999]]}"])
def test_a_number_without_an_end_is_told_where_anything_may_stand(study, settings):
    messages = _told(study, f"evaluate.gen_kwargs={settings}")
    assert len(messages) == 1
    assert "is not a finite number" in messages[0]


def test_what_a_generation_may_say_is_lm_evals_and_transformers():
    assert set(GENERATION) - {"until", "max_gen_toks"} <= vars(GenerationConfig()).keys()


def test_axes_name_their_rows_by_how_they_ask(study):
    tasks = 'evaluate.tasks: [[piqa], [{"task": "piqa", "num_fewshot": 2}]]'
    for axis, names in (
        ("evaluate.apply_chat_template: [false, true]", ["apply_chat_template=false", "apply_chat_template=true"]),
        ("evaluate.limit: [0.1, 0.5]", ["limit=0.1", "limit=0.5"]),
        ("evaluate.gen_kwargs.temperature: [0.5, 1.0]", ["temperature=0.5", "temperature=1.0"]),
        (tasks, ["tasks=piqa", "tasks=piqa-num_fewshot2"]),
    ):
        path = study.with_name("axes.yaml")
        path.write_text(
            study.read_text().replace("hellaswag", "gsm8k").partition("ablations:")[0]
            + f"ablations: {{ratio: {{grid: {{{axis}}}}}}}"
        )
        (study.parent / "student" / "chat_template.jinja").write_text("{{ messages }}")
        assert [row.name for row in rows(load(path)) if row.model == "distill"] == names


def test_a_tags_tasks_can_decide_and_a_temperature_that_is_passed_over_is_told(study):
    overrides = ["evaluate.tasks=[ai2_arc]", "report.primary=arc_easy/acc_norm", "evaluate.gen_kwargs.temperature=0.7"]
    loaded = load(study, overrides)
    (warning,) = [text for text in study_warnings(loaded, rows(loaded)) if "temperature" in text]
    assert "nothing to tasks that say do_sample: false" in warning
    sampled = load(study, [*overrides, "evaluate.gen_kwargs.do_sample=true"])
    assert "temperature" not in str(study_warnings(sampled, rows(sampled)))


def test_every_metric_that_a_task_can_be_given_is_one_of_lm_evals():
    from lm_eval.api import metrics, registry

    assert metrics.mean
    for names in OF_OUTPUT.values():
        assert names <= set(registry.metric_registry)
    assert aggregation_names() == set(registry.aggregation_registry) - {"bypass"}


def _told(study, *overrides):
    with pytest.raises(StudyError) as error:
        load(study, overrides)
    return [problem.message for problem in error.value.problems]


def test_a_local_model_without_the_chat_template_asked_for_is_told_before_anything_runs(study):
    (student,) = _told(study, "evaluate.apply_chat_template=true", "ablations.ratio.references=[student/finetuned]")
    assert "the student student of pair p has no chat template" in student
    assert "put a chat_template.jinja into its folder" in student
    assert len(_told(study, "evaluate.apply_chat_template=true")) == 2
    for name in ("teacher", "student"):
        (study.parent / name / "chat_template.jinja").write_text("{{ messages }}")
    load(study, ["evaluate.apply_chat_template=true"])


def test_a_template_that_a_local_model_does_not_have_is_told_with_those_it_has(study):
    named = [{"name": "tool_use", "template": "a"}, {"name": "rag", "template": "b"}]
    for name in ("teacher", "student"):
        (study.parent / name / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert template_names(study.parent / "student") == ("tool_use", "rag")
    plain = "data.template=plain"
    assert "Did you mean 'rag'? Possible: rag, tool_use." in _told(study, plain, "evaluate.apply_chat_template=rags")[0]
    assert "name one of rag, tool_use" in _told(study, plain, "evaluate.apply_chat_template=true")[0]
    load(study, [plain, "evaluate.apply_chat_template=rag"])
    load(study, [plain, "evaluate.tasks=[{task: hellaswag, apply_chat_template: tool_use}]"])


def test_templates_in_files_of_their_own_are_known_by_their_names(tmp_path):
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("a")
    assert template_names(tmp_path) == ("rag",)
    (tmp_path / "chat_template.jinja").write_text("a")
    assert template_names(tmp_path) == ("default", "rag")
