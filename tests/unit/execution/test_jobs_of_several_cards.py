"""A job of several cards: a stage in it uses as many as end it first, and as many as hold its models."""

import os
import random

import pytest
from pydantic import ValidationError

from ablate.core.errors import AblateError, StageError
from ablate.core.failures import Ending
from ablate.execution.job_forecast import profile_forecasts
from ablate.execution.place_record import place_record
from ablate.execution.profiles import Profile
from ablate.execution.rank_processes import Rank, take_share
from ablate.execution.ray_cluster.options import RayOptions
from ablate.execution.scheduler import Scheduler
from ablate.execution.simulator import SimulatedCosts, simulate
from ablate.execution.slurm.allocation import Allocation
from ablate.execution.slurm.options import SlurmOptions
from ablate.execution.start_plan import Start
from ablate.execution.task_graph import Task
from ablate.machine.slots import Slot
from ablate.planning.cost_model import on_cards
from ablate.planning.timing import Timing
from ablate.store.memory import Held, Memory, Way

HEAVY, GB = frozenset({"heavy"}), 10**9
OK, OOM = Ending("ok", ""), Ending("oom", "out of memory")


def jobs(num: int, cards: int, **fields) -> list[Slot]:
    return [
        Slot(f"a100 job {n}", HEAVY, "cuda", memory_bytes=80 * GB, profile="a100", num_gpus=cards, **fields)
        for n in range(num)
    ]


def stage(name: str, cost: float = 1000.0, **fields) -> Task:
    fields = {"can_share": 8, "most_cards": 8} | fields
    return Task(name, "toy", name, "heavy", (), cost, **fields)


def large(name: str, gb: int, *, is_training: bool = False, **fields) -> Task:
    held = Held((gb + 1) * GB, gb * GB, (Way((), Memory(frozen=gb * GB, kept=GB)),), (GB,) * gb, is_training)
    return stage(name, memory_bytes=held.estimate, least_bytes=held.weights, held=held, **fields)


def start(it: Scheduler, now: float = 0.0) -> Start:
    begun = it.next_start(now)
    assert begun
    it.run(begun.key, begun.slot.name, begun.shares, now, begun.slot.num_gpus)
    return begun


def test_a_long_stage_uses_all_cards_of_its_job_and_a_short_one_its_first():
    it = Scheduler([stage("long"), stage("short", 2.0)], jobs(2, 4))
    assert [(begun.key, begun.slot.num_cards("auto")) for begun in (start(it), start(it))] == [
        ("long", 4),
        ("short", 1),
    ]


@pytest.mark.parametrize(("said", "there", "used"), [(1, 4, 1), (2, 4, 2), (8, 4, 4)])
def test_what_the_study_says_counts_as_far_as_a_job_goes(said, there, used):
    begun = start(Scheduler([stage("a", cards=said, can_share=1, most_cards=said)], jobs(1, there)))
    assert (begun.slot.num_cards(said), begun.spread) == (used, None)


def test_a_model_larger_than_a_card_lies_over_the_cards_of_one_job_but_never_of_two():
    assert Scheduler([large("a", 140)], jobs(8, 1)).is_misfit("a")
    asked = start(Scheduler([large("a", 140, can_share=1)], jobs(2, 4)))
    assert (asked.slot.name, asked.slot.num_cards("auto"), asked.spread) == ("a100 job 0", 2, "layers")
    trained = start(Scheduler([large("a", 160, is_training=True)], jobs(2, 4)))
    assert (trained.slot.num_cards("auto"), trained.spread) == (4, "weights")
    assert Scheduler([large("a", 140, most_cards=1)], jobs(8, 4)).is_misfit("a")  # cards: 1


def test_a_large_model_goes_to_the_profile_whose_jobs_hold_it():
    small = [Slot("one", HEAVY, "cuda", memory_bytes=80 * GB, profile="one")]
    it = Scheduler([large("a", 140), stage("b", 900.0)], [*small, *jobs(1, 4)])
    assert [(begun.key, begun.slot.name) for begun in (start(it), start(it))] == [("a", "a100 job 0"), ("b", "one")]


def test_what_failed_on_several_cards_is_tried_on_one_and_what_was_too_large_for_one_in_shards():
    it = Scheduler([stage("a")], jobs(1, 4))
    start(it)
    it.finish("a", Ending("error", "no card hears of another"), 10.0)
    assert it.outcomes["a"].message == "no card hears of another; it had 4 cards, and is tried on fewer"
    again = start(it, 10.0)
    assert (again.slot.num_cards("auto"), again.spread) == (1, None)
    it = Scheduler([large("a", 70, is_training=True)], jobs(1, 4))
    start(it)
    it.finish("a", OOM, 10.0)
    start(it, 10.0)
    it.finish("a", OOM, 20.0)
    in_shards = start(it, 20.0)
    assert (in_shards.slot.num_cards("auto"), in_shards.spread) == (2, "weights")


def test_times_are_known_by_the_cards_that_were_used():
    timing = Timing()
    timing.add("toy", 1.0, 1.0, "", 4)
    it = Scheduler([stage("a", cards=2, can_share=1)], jobs(1, 4), timing=timing)
    start(it)
    it.finish("a", OK, 2000.0, seconds=2 * on_cards(1000.0, 2, 0.0))
    assert (timing.ratio("toy", "", 2), timing.ratio("toy", "", 4)) == (pytest.approx(2.0), 1.0)


def test_an_adopted_attempt_holds_its_job_with_as_many_cards_as_it_was_given():
    it = Scheduler([stage("a"), stage("b")], jobs(1, 4))
    it.run("a", "a100 job 0", 1, 0.0, 2)
    assert it.allocator.held["a"].slot.num_places == 2
    assert it.next_start(0.0) is None


def test_a_study_on_jobs_of_four_cards_is_as_quick_as_its_bound_allows():
    played = simulate([stage(f"t{n}") for n in range(8)], slots := jobs(2, 4))
    assert played.makespan_s == pytest.approx(4 * on_cards(1000.0, 4, 0.0), rel=0.01)
    assert played.makespan_s >= played.bound_s
    profile = Profile("a100", "slurm", {"gres": "gpu:a100:4", "price_per_hour": "8 USD"})
    (forecast,) = profile_forecasts([profile], slots, played)
    hours = 2 * played.makespan_s / 3600
    assert (forecast.num_cards, forecast.card_hours) == (8, pytest.approx(4 * hours))
    assert forecast.price == f"{8 * hours:,.2f} USD"  # of a job, not of a card


@pytest.mark.parametrize("seed", range(12))
def test_beside_cards_of_this_machine_every_stage_is_done_with_no_fewer_cards_than_hold_it(seed):
    dice = random.Random(seed)
    here = [Slot(f"gpu {n}", HEAVY, "cuda", f"G{n}", memory_bytes=80 * GB, can_join=True) for n in range(2)]
    single = [Slot("one", HEAVY, "cuda", memory_bytes=80 * GB, profile="one")]
    slots = [*jobs(dice.choice((1, 3)), dice.choice((2, 3, 4))), *here, *single]
    tasks = [
        large(f"t{n}", dice.choice((20, 60, 140)), is_training=dice.random() < 0.5, cost=dice.lognormvariate(5, 2))
        for n in range(30)
    ]
    played = simulate(tasks, slots, SimulatedCosts(seed, noise=0.4, kill_rate=0.1))
    assert {outcome.phase for outcome in played.outcomes.values()} == {"done"}
    assert max(played.busy.values()) <= 1.0 + 1e-9
    weights = {task.key: task.least_bytes for task in tasks}
    for _, begun in played.starts:
        assert begun.slot.num_cards("auto") >= (2 if weights[begun.key] == 140 * GB else 1)
        assert (begun.spread is not None) == (weights[begun.key] == 140 * GB)
    calm = simulate(tasks, slots)
    assert calm.makespan_s >= calm.bound_s * (1 - 1e-9)


def test_a_result_keeps_how_many_cards_of_its_job_it_used():
    record = jobs(1, 4)[0].using(2).record()
    assert place_record({"slot": record}, {})["job_cards"] == 2


# what a job holds


@pytest.mark.parametrize(
    ("given", "cards"),
    [
        ({}, 1),
        ({"gres": "gpu"}, 1),
        ({"gres": "gpu:a100"}, 1),
        ({"gres": "gpu:4"}, 4),
        ({"gres": "gpu:a100:4,tmpdisk:100"}, 4),
        ({"gres": "tmpdisk:100"}, 1),
        ({"gres": "gpu:4", "cards": 2}, 2),
        ({"extra": {"gpus-per-node": "h100:8"}}, 8),
        ({"extra": {"gpus": 2}}, 2),
        ({"device": "cuda", "cards": 4, "extra": {"exclusive": True}}, 4),
    ],
)
def test_a_slurm_profile_knows_its_cards_by_what_it_asks_for(given, cards):
    assert SlurmOptions.model_validate(given).cards == cards


def test_more_cards_than_a_job_is_asked_for_with_are_refused():
    with pytest.raises(ValidationError, match="cards: 4, but a job is asked for with 1"):
        SlurmOptions.model_validate({"gres": "gpu:1", "cards": 4})
    with pytest.raises(ValidationError, match="cards: 4, but a job has none"):
        SlurmOptions.model_validate({"cards": 4})
    with pytest.raises(ValidationError, match="cards: 4, but a job is asked for with num_gpus: 2"):
        RayOptions.model_validate({"num_gpus": 2, "cards": 4})
    assert RayOptions.model_validate({"num_gpus": 2}).cards == 2
    assert RayOptions.model_validate({"num_gpus": 0.5}).cards == 1


def test_steps_of_an_allocation_may_have_several_cards_of_a_node_each():
    here = Allocation("9", num_nodes=2, num_cpus=64, num_cards=8)
    assert (here.cpus_of(2), here.num_pilots(here.cpus_of(2), 2)) == (16, 4)
    assert here.num_pilots(8, 3) == 2
    with pytest.raises(AblateError, match=r"cards: 8 of a step is more than a node of this allocation has \(4\)"):
        here.num_pilots(8, 8)


# what a process of it sees


@pytest.fixture
def visible(monkeypatch):
    def show(cards: str | None) -> None:
        if cards is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", cards)

    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    return show


@pytest.mark.parametrize(("cards", "own"), [("2,3", "3"), ("GPU-a,GPU-b", "GPU-b"), (None, "1")])
def test_each_process_has_one_of_the_cards_that_the_cluster_assigned(visible, cards, own):
    visible(cards)
    assert take_share(Rank(1, 2), {"device": "cuda", "threads": 4})["threads"] == 2
    assert os.environ["CUDA_VISIBLE_DEVICES"] == own


def test_a_job_with_fewer_cards_than_its_profile_says_ends_the_stage_in_words(visible):
    visible("0")
    with pytest.raises(StageError, match=r"was given 2 cards, and sees 1 \(CUDA_VISIBLE_DEVICES=0\)"):
        take_share(Rank(1, 2), {"device": "cuda", "threads": 4})
