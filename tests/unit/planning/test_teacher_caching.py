"""Which teachers are asked once: decided by who asks, by the disk, and never by what is done already."""

import errno
import os
import shutil
import time
from dataclasses import replace
from typing import NamedTuple

import pytest
from support.planned import commit
from support.small_plans import RATIOS, plan_of, prepared
from support.toys import drive, ordered, toy, value_of

from ablate.core import disk, disk_operations
from ablate.core.failures import Ending
from ablate.execution import supervisor
from ablate.execution.scheduler import Scheduler
from ablate.execution.task_graph import Task
from ablate.machine.slots import Slot
from ablate.maintenance.verify import parts, verify
from ablate.planning.builder import make_plan
from ablate.planning.cost_model import CostModel, Device
from ablate.planning.disk_choice import with_speeds
from ablate.planning.plan import Plan, unique
from ablate.planning.project import open_study
from ablate.stages.teacher_cache import cache_size
from ablate.store.disk_speed import OLD_S, Speeds, disk_speed
from ablate.store.hub_lock import Pins
from ablate.store.layout import strange
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.cells import rows

FORMS = ["vector", "hidden"]


def caches(plan: Plan) -> list[Stage]:
    return [stage for stage in plan.stages if stage.kind == "teacher_cache"]


def forms(plan: Plan) -> list[str]:
    return [stage.settings.form for stage in caches(plan)]


def distillations(plan: Plan) -> list[Stage]:
    return [stage for stage in plan.stages if stage.kind == "distill"]


def test_two_distillations_of_one_teacher_share_its_answers(tmp_path):
    plan = plan_of(tmp_path)
    (cache,) = caches(plan)
    assert {name: stage.kind for name, stage in cache.inputs.items()} == {
        "teacher": "fetch",
        "student": "fetch",
        "rows": "rows",
        "teacher_adapter": "finetune",
    }
    assert [stage.aids for stage in distillations(plan)] == [{"teacher_cache": cache}] * 2
    assert plan.notes == ("p/teacher/finetuned is asked once for 2 distillations: kept until the last of them is done",)


def test_a_cache_comes_before_what_it_aids_and_changes_no_key(tmp_path):
    plan, without = plan_of(tmp_path), plan_of(tmp_path, "distill.teacher_cache=none")
    kinds = [stage.kind for stage in plan.stages]
    assert kinds.index("teacher_cache") < kinds.index("distill")
    assert [stage.key for stage in distillations(plan)] == [stage.key for stage in distillations(without)]
    assert caches(without) == []
    assert without.notes == ("p/teacher/finetuned runs beside 2 distillations: the study says teacher_cache: none",)


def test_one_distillation_alone_has_its_teacher_beside_unless_it_asks_twice_or_the_study_says_so(tmp_path):
    one = {"ratio": {"grid": {"distill.kd_ratio": [0.25]}}}
    assert caches(plan_of(tmp_path, ablations=one)) == []
    assert plan_of(tmp_path, ablations=one).notes == ()
    assert forms(plan_of(tmp_path, "distill.teacher_cache=vector", ablations=one)) == ["vector"]
    assert forms(plan_of(tmp_path, "distill.teacher_cache=hidden", ablations=one)) == ["hidden"]
    assert forms(plan_of(tmp_path, "distill.epochs=2", ablations=one)) == ["vector"]


def test_a_teacher_of_answers_that_are_written_in_the_training_runs_beside(tmp_path):
    over = {"ratio": {"grid": {"distill.student_fraction": [0, 0.25, 0.5]}}}
    plan = plan_of(tmp_path, "distill.teacher_cache=hidden", "data.train_on_prompt=false", ablations=over)
    assert [bool(stage.aids) for stage in distillations(plan)] == [True, False, False]
    assert (
        "p/teacher/finetuned runs beside 2 distillations: the student's answers are written while it trains"
        in plan.notes
    )


SEVEN = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


@pytest.mark.parametrize(
    ("ablation", "wanted"),
    [
        ({"distill.loss": ["forward_kl", "reverse_kl"]}, ["hidden"]),
        ({"distill.loss": ["reverse_kl", "jsd"]}, ["hidden"]),
        ({"distill.temperature": [1.0, 2.0]}, ["hidden"]),
        ({"distill.teacher": ["baseline", "finetuned"]}, []),
        ({"distill.student": ["baseline", "finetuned"]}, ["vector"]),  # one frozen head
        ({"distill.lr": [1e-3, 1e-4], "distill.temperature": [1.0, 2.0]}, ["hidden"]),
        (
            {"distill.kd_ratio": SEVEN[:6], "distill.temperature": [1.0, 2.0]},
            ["hidden"],
        ),  # one pass of the teacher, not two
        ({"distill.kd_ratio": SEVEN, "distill.temperature": [1.0, 2.0]}, ["vector", "vector"]),
        ({"distill.teacher_top_k": [8], "distill.kd_ratio": [0.25, 0.5]}, ["top_k"]),
        ({"distill.teacher_top_k": [8], "distill.teacher_top_k_rest": ["event", "zero"]}, ["top_k"]),
        ({"distill.teacher_top_k": ["none", 8, 64]}, ["hidden"]),
    ],
)
def test_equal_questions_share_an_answer_in_the_form_that_costs_least(ablation, wanted, tmp_path):
    plan = plan_of(tmp_path, ablations={"a": {"grid": ablation}})
    assert forms(plan) == wanted
    labels = [plan.label(stage) for stage in plan.stages]
    assert len(set(labels)) == len(labels)
    assert all(stage.aids for stage in distillations(plan)) == bool(wanted)


def test_one_loss_that_needs_all_logits_does_not_keep_many_others_from_vectors(tmp_path):
    grid = {"ratio": {"grid": {"distill.kd_ratio": [*SEVEN, 0.8, 0.9, 0.15, 0.25, 0.35, 0.45, 0.55]}}}
    rows = {"loss": {"rows": [{"label": "reverse", "settings": {"distill.loss": "reverse_kl"}}]}}
    plan = plan_of(tmp_path, ablations=grid | rows)
    assert forms(plan) == ["vector"]
    assert [bool(stage.aids) for stage in distillations(plan)].count(False) == 1


def test_hidden_states_serve_every_loss_temperature_and_training_of_every_weight(tmp_path):
    grid = {"distill.loss": ["forward_kl", "jsd"], "distill.temperature": [1.0, 2.0]}
    plan = plan_of(tmp_path, "distill.lora=none", ablations={"a": {"grid": grid}})
    (cache,) = caches(plan)
    assert set(cache.inputs) == {"teacher", "teacher_adapter", "rows"}
    assert [stage.aids for stage in distillations(plan)] == [{"teacher_cache": cache}] * 4
    assert plan.notes[0].endswith("because lora: none trains the student's head")


def test_a_student_that_caps_its_logits_reads_hidden_states(tmp_path):
    assert forms(prepared(tmp_path, cap=30.0)) == ["hidden"]


def test_a_student_whose_head_may_be_trained_beside_its_adapters_reads_hidden_states(tmp_path):
    plan = prepared(tmp_path, "distill.lora.modules_to_save=[lm_head]")
    assert forms(plan) == ["hidden"]


def test_a_few_steps_ask_about_their_own_rows_alone(tmp_path):
    plan = prepared(tmp_path, num_rows=1000, ablations=RATIOS)
    assert caches(plan)[0].settings.reads is None
    (tmp_path / "b").mkdir()
    plan = plan_of(tmp_path, "train.max_steps=4", "distill.batch_size=16")
    (use,) = caches(plan)[0].settings.reads
    assert use.model_dump() == {"seed": 0, "batch_size": 16, "num_steps": 4, "drop_last": True}
    assert caches(plan_of(tmp_path, "train.max_steps=400"))[0].settings.reads is None


class Usage(NamedTuple):
    free: int


def test_a_cache_that_does_not_fit_the_disk_is_not_made_but_one_that_was_begun_goes_on(tmp_path, monkeypatch):
    plan = prepared(tmp_path)
    (cache,) = caches(plan)
    size = 1000 * (16 * 4 + 8)
    assert CostModel(plan)(cache).disk_bytes == size
    assert plan.notes[0].endswith("72 kB, a vector of 16 float32 a token")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(int(1.19 * size)))
    full = plan_of(tmp_path)
    assert caches(full) == []
    assert "runs beside 2 distillations: its answers would take 72 kB and 86 kB are free" in full.notes[0]
    plan.store.claim(cache.key12)
    assert [stage.key for stage in caches(plan_of(tmp_path))] == [cache.key]


def test_where_the_disk_has_no_room_for_hidden_states_the_plan_says_so_and_no_other_reason(tmp_path, monkeypatch):
    hidden = ("distill.loss=reverse_kl",)
    assert forms(prepared(tmp_path, *hidden)) == ["hidden"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1000))
    (note,) = plan_of(tmp_path, *hidden).notes
    assert note.startswith("p/teacher/finetuned runs beside 2 distillations: its answers would take ")
    assert " and 1 kB are free under " in note


def test_the_choice_does_not_depend_on_what_is_done_and_a_finished_study_has_nothing_to_start(tmp_path):
    plan = prepared(tmp_path)
    first, second = distillations(plan)
    for stage in plan.stages:
        if stage.kind == "finetune":
            commit(plan.store, stage)
    commit(plan.store, first)
    half = plan_of(tmp_path)
    assert [stage.key for stage in caches(half)] == [stage.key for stage in caches(plan)]
    assert [bool(stage.aids) for stage in distillations(half)] == [False, True]
    commit(plan.store, second)
    assert caches(plan_of(tmp_path)) == []


def test_a_distillation_from_the_cache_is_estimated_without_its_teacher(tmp_path):
    plans = prepared(tmp_path), plan_of(tmp_path, "distill.teacher_cache=none")
    cached, beside = (CostModel(plan)(distillations(plan)[0]) for plan in plans)
    assert cached.tokens == beside.tokens
    assert cached.flops < 0.6 * beside.flops
    commit(plans[0].store, distillations(plans[0])[0])
    assert CostModel(plan_of(tmp_path))(distillations(plans[0])[0]).flops == cached.flops


def test_two_studies_share_a_cache_until_teacher_rows_or_dtype_differ(tmp_path):
    def key(*overrides, **more):
        (cache,) = caches(plan_of(tmp_path, *overrides, **more))
        return cache.key

    one = key()
    other = {"lr": {"grid": {"distill.lr": [1e-3, 1e-4, 1e-5]}}}
    assert key("name=other", "distill.batch_size=4", "seeds=[0, 3]", ablations=other) == one
    assert key("finetune.lr=0.01") != one  # another adapter
    assert key("distill.lr=0.01") == one
    assert key("dtype=float32") != one
    assert key("data.train_on_prompt=false") != one
    assert key("distill.temperature=2") != one


def test_answers_about_a_token_take_as_many_bytes_as_planned(tmp_path):
    # Llama 3.1 8B is 4,096 wide, Llama 3.2 1B 2,048
    plans = {form: prepared(tmp_path, f"distill.teacher_cache={form}", widths=(4096, 2048)) for form in FORMS}
    sizes = {form: cache_size(caches(plan)[0], plan.store).num_bytes for form, plan in plans.items()}
    assert sizes["vector"] == 1000 * 8200
    assert sizes["hidden"] == 1000 * 8192 + 100 * 4096 * 2  # and the teacher's head


# the scheduler


def scheduler_of_a_cache(**options) -> Scheduler:
    tasks = [
        Task("cache", "teacher_cache", "teacher_cache-c", "heavy", (), 5.0),
        Task("kd", "distill", "distill-k", "heavy", (), 100.0, aids=("cache",)),
        Task("other", "finetune", "finetune-o", "heavy", (), 50.0),
    ]
    return Scheduler(tasks, [Slot("a", frozenset({"heavy"}))], **options)


def started(scheduler: Scheduler) -> str | None:
    start = scheduler.next_start(1e9)
    return start.key if start else None


def test_a_stage_waits_for_its_aid_and_the_aid_comes_first_where_a_long_path_waits_for_it():
    scheduler = scheduler_of_a_cache()
    assert started(scheduler) == "cache"
    scheduler.run("cache", "a")
    assert started(scheduler) is None
    scheduler.finish("cache", Ending("ok", ""), 0.0)
    assert started(scheduler) == "kd"


@pytest.mark.parametrize("failure", ["error", "nospace", "diverged", "cancelled"])
def test_a_stage_whose_aid_failed_runs_all_the_same(failure):
    scheduler = scheduler_of_a_cache()
    scheduler.run("cache", "a")
    scheduler.finish("cache", Ending(failure, "why"), 0.0)
    assert scheduler.outcomes["kd"].phase == "waiting"
    assert started(scheduler) == "kd"
    for key in ("kd", "other"):
        scheduler.run(key, "a")
        scheduler.finish(key, Ending("ok", ""), 0.0)
    assert scheduler.is_over


def test_an_aid_that_is_tried_again_is_still_waited_for():
    scheduler = scheduler_of_a_cache()
    scheduler.run("cache", "a")
    scheduler.finish("cache", Ending("killed", "why"), 0.0)
    assert scheduler.next_start(0.1).key == "other"


# whole runs


def aided(aid: Stage) -> Stage:
    return replace(toy(steps=2, seed=5), aids={"teacher_cache": aid})


def test_a_committed_aid_is_handed_to_the_worker_and_a_failed_one_is_not(tmp_path):
    good, bad = toy(steps=3, seed=1), toy(steps=3, seed=2, fault="error")
    for name, aid in (("good", good), ("bad", bad)):
        stage = aided(aid)
        summary = drive(tmp_path / name, unique([stage]))
        assert summary.outcomes[stage.key].phase == "done"
        (attempt,) = Store(tmp_path / name).attempts(stage.key12)
        assert list(attempt.request["aids"]) == (["teacher_cache"] if name == "good" else [])
        assert attempt.request["key"] == toy(steps=2, seed=5).key
    # a toy counts on from all that it is handed
    alone = value_of(tmp_path / "bad", aided(bad))
    assert value_of(tmp_path / "good", aided(good)) != alone


def test_an_aid_that_goes_before_the_worker_looks_is_done_without(tmp_path):
    aid = toy(steps=3, seed=1)
    drive(tmp_path, [aid])
    attempt = ordered(tmp_path, aided(aid))
    assert list(attempt.request["aids"]) == ["teacher_cache"]
    (Store(tmp_path).folder(aid) / "done.json").unlink()
    assert supervisor.work_on(attempt).failure == "ok"


# the disk


def large(folder, *overrides, **more):
    """-> a plan whose cache takes more than a gigabyte."""
    return prepared(folder, *overrides, loss_tokens=20_000_000, num_rows=1000, **more)


def test_a_cache_that_would_be_slower_than_the_live_teacher_is_not_made_and_the_plan_says_by_which_numbers(tmp_path):
    plan = large(tmp_path)
    assert forms(plan) == ["vector"]
    fast, slow = (Speeds(n * 1e6, n * 1e6, 1e10, "A100") for n in (1000, 1))
    assert forms(again(plan, fast)) == ["vector"]
    beside = again(plan, slow)
    assert caches(beside) == []
    assert beside.notes == (
        "p/teacher/finetuned runs beside 2 distillations: keeping 1.4 GB of its answers, written at 1 MB/s and read at"
        " 1 MB/s, would take 64 min, the live teacher about 8 min on A100",
    )
    assert forms(again(large(tmp_path, "distill.teacher_cache=vector"), slow)) == ["vector"]  # the study says so


def again(plan: Plan, speeds: Speeds) -> Plan:
    return make_plan(plan.study, rows(plan.study), Pins({}, {}, (), speeds=speeds), plan.store)


def test_the_disk_is_measured_where_a_large_cache_hangs_on_it_once_a_root_and_a_study_goes_by_it_for_good(tmp_path):
    pins, device = Pins({}, {}, ()), (lambda: Device("A100", 1e13))
    assert with_speeds(pins, prepared(tmp_path), device) is pins
    assert not (tmp_path / "runs/checks").exists()
    plan = large(tmp_path / "large")
    speeds = with_speeds(pins, plan, device).speeds
    assert speeds.flops_per_s == 1e13
    assert min(speeds.write, speeds.read) > 0
    (record,) = (tmp_path / "large/runs/checks").iterdir()
    store = Store(tmp_path / "empty")
    assert min(disk_speed(store)) > 0
    assert verify(parts(store)) == []
    assert strange(store.runs) == []
    assert with_speeds(pins, plan, device).speeds == speeds  # it was not measured again
    disk.write_sealed(record, {"write": 1.0, "read": 2.0, "measured": time.time() - OLD_S})
    assert with_speeds(pins, plan, device).speeds.write > 1  # it was old
    known = pins._replace(speeds=speeds._replace(write=3.0))
    assert with_speeds(known, plan, device) is known  # whatever the disk has become


def test_a_plan_needs_no_root_that_can_be_written_to_and_says_where_the_disk_was_not_measured(tmp_path):
    def refuse(_, paths, act):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(paths[-1]))

    expected = large(tmp_path)
    project = open_study(tmp_path / "s.yaml", tmp_path)
    with disk_operations.through(refuse):
        plan = project.plan_weighed(lambda _: Device("A100", 1e10))
    assert [stage.key for stage in caches(plan)] == [stage.key for stage in caches(expected)]
    assert plan.notes[1:] == (
        f"how fast the disk under {tmp_path} is could not be measured (Read-only file system): what is kept of"
        " teachers' answers is chosen as if that took no time, and `run` may choose otherwise",
    )
    assert project.plan_weighed(lambda _: Device("A100", 1e10)).unweighed is None


@pytest.mark.parametrize("is_done", [True, False])
def test_a_cache_that_was_begun_before_speeds_were_known_stays_and_a_new_large_one_is_weighed(is_done, tmp_path):
    def slow_plan(*overrides, **more):
        plan = large(tmp_path, *overrides, **more)
        (tmp_path / "runs/checks").mkdir(exist_ok=True)
        disk.write_sealed(plan.store.checks / "disk.json", {"write": 1e6, "read": 1e6, "measured": time.time()})
        return plan, with_speeds(Pins({}, {}, ()), plan, lambda: Device("A100", 1e10)).speeds

    plan, speeds = slow_plan()
    assert caches(again(plan, speeds)) == []
    (cache,) = caches(plan)
    if is_done:
        commit(plan.store, cache)
    else:
        plan.store.claim(cache.key12)
    plan, speeds = slow_plan()
    assert speeds is None  # nothing hangs on them
    assert [stage.key for stage in caches(plan)] == [cache.key]
    other = {"other": {"grid": {"distill.kd_ratio": [0.25, 0.5], "distill.teacher": ["baseline"]}}}
    more, speeds = slow_plan(ablations=RATIOS | other)
    assert len(caches(more)) == 2
    assert [stage.key for stage in caches(again(more, speeds))] == [cache.key]
    new = speeds._replace(begun=())
    assert caches(again(more, new)) == []
    shutil.rmtree(tmp_path / "runs/attempts" / cache.key12)
    shutil.rmtree(plan.store.folder(cache), ignore_errors=True)
    assert [stage.key for stage in caches(again(more, speeds))] == [cache.key]  # for good


def test_what_a_study_was_chosen_by_is_in_its_record_and_counts_for_every_verb(tmp_path):
    large(tmp_path)
    project = open_study(tmp_path / "s.yaml", tmp_path)
    speeds = Speeds(1e6, 1e6, 1e10, "A100", ("0" * 64,))
    project.record(project.pins(is_online=True)._replace(speeds=speeds), project.plan())
    for is_online in (True, False):
        assert project.pins(is_online=is_online).speeds == speeds
        assert caches(project.plan(is_online=is_online)) == []
