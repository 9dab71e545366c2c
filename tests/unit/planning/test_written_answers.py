"""A teacher's answers in a plan: written once for all that are trained on them, and no more than they read."""

import pytest
from support.planned import commit
from support.small_plans import plan_of, prepared

from ablate.planning.cost_model import CostModel
from ablate.planning.plan import Plan
from ablate.planning.row_notes import row_notes
from ablate.store.stage import Stage
from ablate.study.rehearsal import STEPS

ANSWERED = ("distill.answers=teacher", "data.train_on_prompt=false")
EIGHT = {"eight": {"grid": {"distill.kd_ratio": [0, 0.5], "distill.lr": [1e-3, 1e-4], "distill.loss": ["jsd", "tvd"]}}}


def written(plan: Plan) -> list[Stage]:
    return [stage for stage in plan.stages if stage.kind == "generate"]


def distillations(plan: Plan) -> list[Stage]:
    return [stage for stage in plan.stages if stage.kind == "distill"]


@pytest.mark.parametrize("seeds", ["0", "0, 1, 2"])
def test_eight_cells_share_their_teachers_answers_under_every_seed(tmp_path, seeds):
    plan = prepared(tmp_path, *ANSWERED, f"seeds=[{seeds}]", ablations=EIGHT)
    (answers,) = written(plan)
    assert len(distillations(plan)) == 8 * len(seeds.split(","))
    assert all(stage.inputs["rows"] is answers for stage in distillations(plan))
    assert {name: stage.kind for name, stage in answers.inputs.items()} == {
        "teacher": "fetch",
        "teacher_adapter": "finetune",
        "rows": "rows",
    }
    assert (answers.settings.seed, answers.settings.reads) == (0, None)
    assert plan.label(answers) == "generate p/teacher/finetuned, temperature 1"


def test_a_teacher_is_asked_once_about_its_own_answers_and_once_about_the_data(tmp_path):
    both = {"who": {"grid": {"distill.answers": ["dataset", "teacher"], "distill.kd_ratio": [0.25, 0.5]}}}
    plan = prepared(tmp_path, ANSWERED[1], ablations=both)
    caches = [stage for stage in plan.stages if stage.kind == "teacher_cache"]
    assert [stage.inputs["rows"].kind for stage in caches] == ["rows", "generate"]
    assert [plan.label(stage) for stage in caches] == [
        "teacher_cache p/teacher/finetuned, vector",
        "teacher_cache p/teacher/finetuned about its own answers, vector",
    ]
    assert [note.partition(":")[0] for note in plan.notes] == [
        "p/teacher/finetuned is asked once for 2 distillations",
        "p/teacher/finetuned about its own answers is asked once for 2 distillations",
    ]


def test_models_are_fine_tuned_on_the_data_whoever_answers_for_the_distillation(tmp_path):
    plan = plan_of(tmp_path, *ANSWERED, "distill.student=finetuned")
    tuned = [stage for stage in plan.stages if stage.kind == "finetune"]
    assert {stage.inputs["rows"].kind for stage in tuned} == {"rows"}


def test_another_way_to_sample_is_written_anew_and_what_means_nothing_beside_the_data_is_not(tmp_path):
    grid = {"heat": {"grid": {"distill.sampling.temperature": [0, 1.0], "distill.kd_ratio": [0.25, 0.5]}}}
    plan = prepared(tmp_path, *ANSWERED, ablations=grid)
    assert sorted(stage.settings.sampling.temperature for stage in written(plan)) == [0.0, 1.0]


def test_likeliest_answers_are_written_once_whatever_the_seeds_are(tmp_path):
    greedy = (*ANSWERED, "distill.teacher=baseline", "distill.sampling.temperature=0")
    (one,), (other,) = (written(plan_of(tmp_path, *greedy, f"seeds=[{seed}]")) for seed in (0, 5))
    assert one.key == other.key


def test_answers_that_are_written_otherwise_have_other_names(tmp_path):
    grid = {"ways": {"grid": {"distill.sampling.top_p": [0.5, 1.0], "distill.sampling.max_new_tokens": [4, 256]}}}
    plan = prepared(tmp_path, *ANSWERED, ablations=grid)
    plain = "generate p/teacher/finetuned, temperature 1"
    assert sorted(plan.label(stage) for stage in written(plan)) == [
        plain, f"{plain}, max_new_tokens 4", f"{plain}, top_p 0.5", f"{plain}, top_p 0.5, max_new_tokens 4"
    ]  # fmt: skip


def test_a_training_that_reads_few_rows_has_those_alone_answered(tmp_path):
    short = ("distill.max_steps=2", "distill.batch_size=8", "distill.warmup_steps=1", "seeds=[0, 1]")
    plan = prepared(tmp_path, *ANSWERED, *short, num_rows=100)
    reads = [stage.settings.reads for stage in written(plan)]
    assert [[(use.seed, use.num_steps, use.batch_size) for use in uses] for uses in reads] == [[(0, 2, 8)], [(1, 2, 8)]]
    (tmp_path / "fewer").mkdir()
    whole = prepared(tmp_path / "fewer", *ANSWERED, *short, num_rows=63)
    assert [stage.settings.reads for stage in written(whole)] == [None]


def test_what_is_to_be_written_costs_its_tokens_and_what_reads_it_knows_about_how_many(tmp_path):
    over = ("distill.sampling.max_new_tokens=4", "distill.sampling.num_answers=2")
    plan = prepared(tmp_path, *ANSWERED, *over, loss_tokens=1000, num_rows=100)
    cost, (answers,) = CostModel(plan), written(plan)
    assert cost(answers).tokens == 2 * (1000 + 100 * 4)  # two answers to each prompt, each as long as it may be
    assert cost(distillations(plan)[0]).tokens == cost(answers).tokens // 200 * 192  # 12 steps of 16
    train = {"rows": 200, "tokens": 2600, "loss_tokens": 600, "without_loss": 0}
    commit(plan.store, answers, summary={"train": train, "holdout": train | {"loss_tokens": 0}})
    assert CostModel(plan)(distillations(plan)[0]).tokens == 2600 * 192 // 200


def test_a_reader_is_told_what_became_of_the_answers(tmp_path):
    plan = prepared(tmp_path, *ANSWERED)
    (answers,) = written(plan)
    attempt = plan.store.claim(answers.key12)
    attempt.out.mkdir(parents=True)
    record = '{"provenance": {"notes": {"rows": ["3 of them had not ended"]}}}'
    (attempt.staging / "stage.json").write_text(record)
    plan.store.commit(attempt, answers.folder, None)
    assert "generate p/teacher/finetuned, temperature 1: 3 of them had not ended" in row_notes(plan)


def test_a_rehearsal_has_few_prompts_answered(tmp_path):
    plan = prepared(tmp_path, *ANSWERED, "train.max_steps=8", "train.warmup_steps=2", num_rows=10_000)
    (answers,) = written(plan)
    assert [use.num_steps for use in answers.settings.reads] == [STEPS]
