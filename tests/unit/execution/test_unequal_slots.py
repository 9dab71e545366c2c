"""Where stages go when slots differ: cards of several speeds, queues in front of them, places that are out of reach."""

from support.schedules import begin

from ablate.core.failures import Ending
from ablate.execution.scheduler import Scheduler
from ablate.execution.task_graph import Task
from ablate.machine.slots import Slot, Taken
from ablate.planning.timing import Timing

HEAVY = frozenset({"heavy"})
OK = Ending("ok", "")
H100, A100 = Slot("h100", HEAVY, "cuda", model="H100", profile="new"), Slot("a100", HEAVY, "cuda", model="A100")
"""The first is 3.2 times as fast, and costs are those of the first slot."""
CPU = Slot("cpu", HEAVY, model="a processor", profile="cores")


def stage(name: str, cost: float = 100.0, kind: str = "toy", needs: str = "", start_s: float = 0.0) -> Task:
    return Task(name, kind, name, "heavy", tuple(needs.split()), cost, start_s=start_s)


def test_the_stage_whose_turn_it_is_gets_the_fastest_card_wherever_that_stands_in_the_list():
    assert begin(Scheduler([stage("a")], [A100, H100])) == {"a": "h100"}
    assert begin(Scheduler([stage("a")], [H100, A100])) == {"a": "h100"}


def test_a_stage_waits_for_a_busy_faster_card_where_that_ends_it_sooner_and_else_does_not():
    it = Scheduler([stage("first", 300.0), stage("second", 200.0), stage("third", 190.0)], [H100, A100])
    # the second would end at 500 on the H100, at 634 on the A100; the third behind it at 690, or at 603
    assert begin(it) == {"first": "h100", "third": "a100"}
    it.finish("first", OK, 300.0)
    assert begin(it, 300.0) == {"second": "h100"}


def test_what_no_faster_card_shortens_goes_to_any_card():
    it = Scheduler([stage("a", start_s=99.0), stage("b", start_s=99.0)], [H100, A100])
    assert begin(it) == {"a": "h100", "b": "a100"}


def test_nothing_waits_for_ever_for_a_card_that_does_not_become_free():
    it = Scheduler([stage("first"), stage("second")], [H100, A100])
    assert begin(it) == {"first": "h100"}
    assert it.due_at() == 100.0
    assert begin(it, 100.0) == {}
    assert begin(it, 250.0) == {}  # late by 150 s, and so 150 more, and 100 of its own: 500; on the A100 567
    assert it.due_at() == 400.0
    assert begin(it, 400.0) == {"second": "a100"}


def test_a_faster_card_that_is_avoided_is_not_waited_for():
    it = Scheduler([stage("first"), stage("second")], [H100, A100])
    begin(it)
    it.finish("first", Ending("gpu_fault", "CUDA error: uncorrectable ECC error"), 10.0)
    assert set(begin(it, 11.0).values()) == {"a100"}


def test_a_cluster_out_of_reach_is_handed_nothing_more_and_what_is_left_goes_elsewhere():
    it = Scheduler([stage(name, 900.0 - ord(name)) for name in "abc"], [H100, A100])
    assert begin(it) == {"a": "h100"}
    it.take({"h100": Taken(1, "the cluster of new is out of reach")}, 1.0)
    assert begin(it, 1.0) == {"b": "a100"}
    it.finish("a", OK, 1000.0)
    assert begin(it, 1000.0) == {}
    it.take({}, 1001.0)
    assert begin(it, 1001.0) == {"c": "h100"}


def test_a_card_behind_a_queue_is_left_for_one_that_is_there_and_taken_where_it_is_worth_the_wait():
    slots = [H100, A100]
    it = Scheduler([stage("a")], slots)
    it.take({"h100": Taken(0, "", wait_s=600.0)}, 0.0)
    assert begin(it) == {"a": "a100"}
    it = Scheduler([stage("a", 1000.0)], slots)
    it.take({"h100": Taken(0, "", wait_s=600.0)}, 0.0)
    assert begin(it) == {"a": "h100"}


def test_the_longer_a_job_queues_the_later_its_card_is_expected():
    it = Scheduler([stage("a", 1000.0), stage("b", 1000.0)], [H100, A100])
    it.take({"h100": Taken(0, "", wait_s=60.0)}, 0.0)
    assert begin(it) == {"a": "h100"}  # and b, which would end there at 2,060 s, on the A100 at 3,170 s
    it.take({"h100": Taken(0, "", wait_s=600.0)}, 60.0)
    assert begin(it, 60.0) == {}
    it.take({"h100": Taken(0, "", wait_s=3600.0)}, 3600.0)
    assert begin(it, 3600.0) == {"b": "a100"}


def test_a_core_beside_cards_takes_a_stage_only_where_that_helps():
    cards = [Slot(f"card {number}", HEAVY, "cuda", model="A100") for number in range(2)]
    long = Scheduler([stage(f"s{number:03}", 1000.0) for number in range(300)], [*cards, CPU])
    assert begin(long) == {"s000": "card 0", "s001": "card 1"}
    short = Scheduler([stage(f"s{number:03}", 3.01, start_s=3.0) for number in range(300)], [*cards, CPU])
    assert sorted(begin(short).values()) == ["card 0", "card 1", "cpu"]  # 34 s there, 450 s in the queue


def test_what_was_measured_on_one_sort_of_card_corrects_that_sort_alone():
    it = Scheduler([stage("first"), stage("second"), stage("third")], [H100, A100])
    assert begin(it) == {"first": "h100"}
    it.finish("first", OK, 1000.0, seconds=1000.0)  # ten times what was planned
    it.run("second", "a100", 1, 1000.0)
    it.finish("second", OK, 1317.0, seconds=317.0)  # as planned
    assert begin(it, 1317.0) == {"third": "a100"}


def test_two_names_of_one_card_are_one_sort_and_a_slice_of_it_is_not():
    timing = Timing()
    slots = [Slot("a", HEAVY, "cuda", model="NVIDIA A100-SXM4-80GB"), Slot("b", HEAVY, "cuda", model="A100")]
    it = Scheduler([stage("first")], slots, timing=timing)
    begin(it)
    it.finish("first", OK, 200.0, seconds=200.0)
    assert timing.ratio("toy", "A100") == 2.0
    assert timing.ratio("toy", "H100") == 2.0  # as far as is known
    timing.add("toy", 1.0, 8.0, "NVIDIA A100-SXM4-80GB MIG 1g.10gb")
    assert timing.ratio("toy", "A100") == 2.0


def test_memory_that_runs_out_in_one_profile_says_nothing_of_another():
    here = [Slot(f"here {number}", HEAVY, profile="here") for number in range(2)]
    there = [Slot(f"there {number}", HEAVY, profile="there") for number in range(2)]
    it = Scheduler([stage(f"s{number}") for number in range(8)], [*here, *there])
    placed = begin(it)
    first = next(key for key, name in placed.items() if name == "here 0")
    it.finish(first, Ending("memory", "killed by SIGKILL: memory ran out"), 0.0)
    assert begin(it, 0.0) == {}  # one of two at once from now on
    second = next(key for key, name in placed.items() if name == "there 0")
    it.finish(second, OK, 0.0)
    assert list(begin(it, 0.0).values()) == ["there 0"]


def test_a_stage_whose_job_queues_for_long_is_taken_back_for_a_place_that_nothing_else_wants():
    it = Scheduler([stage("a", 3000.0), stage("b", 900.0), stage("c", 900.0, needs="b")], [H100, A100])
    it.take({"h100": Taken(0, "", wait_s=60.0)}, 0.0)
    assert begin(it) == {"a": "h100", "b": "a100"}
    it.take({"h100": Taken(0, "", wait_s=20000.0)}, 2853.0)
    assert it.queued_in_vain(2853.0) == []  # there is no other place
    it.finish("b", OK, 2853.0)
    assert it.queued_in_vain(2853.0) == []  # c is ready, and takes it
    assert begin(it, 2853.0) == {"c": "a100"}
    it.finish("c", OK, 5706.0)
    assert it.queued_in_vain(5706.0) == ["a"]  # 15,216 s there, 25,853 s and more behind the queue
    it.again("a")
    assert begin(it, 5706.0) == {"a": "a100"}


def test_a_stage_stays_with_its_job_where_little_is_gained_or_the_job_has_begun():
    it = Scheduler([stage("a", 1000.0)], [H100, A100])
    it.take({"h100": Taken(0, "", wait_s=2000.0)}, 0.0)
    assert begin(it) == {"a": "h100"}  # 3,000 s, and 3,170 s on the A100
    it.take({"h100": Taken(0, "", wait_s=2500.0)}, 100.0)
    assert it.queued_in_vain(100.0) == []
    it.take({}, 200.0)
    assert it.queued_in_vain(1e6) == []
