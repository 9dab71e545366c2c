"""Cards are kept busy: whole studies played under a clock of their own, beside the best schedule there is."""

import itertools
import random
import time
from collections import Counter

import pytest
from support.judge import judge, judge_unequal
from support.planned import tutorial_plan

from ablate.execution.schedule_bound import lower_bound_s
from ablate.execution.scheduler_tasks import task_of
from ablate.execution.simulator import NodeLosses, SimulatedCosts, simulate
from ablate.execution.stage_durations import StageDurations
from ablate.execution.task_graph import Task
from ablate.machine.slots import Slot
from ablate.planning.cost_model import CostModel
from ablate.planning.timing import Timing


def cards(num: int) -> list[Slot]:
    return [Slot(f"gpu {number}", frozenset({"heavy"}), "cuda", f"GPU-{number}") for number in range(num)]


def random_study(seed: int, num: int) -> list[Task]:
    """Stages that need none, one or two of those before them, of very different length."""
    dice, tasks = random.Random(seed), []
    for number in range(num):
        needs = {f"t{dice.randrange(number)}" for _ in range(dice.choice((0, 1, 1, 2)))} if number else set()
        tasks.append(Task(f"t{number}", "toy", f"t{number}", "heavy", tuple(sorted(needs)), dice.lognormvariate(0, 1)))
    return tasks


@pytest.fixture(scope="module", params=["none", "vector"])
def tutorial(request, tmp_path_factory) -> list[Task]:
    """The trainings and evaluations of studies/kd_llama.yaml, with and without a kept teacher."""
    plan = tutorial_plan(tmp_path_factory.mktemp("tutorial"), f"distill.teacher_cache={request.param}")
    costs = CostModel(plan)
    tasks = [task_of(stage, costs.seconds) for stage in plan.stages]
    return [task for task in tasks if task.work == "heavy"]


@pytest.mark.parametrize("num", [1, 2, 4, 8])
def test_the_tutorials_study_takes_at_most_a_twentieth_longer_than_the_best_schedule(tutorial, num):
    played, best = simulate(tutorial, cards(num)), judge(tutorial, num, limit_s=20)
    assert played.makespan_s <= 1.05 * best.bound_s, (played.bound_s, best)


@pytest.mark.parametrize("seed", range(12))
def test_a_study_of_any_shape_takes_at_most_a_twentieth_longer_than_the_best_schedule(seed):
    tasks, num = random_study(seed, 30), (2, 3, 4, 8)[seed % 4]
    assert simulate(tasks, cards(num)).makespan_s <= 1.05 * judge(tasks, num).bound_s


@pytest.mark.parametrize("seed", range(12))
def test_every_stage_runs_once_after_what_it_needs_and_on_a_card_of_its_own(seed):
    tasks = random_study(seed, 60)
    played = simulate(tasks, cards(4), SimulatedCosts(seed, noise=0.5))
    began = {start.key: (at, start.slot.name) for at, start in played.starts}
    assert sorted(began) == sorted(task.key for task in tasks)
    ends = played.ends
    for task in tasks:
        assert all(ends[need] <= began[task.key][0] for need in task.needs)
    for name in played.busy:
        turns = sorted((at, ends[key]) for key, (at, slot) in began.items() if slot == name)
        assert all(one[1] <= other[0] for one, other in itertools.pairwise(turns))


def test_killed_attempts_are_tried_again_and_the_cards_stay_busy():
    played = simulate(random_study(3, 400), cards(4), SimulatedCosts(seed=1, noise=0.3, kill_rate=0.1))
    assert {outcome.phase for outcome in played.outcomes.values()} == {"done"}
    assert len(played.starts) > 420
    assert min(played.busy.values()) > 0.9


def test_the_same_seed_plays_the_same():
    one, other = (
        simulate(random_study(3, 100), cards(3), SimulatedCosts(seed=5, noise=0.5, kill_rate=0.1)) for _ in range(2)
    )
    assert one == other


def test_no_schedule_is_shorter_than_the_bound_and_one_card_has_no_gap():
    tasks = random_study(7, 50)
    played = simulate(tasks, cards(1))
    assert played.makespan_s == pytest.approx(played.bound_s)
    assert played.busy == {"gpu 0": pytest.approx(1.0)}


def test_a_stage_that_no_card_can_hold_fails_and_the_rest_is_done():
    small = [Slot("gpu 0", frozenset({"heavy"}), "cuda", "GPU-0", num_shares=4, memory_bytes=24 << 30)]
    tasks = [
        Task("large", "toy", "large", "heavy", (), 1.0, least_bytes=30 << 30),
        Task("after", "toy", "after", "heavy", ("large",), 1.0),
        Task("other", "toy", "other", "heavy", (), 1.0),
    ]
    phases = {key: outcome.phase for key, outcome in simulate(tasks, small).outcomes.items()}
    assert phases == {"large": "failed", "after": "blocked", "other": "done"}


def test_ten_thousand_stages_cost_the_scheduler_less_than_ten_seconds():
    began = time.process_time()
    played = simulate(random_study(1, 10_000), cards(8), SimulatedCosts(noise=0.3, kill_rate=0.01, slowdown=0.2))
    assert time.process_time() - began < 10  # 2 s on a core of 2026
    assert len(played.ends) == 10_000


# clusters: cards of several sorts, and nodes that are lost

HEAVY = frozenset({"heavy"})
NODE_OF = {f"card {number}": f"node {number // 4}" for number in range(64)}


def mixed(**nums: int) -> list[Slot]:
    """-> so many cards of each sort, and a core of this machine."""
    cards = [Slot(f"{sort} {n}", HEAVY, "cuda", model=sort, profile=sort) for sort in nums for n in range(nums[sort])]
    return [*cards, Slot("cpu 0", HEAVY, model="a processor")]


def of_nodes(num_h100: int = 0) -> list[Slot]:
    models = ["H100"] * num_h100 + ["A100"] * (64 - num_h100)
    return [Slot(name, HEAVY, "cuda", model=model) for name, model in zip(NODE_OF, models, strict=True)]


def trainings(seed: int, num: int = 250) -> list[Task]:
    """So many trainings of an hour or so, each with an evaluation of ten minutes or so."""
    dice, tasks = random.Random(seed), []
    for number in range(num):
        hours, name = 3600 * dice.lognormvariate(0, 0.5), f"t{number}"
        tasks.append(Task(name, "distill", name, "heavy", (), hours, start_s=3.0))
        seconds = 600 * dice.lognormvariate(0, 0.5)
        tasks.append(Task(f"e{number}", "evaluate", f"e{number}", "heavy", (name,), seconds, start_s=3.0))
    return tasks


@pytest.mark.parametrize("seed", range(6))
def test_on_cards_of_several_sorts_a_study_takes_at_most_a_quarter_longer_than_the_best_schedule(seed):
    tasks, slots = [trainings(seed, 12), random_study(seed, 24)][seed % 2], mixed(A100=8, H100=2)
    durations, slot_of = StageDurations(slots, Timing()), {slot.model: slot for slot in slots}
    best = judge_unequal(
        tasks,
        lambda task, sort: durations.seconds(task, slot_of[sort]),
        Counter(slot.model for slot in slots),
        limit_s=5,
    )
    assert simulate(tasks, slots).makespan_s <= 1.25 * best.bound_s, best


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num_h100", [0, 16])
def test_64_cards_lose_nodes_and_500_stages_are_done_once_each_in_little_more_time(seed, num_h100):
    began, slots = time.process_time(), [*of_nodes(num_h100), *mixed()]  # with an idle core, which nothing wants
    losses = NodeLosses(NODE_OF, mean_s=12 * 3600.0, repair_s=1800.0)
    costs = SimulatedCosts(seed, noise=0.3, kill_rate=0.02, checkpoint_s=600.0, losses=losses)
    played = simulate(trainings(seed), slots, costs)
    assert time.process_time() - began < 5  # 0.7 s on a core of 2026
    assert played.losses
    assert {outcome.phase for outcome in played.outcomes.values()} == {"done"}
    assert Counter(played.done) == dict.fromkeys(played.outcomes, 1)
    assert played.makespan_s <= 1.8 * played.bound_s


@pytest.mark.parametrize("seed", range(4))
def test_what_a_node_took_with_it_is_done_elsewhere_though_it_never_comes_back(seed):
    losses = NodeLosses(NODE_OF, mean_s=12 * 3600.0)
    played = simulate(trainings(seed), of_nodes(16), SimulatedCosts(seed, checkpoint_s=600.0, losses=losses))
    assert Counter(played.done) == dict.fromkeys(played.outcomes, 1)
    lost_at = {node: at for at, node in played.losses}
    assert all(at <= lost_at.get(NODE_OF[start.slot.name], at) for at, start in played.starts)
    left = [slot for slot in of_nodes(16) if NODE_OF[slot.name] not in lost_at]
    assert played.makespan_s <= 1.25 * lower_bound_s(trainings(seed), left)


@pytest.mark.parametrize("seed", range(4))
def test_with_cards_of_any_speed_no_card_is_idle_for_long_while_stages_wait(seed):
    slots = mixed(A100=6, H100=2, V100=4, T4=4)
    played = simulate(trainings(seed, 60), slots, SimulatedCosts(seed, noise=0.5, kill_rate=0.05, checkpoint_s=600.0))
    assert {outcome.phase for outcome in played.outcomes.values()} == {"done"}
    assert played.makespan_s <= 1.8 * played.bound_s
    assert min(played.busy[slot.name] for slot in slots if slot.is_card) > 0.5


def test_a_queue_in_front_of_every_card_is_waited_for_once():
    slots = of_nodes()
    played = simulate(trainings(1), slots, SimulatedCosts(queue_s={slot.name: 900.0 for slot in slots}))
    assert 900 < played.makespan_s - simulate(trainings(1), slots).makespan_s + 1 < 1800
