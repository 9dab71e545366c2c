"""Cards are kept busy: whole studies played under a clock of their own, beside the best schedule there is."""

import itertools
import random
import time

import pytest
from support.judge import judge
from support.planned import tutorial_plan

from ablate.execution.scheduler_tasks import task_of
from ablate.execution.simulator import SimulatedCosts, simulate
from ablate.execution.task_graph import Task
from ablate.machine.slots import Slot
from ablate.planning.cost_model import CostModel


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
