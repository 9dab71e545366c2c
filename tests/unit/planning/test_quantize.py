"""Models whose weights are kept in few bits, as a study says it: rows, stages and keys, and what is refused."""

import pytest
from support.small_plans import plan_of, prepared

from ablate.core.errors import StudyError
from ablate.planning.quantize_check import require_quantizer

ONE_ROW = {"a": {"grid": {"distill.kd_ratio": [0.5]}}}
TEACHER, STUDENT = "pairs.p.teacher.quantize", "pairs.p.student.quantize"


def one(plan, kind, **settings):
    """-> the only stage of a kind with these settings."""
    (stage,) = [
        stage
        for stage in plan.stages
        if stage.kind == kind and all(getattr(stage.settings, name) == value for name, value in settings.items())
    ]
    return stage


def test_a_quantised_teacher_is_so_wherever_it_is_loaded_and_its_student_is_not(tmp_path):
    plan = prepared(tmp_path, f"{TEACHER}=nf4", "distill.teacher_cache=hidden", ablations=ONE_ROW)
    teacher = one(plan, "finetune", quantize="nf4")
    assert teacher.inputs["model"] == one(plan, "distill").inputs["teacher"]
    distilled = one(plan, "distill")
    assert distilled.settings.quantize == {"teacher": "nf4"}
    assert distilled.inputs["teacher_adapter"] == teacher
    evaluated = [stage.settings.quantize for stage in plan.stages if stage.kind == "evaluate"]
    assert sorted(evaluated, key=str) == [None, None, None, "nf4", "nf4"]  # both students' rows and the distilled
    assert {choice.cache.settings.quantize for choice in plan.caches if choice.cache} == {"nf4"}


def test_a_quantised_student_shares_its_teacher_with_a_plain_one(tmp_path):
    ablations = {"bits": {"grid": {STUDENT: ["none", "int8", "nf4"]}}}
    plan = prepared(tmp_path, ablations=ablations)
    distilled = [stage for stage in plan.stages if stage.kind == "distill"]
    assert [stage.settings.quantize for stage in distilled] == [{}, {"student": "int8"}, {"student": "nf4"}]
    assert len({stage.inputs["teacher_adapter"].key for stage in distilled}) == 1
    assert len({stage.key for stage in distilled}) == 3
    cells = {cell.row.name: cell.evaluate.settings.quantize for cell in plan.cells if cell.row.model == "distill"}
    assert list(cells.values()) == [None, "int8", "nf4"]
    assert all("quantize" in name for name in cells)
    assert len([stage for stage in plan.stages if stage.kind == "teacher_cache"]) <= 1


def test_a_study_without_quantised_models_has_the_keys_that_it_always_had(tmp_path):
    plan = plan_of(tmp_path)
    said = plan_of(tmp_path, f"{TEACHER}=none", f"{STUDENT}=none")
    assert [stage.key for stage in plan.stages] == [stage.key for stage in said.stages]
    assert not any("quantize" in str(stage.payload) for stage in plan.stages)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            [f"{STUDENT}=nf4", "distill.lora=none"],
            "distill.lora: none trains every weight, and pairs.p.student.quantize",
        ),
        ([f"{TEACHER}=int8", "finetune.lora=none"], "pairs.p.teacher.quantize: int8 keeps them as they are"),
        ([f"{STUDENT}=nf4", "distill.lora.use_dora=true"], "distill.lora.use_dora: DoRA scales weights"),
        ([f"{STUDENT}=nf5"], "'nf4' or 'int8'"),
        (["finetune.quantize=nf4"], "quantize"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(tmp_path, overrides, words):
    with pytest.raises(StudyError) as caught:
        plan_of(tmp_path, *overrides)
    assert words in str(caught.value)


def test_a_quantised_model_that_is_named_beside_a_plain_one_is_another_teacher(tmp_path):
    ablations = {"bits": {"grid": {TEACHER: ["none", "nf4"]}}}
    plan = prepared(tmp_path, "distill.teacher=baseline", "distill.teacher_cache=hidden", ablations=ablations)
    assert [choice.cache.settings.quantize for choice in plan.caches] == [None, "nf4"]
    assert len({stage.key for stage in plan.stages if stage.kind == "distill"}) == 2


def test_4_bits_without_their_library_are_told_before_anything_runs(tmp_path, monkeypatch):
    plan = prepared(tmp_path, f"{STUDENT}=nf4")
    require_quantizer(plan)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StudyError, match=r"pip install 'ablate\[quantize\]'"):
        require_quantizer(plan)
    require_quantizer(prepared(tmp_path, f"{STUDENT}=int8"))
