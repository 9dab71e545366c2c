"""What stages cost, by what runs beside them and what is asked."""

import pytest
from support.small_plans import plan_of, prepared
from support.stub_models import stub_layers

from ablate.data.steps import num_steps
from ablate.planning.plan import Plan
from ablate.stages.distill import DISTILL
from ablate.stages.rows import longest_row
from ablate.stages.task_sizes import num_questions, task_size
from ablate.store.sizes import RowsSizes, fetched_sizes, model_sizes, rows_sizes
from ablate.store.stage import Stage
from ablate.training.forward_memory import LONGEST


def distillation(plan: Plan) -> Stage:
    return next(stage for stage in plan.stages if stage.kind == "distill")


def test_a_teacher_beside_costs_its_passes_hidden_states_its_head_and_vectors_nothing(tmp_path):
    plans = {way: prepared(tmp_path, f"distill.teacher_cache={way}") for way in ("none", "hidden", "vector")}
    stages = {way: distillation(plan) for way, plan in plans.items()}
    costs = {way: DISTILL.cost(stage, plans[way].store, plans[way].aids(stage)) for way, stage in stages.items()}
    store, inputs = plans["none"].store, stages["none"].inputs
    teacher, rows = fetched_sizes(store, inputs["teacher"]), rows_sizes(store, inputs["rows"])
    share = costs["none"].tokens / rows.tokens
    tokens, scored = int(rows.tokens * share), int(rows.loss_tokens * share)
    assert costs["hidden"].flops - costs["vector"].flops == 2 * scored * teacher.num_head
    beside = 2 * (tokens * teacher.num_body + scored * teacher.num_head)
    assert costs["none"].flops - costs["vector"].flops == beside
    loaded = [costs[way].held.weights for way in ("vector", "hidden", "none")]
    assert loaded[1] - loaded[0] == 2 * teacher.num_head
    assert loaded[2] - loaded[0] == 2 * teacher.num_params


def test_a_policy_gradient_of_whole_answers_asks_both_heads_twice(tmp_path):
    grid = {"distill.method": ["opd"], "distill.policy_gradient.discount": [0, 1]}
    plan = prepared(tmp_path, "data.train_on_prompt=false", ablations={"a": {"grid": grid}})
    alone, whole = [stage for stage in plan.stages if stage.kind == "distill"]
    costs = [DISTILL.cost(stage, plan.store, plan.aids(stage)) for stage in (alone, whole)]
    sizes = [fetched_sizes(plan.store, whole.inputs[name]) for name in ("student", "teacher")]
    recipe = whole.settings.recipe
    steps = num_steps(100, recipe.batch_size, recipe.epochs, recipe.max_steps, recipe.drop_last)
    answers = steps * recipe.batch_size * recipe.sampling.max_new_tokens
    more = costs[1].flops - costs[0].flops
    assert more == pytest.approx(2 * answers * sum(size.num_head for size in sizes), rel=1e-6)


def test_what_is_trained_is_counted_from_the_shapes_of_the_modules(tmp_path):
    def made(*overrides):
        plan = prepared(tmp_path, *overrides)
        stub_layers(tmp_path / "student", 16)
        model_sizes.cache_clear()
        stage = distillation(plan)
        return DISTILL.cost(stage, plan.store, plan.aids(stage))

    rank, layers, width = 64, 2, 16
    attention, mlp = 2 * width, 5 * width
    plain, dora = made(), made("distill.lora.use_dora=true")
    assert plain.disk_bytes == 4 * rank * layers * (3 * attention + 3 * mlp)
    assert dora.disk_bytes - plain.disk_bytes == 4 * layers * (3 * width + 2 * 4 * width + width)
    assert dora.held.estimate > plain.held.estimate
    assert made("distill.lora.modules_to_save=[lm_head]").disk_bytes - plain.disk_bytes == 4 * width * 100
    few = made("distill.lora.target_modules=[q_proj,v_proj]")
    assert few.disk_bytes == 4 * rank * layers * 2 * attention
    assert few.held.estimate < plain.held.estimate
    both = made("distill.lora.target_modules=all-linear"), made("distill.lora.target_modules=.*_proj")
    assert both[0].disk_bytes == both[1].disk_bytes == 4 * rank * layers * (4 * attention + 3 * mlp)


def test_a_row_is_as_long_as_the_study_says_at_most_and_no_longer_than_all_rows(tmp_path):
    limited = distillation(plan_of(tmp_path, "data.max_length=300")).inputs["rows"]
    unlimited = distillation(plan_of(tmp_path)).inputs["rows"]
    assert longest_row(limited, RowsSizes(10, 5000, 5000, 0)) == 300
    assert longest_row(unlimited, RowsSizes(10, 5000, 5000, 0)) == LONGEST
    assert longest_row(unlimited, RowsSizes(10, 50, 50, 0)) == 50


def test_a_limit_asks_fewer_questions_and_never_more():
    assert num_questions("truthfulqa_mc2", None) == task_size("truthfulqa_mc2").questions == 817
    assert num_questions("truthfulqa_mc2", 16) == 16
    assert num_questions("truthfulqa_mc2", 10_000) == 817


def test_answers_that_a_student_writes_are_counted_as_long_as_they_may_be(tmp_path):
    def made(*overrides):
        rates = {"rate": {"grid": {"distill.lr": [1e-3, 1e-4]}}}
        plan = prepared(tmp_path, "data.train_on_prompt=false", *overrides, ablations=rates)
        stage = distillation(plan)
        return DISTILL.cost(stage, plan.store, plan.aids(stage)), stage, plan.store

    own = ("distill.answers=student", "distill.epochs=1", "distill.batch_size=10", "distill.sampling.max_new_tokens=7")
    (plain, *_), (cost, stage, store) = made("distill.teacher_cache=none", *own[1:3]), made(*own)
    student, teacher = (fetched_sizes(store, stage.inputs[name]) for name in ("student", "teacher"))
    prompts, answers = 1000, 100 * 7  # of the 2,000 tokens of 100 rows half are answers
    assert cost.tokens == prompts + answers
    written = 2 * ((prompts + answers) * student.num_body + answers * student.num_head)
    learnt = 4 * ((prompts + answers) * student.num_body + answers * student.num_head)
    beside = 2 * ((prompts + answers) * teacher.num_body + answers * teacher.num_head)
    assert cost.flops == written + learnt + beside
    mixed = made("distill.answers=mixed", *own[1:])[0]
    assert mixed.flops == cost.flops + beside
    replayed = made(*own, "distill.replay.reuse=4")[0]
    assert replayed.flops == cost.flops - 0.75 * written
    half = made("distill.student_fraction=0.5", *own[1:])[0]
    assert half.tokens == (plain.tokens + cost.tokens) / 2
    more = made(*own[:3], "distill.sampling.max_new_tokens=30000")[0]
    assert more.held.estimate > cost.held.estimate
