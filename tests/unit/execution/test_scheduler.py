"""Where stages are placed: shares of cards, cards that others use or that fail, costs corrected by measurement."""

import pytest
from support.schedules import begin

from ablate.core.failures import Ending
from ablate.execution.outcomes import exit_code
from ablate.execution.scheduler import Scheduler
from ablate.execution.simulator import simulate
from ablate.execution.task_graph import Task
from ablate.machine.slots import SHARES, Slot
from ablate.planning.timing import Timing

HEAVY = frozenset({"heavy"})
GIB = 1 << 30
OK = Ending("ok", "")


def card(number: int, gib: int = 80) -> Slot:
    return Slot(f"gpu {number}", HEAVY, "cuda", f"GPU-{number}", num_shares=SHARES, memory_bytes=gib * GIB)


def cpus(num: int) -> list[Slot]:
    return [Slot(f"cpu {number}", HEAVY, memory_bytes=8 * GIB) for number in range(num)]


def sized(name: str, gib: int | None, cost: float = 1.0, kind: str = "toy", least: int = 0, needs: str = "") -> Task:
    memory = None if gib is None else gib * GIB
    inputs = tuple(needs.split())
    return Task(name, kind, name, "heavy", inputs, cost, memory_bytes=memory, least_bytes=least * GIB)


def phases(it: Scheduler) -> dict[str, str]:
    return {key: outcome.phase for key, outcome in it.outcomes.items()}


# shares of a card


def test_an_empty_card_comes_before_a_shared_one():
    it = Scheduler([sized(name, 10) for name in "abcde"], [card(0), card(1)])
    assert sorted(begin(it).values()) == ["gpu 0", "gpu 0", "gpu 0", "gpu 1", "gpu 1"]


def test_no_more_share_a_card_than_fit_and_never_more_than_four():
    assert len(begin(Scheduler([sized(str(n), 1) for n in range(9)], [card(0)]))) == SHARES
    assert len(begin(Scheduler([sized(str(n), 30) for n in range(9)], [card(0)]))) == 2
    assert len(begin(Scheduler([sized(str(n), 40) for n in range(9)], [card(0)]))) == 1


def test_a_stage_whose_need_is_not_known_has_a_card_of_its_own():
    it = Scheduler([sized("a", 1, 9.0), sized("unknown", None, 5.0), sized("b", 1)], [card(0)])
    assert list(begin(it)) == ["a"]
    it.finish("a", OK, 0.0)
    assert list(begin(it)) == ["unknown"]


def test_a_large_stage_waits_for_its_card_and_small_ones_behind_it_do_not_keep_it():
    it = Scheduler([sized("first", 10, 9.0), sized("large", 70, 5.0), sized("small", 10)], [card(0), card(1, 24)])
    assert begin(it) == {"first": "gpu 0", "small": "gpu 1"}
    it.finish("first", OK, 0.0)
    assert begin(it) == {"large": "gpu 0"}


def test_a_stage_larger_than_every_card_is_known_beforehand():
    it = Scheduler([sized("large", 90, least=81), sized("other", 90, least=80)], [card(0)])
    assert (it.is_misfit("large"), it.is_misfit("other")) == (True, False)


@pytest.mark.parametrize("seed", range(5))
def test_a_card_is_never_given_away_twice(seed):
    sizes = (1, 12, 18, 30, 45, 70, None)
    tasks = [sized(str(n), sizes[(n * 7 + seed) % 7], 1 + (n * 31 + seed) % 13) for n in range(60)]
    played = simulate(tasks, [card(0), card(1)])
    spans = [(at, played.ends[start.key], start) for at, start in played.starts]
    for at, _, _ in spans:
        for name in ("gpu 0", "gpu 1"):
            here = (start.shares for began, end, start in spans if began <= at < end and start.slot.name == name)
            assert sum(here) <= SHARES
    assert {outcome.phase for outcome in played.outcomes.values()} == {"done"}


def test_an_estimate_larger_than_every_card_is_tried_all_the_same():
    it = Scheduler([sized("large", 70, least=16)], [card(0, 24), card(1, 40)])
    assert not it.is_misfit("large")
    assert len(begin(it)) == 1


# others on the cards


def test_what_others_hold_is_left_alone_and_stages_go_to_another_card():
    it = Scheduler([sized(name, None) for name in "ab"], [card(0), card(1)])
    it.allocator.take({"gpu 0": 2})
    assert begin(it) == {"a": "gpu 1"}
    assert not it.is_over
    it.allocator.take({})
    assert begin(it) == {"b": "gpu 0"}


def test_a_small_stage_goes_beside_others():
    it = Scheduler([sized(name, 10) for name in "abcd"], [card(0)])
    it.allocator.take({"gpu 0": 2})
    assert len(begin(it)) == 2


def test_a_large_stage_that_waits_for_others_to_leave_keeps_no_small_one_waiting():
    it = Scheduler([sized("large", 60, 9.0), sized("small", 10)], [card(0)])
    it.allocator.take({"gpu 0": 2})
    assert begin(it) == {"small": "gpu 0"}
    it.allocator.take({})
    assert begin(it) == {}
    it.finish("small", OK, 0.0)
    assert begin(it) == {"large": "gpu 0"}


# what goes wrong


def test_out_of_a_cards_memory_a_stage_is_tried_alone_on_it_and_then_fails_with_advice():
    it = Scheduler([sized("a", 10, 9.0), sized("b", 10, 5.0)], [card(0)])
    assert len(begin(it)) == 2
    oom = Ending("oom", "out of memory with one row at a time")
    it.finish("a", oom, 0.0)
    assert begin(it, 100.0) == {}  # b is there
    it.finish("b", OK, 100.0)
    start = it.next_start(100.0)
    assert (start.key, start.shares) == ("a", SHARES)
    begin(it, 100.0)
    it.finish("a", oom, 100.0)
    assert phases(it) == {"a": "failed", "b": "done"}
    assert "a card with more memory" in oom.table.advice


@pytest.mark.parametrize("failure", ["memory", "oom"])
def test_out_of_the_machines_memory_fewer_stages_run_at_once(failure):
    it = Scheduler([sized(name, None) for name in "abcdef"], cpus(4))
    assert len(begin(it)) == 4
    it.finish("a", Ending(failure, "killed by SIGKILL: memory ran out"), 0.0)
    assert begin(it, 100.0) == {}
    it.finish("b", OK, 100.0)
    assert len(begin(it, 100.0)) == 1
    assert len(it.running) == 3


def test_a_card_that_fails_is_avoided_and_the_stage_runs_on_another():
    it = Scheduler([sized(name, None, 3.0 - number) for number, name in enumerate("abc")], [card(0), card(1)])
    assert begin(it) == {"a": "gpu 0", "b": "gpu 1"}
    it.finish("a", Ending("gpu_fault", "CUDA error: uncorrectable ECC error"), 0.0)
    assert begin(it) == {}
    it.finish("b", OK, 0.0)
    assert begin(it) == {"a": "gpu 1"}
    it.finish("a", OK, 0.0)
    assert begin(it) == {"c": "gpu 1"}
    it.finish("c", OK, 0.0)
    assert exit_code(it.outcomes.values()) == 0


def test_with_no_card_left_the_rest_is_stopped_and_not_failed():
    it = Scheduler([sized("a", None, 9.0), sized("b", None), sized("after", None, needs="b")], [card(0)])
    begin(it)
    it.finish("a", Ending("gpu_fault", "CUDA error: uncorrectable ECC error"), 0.0)
    assert it.is_over
    assert set(phases(it).values()) == {"stopped"}
    assert "gpu 0 is avoided" in it.outcomes["a"].message
    assert exit_code(it.outcomes.values()) == 75


def test_a_stage_that_fails_on_two_cards_is_itself_at_fault_and_the_cards_are_used_again():
    it = Scheduler([sized("bad", None, 9.0), *(sized(name, None) for name in "abcd")], [card(0), card(1)])
    fault = Ending("gpu_fault", "CUDA error: an illegal memory access was encountered")
    assert begin(it) == {"bad": "gpu 0", "a": "gpu 1"}
    it.finish("bad", fault, 0.0)
    it.finish("a", OK, 0.0)
    assert begin(it) == {"bad": "gpu 1"}
    it.finish("bad", fault, 0.0)
    assert phases(it)["bad"] == "failed"
    assert sorted(begin(it).values()) == ["gpu 0", "gpu 1"]


def test_a_disk_that_stays_full_stops_the_run_in_order_and_fails_nothing():
    it = Scheduler([sized(name, None) for name in "abc"], cpus(1))
    for number in range(7):  # the first try, and six more after 10, 20, ... 320 s
        assert begin(it, 1000.0 * number) == {"a": "cpu 0"}
        assert not it.is_over
        it.finish("a", Ending("nospace", "no space left in runs/"), 1000.0 * number)
    assert it.is_over
    assert phases(it) == {"a": "stopped", "b": "stopped", "c": "stopped"}
    assert it.outcomes["c"].message == "a stopped the study: no space left in runs/"
    assert exit_code(it.outcomes.values()) == 75


@pytest.mark.parametrize("num_kills", [1, 20])
def test_preemption_is_never_a_failure(num_kills):
    it = Scheduler([sized("a", None), sized("after", None, needs="a")], [card(0)])
    for number in range(num_kills):
        begin(it, 1000.0 * number)
        if it.running:
            it.finish("a", Ending("preempted", "asked to leave"), 1000.0 * number)
    assert not set(phases(it).values()) & {"failed", "blocked"}
    assert exit_code(it.outcomes.values()) == 75


@pytest.mark.parametrize(
    ("harmless", "num", "then"), [("preempted", 1, "oom"), ("nospace", 3, "killed"), ("lost", 2, "preempted")]
)
def test_one_sort_of_failure_uses_up_no_retry_of_another(harmless, num, then):
    it = Scheduler([sized("a", None)], [card(0)])
    for number in range(num + 1):
        begin(it, 1e4 * number)
        it.finish("a", Ending(harmless if number < num else then, "said"), 1e4 * number)
    assert phases(it) == {"a": "waiting"}


def test_a_chain_of_thousands_behind_a_failure_is_blocked():
    chain = [sized("0", None), *(sized(str(n), None, needs=str(n - 1)) for n in range(1, 5000))]
    it = Scheduler(chain, [card(0)])
    begin(it)
    it.finish("0", Ending("error", "it broke"), 0.0)
    assert it.is_over
    assert it.outcomes["4999"].message == "needs 0, which failed: it broke"


# costs corrected by what was measured


def test_what_was_measured_corrects_who_goes_first():
    slow, quick = [sized(f"slow{n}", None, 10.0, "distill") for n in "ab"], [sized("c", None, 15.0, "evaluate")]
    timing = Timing()
    timing.add("evaluate", 1.0, 1.0)
    it = Scheduler([*slow, sized("first", None, 20.0, "distill"), *quick], [card(0)], timing=timing)
    assert list(begin(it)) == ["first"]
    it.finish("first", OK, 0.0, seconds=60.0)
    assert list(begin(it)) == ["slowa"]  # 30 s now, and the evaluation 15


def test_one_number_a_kind_is_the_median_of_what_was_seen():
    timing = Timing()
    for measured in (2.0, 3.0, 400.0):
        timing.add("distill", 1.0, measured)
    assert timing.ratio("distill") == 3.0


def test_a_kind_that_was_not_measured_goes_like_the_others_but_not_like_a_download():
    timing = Timing()
    assert timing.ratio("evaluate") == 1.0
    timing.add("fetch", 3.0, 600.0)
    assert (timing.ratio("fetch"), timing.ratio("evaluate")) == (200.0, 1.0)
    timing.add("distill", 10.0, 5.0)
    assert timing.ratio("evaluate") == 0.5
