"""Answers by vLLM in a plan: others than by transformers, a teacher's alone, refused early where it cannot write."""

import importlib.util
from importlib.machinery import ModuleSpec

import pytest
from support.planned import commit
from support.small_plans import prepared

from ablate.core.errors import StudyError
from ablate.planning.vllm_check import require_vllm
from ablate.study.training_recipes import Distill

ANSWERED = ("distill.answers=teacher", "data.train_on_prompt=false")
BY_VLLM = (*ANSWERED, "distill.sampling.writer=vllm")


def generate(plan):
    (stage,) = (stage for stage in plan.stages if stage.kind == "generate")
    return stage


@pytest.fixture
def installed(monkeypatch):
    """Whether vLLM is, as far as can be seen without importing it; to be set."""
    specs = {"vllm": ModuleSpec("vllm", None)}
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: specs[name] if name in specs else find(name))
    return specs


def test_answers_by_vllm_are_others_than_by_transformers_and_so_is_what_is_trained_on_them(tmp_path):
    both = {"who": {"grid": {"distill.sampling.writer": ["transformers", "vllm"], "distill.lr": [1e-3, 1e-4]}}}
    plan = prepared(tmp_path, *ANSWERED, ablations=both)
    assert sorted(plan.label(stage) for stage in plan.stages if stage.kind == "generate") == [
        "generate p/teacher/finetuned, temperature 1",
        "generate p/teacher/finetuned, temperature 1, by vLLM",
    ]
    assert len({stage.key for stage in plan.stages if stage.kind == "distill"}) == 4
    (tmp_path / "said").mkdir()
    said = prepared(tmp_path / "said", *ANSWERED, "distill.sampling.writer=transformers")
    (tmp_path / "unsaid").mkdir()
    assert generate(said).payload["settings"] == generate(prepared(tmp_path / "unsaid", *ANSWERED)).payload["settings"]


@pytest.mark.parametrize("answers", ["dataset", "student", "mixed"])
def test_where_the_teacher_writes_nothing_before_vllm_beside_it_makes_no_other_key(answers):
    said = Distill.model_validate({"answers": answers, "sampling": {"writer": "vllm"}})
    assert said == Distill.model_validate({"answers": answers})


def test_a_run_that_could_not_write_them_ends_before_it_begins(tmp_path, installed):
    plan = prepared(tmp_path, *BY_VLLM)
    require_vllm(plan, has_card=True)
    with pytest.raises(StudyError, match="needs a CUDA card, and there is none"):
        require_vllm(plan, has_card=False)
    installed["vllm"] = None
    with pytest.raises(StudyError, match=r"vLLM is not installed: `pip install 'ablate\[vllm\]'`"):
        require_vllm(plan, has_card=True)


def test_once_they_are_written_nothing_needs_vllm_any_more(tmp_path, installed):
    installed["vllm"] = None
    plan = prepared(tmp_path, *BY_VLLM)
    commit(plan.store, generate(plan))
    require_vllm(plan, has_card=False)


def test_who_does_not_ask_for_vllm_needs_none(tmp_path, installed):
    installed["vllm"] = None
    require_vllm(prepared(tmp_path, *ANSWERED), has_card=False)
