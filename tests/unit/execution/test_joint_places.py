"""A stage that the study gives several cards has them whole, of one machine, and keeps no more from others."""

import random

import pytest
from support.schedules import begin

from ablate.core.failures import Ending
from ablate.execution.place_record import place_record
from ablate.execution.scheduler import Scheduler
from ablate.execution.simulator import SimulatedCosts, simulate
from ablate.execution.task_graph import Task
from ablate.machine.slots import SHARES, Slot, Taken
from ablate.planning.cost_model import EFFICIENCY, JOIN_S, on_cards
from ablate.planning.timing import Timing

HEAVY = frozenset({"heavy"})
OK = Ending("ok", "")


def cards(num: int, **fields) -> list[Slot]:
    fields = {"can_join": True, "num_shares": SHARES, "memory_bytes": 80 << 30} | fields
    return [Slot(f"gpu {n}", HEAVY, "cuda", f"GPU-{n}", threads=2, **fields) for n in range(num)]


def stage(name: str, cards: int = 1, cost: float = 100.0, needs: str = "", gib: int | None = None) -> Task:
    return Task(name, "toy", name, "heavy", tuple(needs.split()), cost, memory_bytes=gib and gib << 30, cards=cards)


def test_a_stage_has_as_many_cards_as_the_study_says_and_its_worker_is_shown_them_all():
    it = Scheduler([stage("a", 2), stage("b", 2, 90.0), stage("c", 2, 80.0)], cards(4))
    slots = {}
    while start := it.next_start(0.0):
        it.run(start.key, start.slot.name, start.shares)
        slots[start.key] = start.slot
    assert {key: slot.name for key, slot in slots.items()} == {"a": "gpu 0 + gpu 1", "b": "gpu 2 + gpu 3"}
    record = slots["b"].record()
    assert record["gpus"] == ("GPU-2", "GPU-3")
    assert (record["gpu"], record["threads"], record["shares"]) == ("GPU-2", 4, SHARES)
    assert slots["b"].num_cards(2) == 2
    assert place_record({"slot": record}, {})["cards"] == ["gpu 2", "gpu 3"]
    it.finish("b", OK, 50.0)
    assert begin(it, 50.0) == {"c": "gpu 2 + gpu 3"}


def test_where_there_are_fewer_cards_than_a_study_says_a_stage_has_what_there_is():
    assert begin(Scheduler([stage("a", 8)], cards(2))) == {"a": "gpu 0 + gpu 1"}
    assert begin(Scheduler([stage("a", 8)], cards(1))) == {"a": "gpu 0"}
    others = Scheduler([stage("a", 8)], cards(4))
    others.take({"gpu 1": Taken(1, "somebody's")}, 0.0)
    assert begin(others) == {"a": "gpu 0 + gpu 2 + gpu 3"}


def test_cards_of_several_machines_are_never_one_place():
    jobs = cards(4, can_join=False)
    assert begin(Scheduler([stage("a", 4)], jobs)) == {"a": "gpu 0"}
    two_machines = [
        *cards(2),
        *(Slot(f"far {n}", HEAVY, "cuda", f"F{n}", profile="far", can_join=True) for n in (0, 1)),
    ]
    assert begin(Scheduler([stage("a", 4), stage("b", 4)], two_machines)) == {
        "a": "gpu 0 + gpu 1",
        "b": "far 0 + far 1",
    }


def test_a_stage_of_several_cards_waits_for_them_and_small_ones_behind_it_keep_to_the_others():
    tasks = [stage("a", cost=400.0), stage("b", cost=390.0), stage("c", 2, 380.0), stage("d", cost=10.0, gib=10)]
    it = Scheduler(tasks, cards(3))
    assert begin(it) == {"a": "gpu 0", "b": "gpu 1"}  # the third is kept for c, so d does not delay it
    it.finish("b", OK, 390.0)
    assert begin(it, 390.0) == {"c": "gpu 1 + gpu 2"}
    it.finish("a", OK, 400.0)
    assert begin(it, 400.0) == {"d": "gpu 0"}


def test_what_a_killed_driver_left_on_several_cards_keeps_them_all():
    it = Scheduler([stage("a", 2), stage("b", cost=1.0)], cards(2))
    it.run("a", "gpu 0 + gpu 1", SHARES, 0.0)
    assert begin(it) == {}
    it.finish("a", OK, 9.0)
    assert begin(it, 9.0) == {"b": "gpu 0"}
    fewer = Scheduler([stage("a", 2), stage("b")], cards(2)[1:])
    fewer.run("a", "gpu 0 + gpu 1", SHARES, 0.0)  # of --gpus this time there is one
    assert begin(fewer) == {}


@pytest.mark.parametrize("seed", range(8))
def test_no_card_is_given_to_two_stages_of_which_one_has_several(seed):
    dice = random.Random(seed)
    tasks = [
        stage(f"t{n}", dice.choice((1, 1, 2, 3, 8)), dice.lognormvariate(3, 1), f"t{n // 3}" if n > 3 else "")
        for n in range(40)
    ]
    played = simulate(tasks, cards(4), SimulatedCosts(seed, noise=0.4, kill_rate=0.1))
    assert {outcome.phase for outcome in played.outcomes.values()} == {"done"}
    assert simulate(tasks, cards(4)).makespan_s >= played.bound_s
    assert max(played.busy.values()) <= 1.0 + 1e-9
    assert all(len(start.slot.parts) == min(4, played_cards(tasks, start.key)) for _, start in played.starts)


def played_cards(tasks: list[Task], key: str) -> int:
    return next(task.cards for task in tasks if task.key == key)


def test_twice_the_cards_gain_nine_tenths_of_twice_but_for_what_none_shortens():
    assert on_cards(103.0, 1) == 103.0
    assert on_cards(103.0, 2) == pytest.approx(3.0 + JOIN_S + 100.0 / (2 * EFFICIENCY))
    assert on_cards(103.0, 4) == pytest.approx(3.0 + JOIN_S + 100.0 / (4 * EFFICIENCY**2))


def test_what_a_stage_took_on_four_cards_says_how_long_four_take_and_not_how_long_one_does():
    timing = Timing()
    timing.add("finetune", 100.0, 150.0, "H100", 4)
    timing.add("finetune", 300.0, 300.0, "H100")
    assert timing.ratio("finetune", "H100", 4) == 1.5
    assert timing.ratio("finetune", "H100", 1) == 1.0
    it = Scheduler([stage("a", 2)], cards(2), timing=(known := Timing()))
    begin(it)
    it.finish("a", OK, 120.0, seconds=on_cards(100.0, 2, 0.0) * 2)
    assert known.ratio("toy", "", 2) == pytest.approx(2.0)
