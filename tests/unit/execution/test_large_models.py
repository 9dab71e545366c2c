"""A model larger than a card has as many cards of one machine as hold it, and no stage has fewer than it needs."""

from support.schedules import begin

from ablate.core.failures import Ending
from ablate.execution.attempts import request
from ablate.execution.scheduler import Scheduler
from ablate.execution.simulator import simulate
from ablate.execution.task_graph import Task
from ablate.machine.slots import SHARES, Slot, Taken
from ablate.stages.toy import ToySettings
from ablate.store.memory import Held, Memory, Way
from ablate.store.stage import Stage
from ablate.store.store import Store

HEAVY, GB = frozenset({"heavy"}), 10**9
OK = Ending("ok", "")


def cards(num: int, gb: int = 80, name: str = "gpu", **fields) -> list[Slot]:
    fields = {"can_join": True, "num_shares": SHARES, "memory_bytes": gb * GB} | fields
    return [Slot(f"{name} {n}", HEAVY, "cuda", f"{name}-{n}", **fields) for n in range(num)]


def held(gb: int, *, is_training: bool = False, is_offloaded: bool = False) -> Held:
    """Of a model of so many GB, with 1 GB beside it and layers of 1 GB."""
    ways = (Way((), Memory(frozen=gb * GB, kept=GB)),)
    if is_offloaded:
        ways += (Way(("layers in the machine's memory",), Memory(frozen=GB, kept=GB), is_offloaded=True),)
    return Held((gb + 1) * GB, gb * GB, ways, (GB,) * gb, is_training)


def stage(name: str, of: Held | None = None, cards: int = 1, most: int = 8, cost: float = 100.0) -> Task:
    memory = {"memory_bytes": of.estimate, "least_bytes": of.weights, "held": of} if of else {}
    return Task(name, "toy", name, "heavy", (), cost, cards=cards, most_cards=most, **memory)


def test_a_teacher_of_140_gb_is_asked_on_two_cards_and_trained_in_shards_over_four():
    it = Scheduler([stage("asked", held(140), cost=200.0), stage("trained", held(160, is_training=True))], cards(4))
    first = it.next_start(0.0)
    assert (first.key, first.slot.name, first.spread) == ("asked", "gpu 0 + gpu 1", "layers")
    it.run(first.key, first.slot.name, first.shares)
    assert it.next_start(0.0) is None  # three cards hold it as little as two do: four are waited for
    it.finish("asked", OK, 200.0)
    then = it.next_start(200.0)
    assert (then.slot.parts, then.spread) == (tuple(f"gpu {n}" for n in range(4)), "weights")


def test_what_fits_on_one_card_has_one():
    it = Scheduler([stage("a", held(60)), stage("b")], cards(4))
    starts = [it.next_start(0.0)]
    it.run(starts[0].key, starts[0].slot.name, starts[0].shares)
    starts.append(it.next_start(0.0))
    assert [(start.slot.name, start.spread) for start in starts] == [("gpu 0", None), ("gpu 1", None)]


def test_a_large_model_goes_to_one_larger_card_or_to_several_small_ones_whichever_ends_first():
    far = cards(1, 200, "large", profile="far")
    assert begin(Scheduler([stage("a", held(140)), stage("b", held(140))], [*cards(2), *far])) == {
        "a": "gpu 0 + gpu 1",
        "b": "large 0",
    }


def test_a_model_that_no_number_of_cards_here_holds_is_known_beforehand():
    assert Scheduler([stage("a", held(140))], cards(1)).is_misfit("a")
    assert Scheduler([stage("a", held(140), most=1)], cards(4)).is_misfit("a")  # cards: 1
    assert Scheduler([stage("a", held(140))], cards(4, can_join=False)).is_misfit("a")  # each a job of its own
    assert not Scheduler([stage("a", held(140))], cards(2)).is_misfit("a")
    assert not Scheduler([stage("a", held(140, is_offloaded=True))], cards(1)).is_misfit("a")


def test_a_large_model_is_not_begun_on_fewer_cards_than_hold_it_while_others_use_the_rest():
    it = Scheduler([stage("a", held(140)), stage("b", cost=10.0)], cards(2))
    it.take({"gpu 1": Taken(1, "somebody's")}, 0.0)
    assert begin(it) == {"b": "gpu 0"}  # it keeps no card that alone is of no use to it
    it.finish("b", OK, 10.0)
    it.take({}, 10.0)
    assert begin(it, 10.0) == {"a": "gpu 0 + gpu 1"}


def test_layers_one_after_the_other_gain_no_time_and_shards_do():
    asked, trained = (simulate([stage("a", held(140, is_training=is_it))], cards(2)) for is_it in (False, True))
    assert asked.makespan_s == 100.0
    assert asked.busy == {"gpu 0": 1.0, "gpu 1": 1.0}
    assert trained.makespan_s < 65.0


def test_a_stage_that_a_whole_card_is_too_small_for_against_the_estimate_has_its_models_shared_by_more():
    oom = Ending("oom", "out of memory with one row at a time")
    it = Scheduler([stage("a", held(60, is_training=True)), stage("b")], cards(4))
    spreads = []
    for num in (1, 2, 4):
        start = it.next_start(0.0)
        assert (start.key, len(start.slot.parts)) == ("a", num)
        spreads.append(start.spread)
        it.run(start.key, start.slot.name, start.shares)
        it.finish("a", oom, 0.0)
    assert spreads == [None, "weights", "weights"]
    it.next_start(100.0)  # on all that there are: as a stage on one card
    assert it.outcomes["a"].phase in ("waiting", "failed")
    only = Scheduler([stage("a", held(60), most=1)], cards(4))
    only.run("a", "gpu 0", SHARES, 0.0)
    only.finish("a", oom, 0.0)
    assert "more cards" not in only.outcomes["a"].message


def test_a_worker_is_told_how_a_model_lies_over_its_cards(tmp_path):
    toy = Stage("toy", 1, ToySettings(), {}, {})
    it = Scheduler([stage("a", held(140))], cards(2))
    start = it.next_start(0.0)
    said = request(Store(tmp_path), toy, start.slot, 1.0, 1.0, start.shares, start.spread)
    assert (said["num_cards"], said["spread"], said["slot"]["gpus"]) == (2, "layers", ("gpu-0", "gpu-1"))
