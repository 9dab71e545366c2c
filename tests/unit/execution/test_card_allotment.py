"""How many cards a stage has where a study leaves it open: more for a chain, one for each of a crowd."""

import random
import time
from dataclasses import replace

import pytest
from support.judge import judge_shared
from support.planned import tutorial_plan

from ablate.core.failures import Ending
from ablate.execution.scheduler import Scheduler
from ablate.execution.scheduler_tasks import task_of
from ablate.execution.simulator import Simulated, SimulatedCosts, simulate
from ablate.execution.start_plan import Start
from ablate.execution.task_graph import Task
from ablate.machine.slots import SHARES, Slot, Taken
from ablate.planning.cost_model import CostModel, on_cards

HEAVY = frozenset({"heavy"})
OK = Ending("ok", "")


def cards(num: int, **fields) -> list[Slot]:
    fields = {"can_join": True, "num_shares": SHARES, "memory_bytes": 80 << 30} | fields
    return [Slot(f"gpu {n}", HEAVY, "cuda", f"GPU-{n}", **fields) for n in range(num)]


def stage(name: str, cost: float, needs: str = "", share: int = 8) -> Task:
    return Task(name, "toy", name, "heavy", tuple(needs.split()), cost, can_share=share, start_s=3.0)


def chain(*costs: float, prefix: str = "c") -> list[Task]:
    names = [f"{prefix}{number}" for number in range(len(costs))]
    return [stage(name, cost, before) for name, cost, before in zip(names, costs, ["", *names], strict=False)]


def one_card_each(tasks: list[Task]) -> list[Task]:
    return [replace(task, can_share=1) for task in tasks]


def sizes(played: Simulated) -> dict[str, int]:
    return {start.key: len(start.slot.parts) for _, start in played.starts}


TUTORIAL = chain(17 * 60.0, 8 * 60.0, 7 * 60.0, 3 * 60.0)
"""An 8B model fine-tuned, asked, its student taught and evaluated."""


def test_a_chain_of_35_minutes_takes_at_most_13_on_four_cards():
    assert simulate(one_card_each(TUTORIAL), cards(4)).makespan_s == 35 * 60
    played = simulate(TUTORIAL, cards(4))
    assert set(sizes(played).values()) == {4}
    assert played.bound_s <= played.makespan_s <= 13 * 60
    assert simulate(TUTORIAL, cards(8)).makespan_s < 8 * 60
    assert simulate(TUTORIAL, cards(1)).makespan_s == 35 * 60


def test_a_crowd_has_a_card_each_and_takes_no_longer_than_with_one_each():
    crowd = [stage(f"s{number}", 300.0) for number in range(40)]
    played = simulate(crowd, cards(4))
    assert played.makespan_s == simulate(one_card_each(crowd), cards(4)).makespan_s == 3000.0
    assert set(sizes(played).values()) == {1}


@pytest.mark.parametrize("seed", range(6))
def test_a_crowd_whose_stages_take_longer_or_shorter_than_thought_takes_no_longer_either(seed):
    crowd, costs = [stage(f"s{number}", 300.0) for number in range(40)], SimulatedCosts(seed, noise=0.3)
    played, before = simulate(crowd, cards(4), costs), simulate(one_card_each(crowd), cards(4), costs)
    assert played.makespan_s <= 1.03 * before.makespan_s
    assert sum(num == 1 for num in sizes(played).values()) >= 36


def test_beside_a_crowd_a_chain_has_no_more_cards_than_shorten_the_study():
    crowd = [stage(f"s{number}", 200.0) for number in range(16)]
    study = [*chain(1000.0, 1000.0), *crowd]
    played, before = simulate(study, cards(4)), simulate(one_card_each(study), cards(4))
    assert before.makespan_s == 2000.0
    assert played.makespan_s <= 0.8 * before.makespan_s
    assert sizes(played)["c0"] == sizes(played)["c1"] == 2
    assert all(sizes(played)[f"s{number}"] == 1 for number in range(14))  # the last two have what is free then


def test_what_is_left_at_the_end_of_a_crowd_has_the_cards_that_are_free():
    played = simulate([stage(f"s{number}", 300.0) for number in range(5)], cards(4))
    assert sizes(played)["s4"] == 4
    assert played.makespan_s < 300.0 + 110.0


def test_two_chains_share_the_cards():
    played = simulate([*chain(600.0, 600.0, prefix="a"), *chain(600.0, 600.0, prefix="b")], cards(4))
    assert set(sizes(played).values()) == {2}


def test_a_stage_has_no_more_cards_than_it_has_rows_for_nor_for_seconds_of_work():
    assert sizes(simulate([stage("a", 1000.0, share=3)], cards(8))) == {"a": 3}
    assert sizes(simulate([stage("a", 8.0)], cards(8))) == {"a": 1}


def started(it: Scheduler, now: float = 0.0) -> Start | None:
    start = it.next_start(now)
    if start:
        it.run(start.key, start.slot.name, start.shares, now)
    return start


def test_a_stage_waits_for_more_cards_where_that_ends_it_sooner_and_not_for_long():
    long, short = stage("long", 1000.0, share=1), stage("short", 900.0)
    it = Scheduler([long, short], cards(2))
    assert [started(it).slot.name for _ in range(2)] == ["gpu 0", "gpu 1"]  # both would be free in 1000 s
    seed = stage("seed", 95.0, share=1)
    it = Scheduler([replace(long, cost_s=100.0), seed, replace(short, needs=("seed",))], cards(2))
    assert [started(it).slot.name for _ in range(2)] == ["gpu 0", "gpu 1"]
    it.finish("seed", OK, 95.0)
    assert started(it, 95.0) is None  # in 5 s there are two
    assert it.due_at() == pytest.approx(100.0)
    it.finish("long", OK, 100.0)
    assert started(it, 100.0).slot.name == "gpu 0 + gpu 1"


@pytest.mark.parametrize("failure", ["error", "oom", "gpu_fault", "stalled"])
def test_a_stage_that_fails_on_cards_that_it_does_not_need_is_tried_on_one_before_it_is_given_up(failure):
    it = Scheduler([stage("a", 1000.0), stage("b", 900.0, "a")], cards(4))
    assert len(started(it).slot.parts) == 4
    it.finish("a", Ending(failure, "NCCL error"), 10.0)
    assert it.outcomes["a"].message == "NCCL error; it had 4 cards, and is tried on fewer"
    assert started(it, 10.0).slot.name == "gpu 0"
    it.finish("a", OK, 900.0)
    assert len(started(it, 900.0).slot.parts) == 4


def test_a_stage_that_fails_on_one_card_too_fails():
    it = Scheduler([stage("a", 1000.0)], cards(4))
    for _ in range(2):
        assert started(it)
        it.finish("a", Ending("error", "no such file"), 10.0)
    assert it.outcomes["a"].phase == "failed"


def test_a_card_that_fails_among_several_that_a_stage_needs_is_avoided_with_them_where_others_are_left():
    two = replace(stage("a", 1000.0, share=1), cards=2)
    it = Scheduler([two, stage("b", 10.0)], cards(4))
    assert started(it).slot.name == "gpu 0 + gpu 1"
    it.finish("a", Ending("gpu_fault", "ECC"), 1.0)
    assert started(it, 1.0).slot.name == "gpu 2 + gpu 3"
    it.finish("a", Ending("gpu_fault", "ECC"), 2.0)
    assert it.outcomes["a"].phase == "failed"
    assert started(it, 2.0).slot.name == "gpu 0"  # it was the stage
    all_of_them = Scheduler([two, stage("b", 10.0)], cards(2))
    started(all_of_them)
    all_of_them.finish("a", Ending("gpu_fault", "ECC"), 1.0)
    assert all_of_them.outcomes["a"].phase == "failed"
    assert started(all_of_them, 1.0).key == "b"  # which of the two failed is not known: the rest goes on with both


def test_cards_that_others_use_or_that_are_jobs_apart_or_no_cards_are_never_joined():
    it = Scheduler([stage("a", 1000.0)], cards(2))
    it.take({"gpu 0": Taken(1, "somebody's")}, 0.0)
    assert it.next_start(0.0).slot.name == "gpu 1"
    assert sizes(simulate([stage("a", 1000.0)], cards(4, can_join=False))) == {"a": 1}
    cores = [Slot(f"cpu {n}", HEAVY, can_join=True) for n in range(4)]
    assert sizes(simulate([stage("a", 1000.0)], cores)) == {"a": 1}


@pytest.mark.parametrize("seed", range(10))
def test_a_study_of_any_shape_takes_less_time_or_hardly_more_and_no_card_has_two_stages(seed):
    dice, tasks = random.Random(seed), []
    for number in range(40):
        needs = {f"t{dice.randrange(number)}" for _ in range(dice.choice((0, 1, 1, 2)))} if number else set()
        tasks.append(stage(f"t{number}", 60 * dice.lognormvariate(0, 1), " ".join(sorted(needs))))
    played, before = simulate(tasks, cards(4)), simulate(one_card_each(tasks), cards(4))
    assert played.bound_s <= played.makespan_s <= 1.05 * before.makespan_s
    assert {outcome.phase for outcome in played.outcomes.values()} == {"done"}
    assert max(played.busy.values()) <= 1 + 1e-9


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_it_comes_near_the_best_schedule_there_is_of_stages_on_any_number_of_cards(seed):
    dice, tasks = random.Random(seed), []
    for number in range(12):
        needs = {f"t{dice.randrange(number)}" for _ in range(dice.choice((0, 1, 1)))} if number else set()
        tasks.append(stage(f"t{number}", 600 * dice.lognormvariate(0, 1), " ".join(sorted(needs))))
    best = judge_shared(tasks, lambda task, num: on_cards(task.cost_s, num, task.start_s), 4, limit_s=2)
    played, before = simulate(tasks, cards(4)), simulate(one_card_each(tasks), cards(4))
    assert best.bound_s <= played.makespan_s * 1.001
    assert played.makespan_s <= 1.25 * best.best_s
    assert played.makespan_s <= before.makespan_s


def test_the_tutorials_study_is_sooner_done_on_cards_that_stages_may_share(tmp_path):
    plan = tutorial_plan(tmp_path, "distill.teacher_cache=vector")
    costs = CostModel(plan)
    tasks = [task_of(stage, costs.seconds) for stage in plan.stages]
    heavy = [task for task in tasks if task.work == "heavy"]
    assert all(task.can_share > 1 for task in heavy)
    for num in (1, 2, 4, 8):
        played, before = simulate(heavy, cards(num)), simulate(one_card_each(heavy), cards(num))
        assert played.makespan_s <= before.makespan_s * 1.001, num


def test_hundreds_of_stages_are_allotted_in_a_moment():
    tasks = [*chain(*[60.0] * 60), *(stage(f"s{number}", 60.0) for number in range(340))]
    begin = time.process_time()
    simulate(tasks, cards(8))
    assert time.process_time() - begin < 0.05 * len(tasks)
