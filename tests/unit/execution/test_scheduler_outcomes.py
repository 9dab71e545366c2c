"""What runs next, and what follows from failures: the scheduler without processes."""

import pytest

from ablate.core.failures import Ending
from ablate.execution.executors.base import environment
from ablate.execution.outcomes import Outcome, exit_code
from ablate.execution.scheduler import Scheduler
from ablate.execution.task_graph import Task
from ablate.machine.slots import Slot

HEAVY = frozenset({"heavy", "light"})
SLOTS = [Slot("a", HEAVY), Slot("b", HEAVY)]
OK, ERROR = Ending("ok", ""), Ending("error", "it broke")


def scheduler(*tasks, slots=SLOTS, **options):
    """Of tasks as (name, what it needs, cost), all of one kind."""
    all_tasks = [Task(name, "toy", name, "heavy", tuple(needs.split()), cost) for name, needs, cost in tasks]
    return Scheduler(all_tasks, slots, **options)


def begin(it, now=0.0):
    """Starts all that may start; -> their names."""
    started = []
    while start := it.next_start(now):
        it.run(start.key, start.slot.name)
        started.append(start.key)
    return started


def phases(it):
    return {key: outcome.phase for key, outcome in it.outcomes.items()}


def test_the_longest_remaining_path_goes_first():
    tasks = ("short", "", 1), ("long", "", 9), ("head", "", 2), ("tail", "head", 9)
    assert begin(scheduler(*tasks)) == ["head", "long"]


def test_no_more_run_than_there_are_slots_and_none_before_its_inputs():
    it = scheduler(("a", "", 1), ("b", "", 1), ("c", "", 1), ("d", "a b c", 5))
    assert begin(it) == ["a", "b"]
    it.finish("a", OK, 0.0)
    assert begin(it) == ["c"]
    it.finish("b", OK, 0.0)
    assert begin(it) == []
    it.finish("c", OK, 0.0)
    assert begin(it) == ["d"]


def test_a_card_that_a_cluster_assigns_is_a_card_though_its_slot_names_none():
    it = scheduler(("a", "", 1), slots=[Slot("job 0", HEAVY, "cuda"), Slot("job 1", HEAVY, "cuda")])
    first = it.next_start(0.0)
    it.run(first.key, first.slot.name)
    it.finish("a", Ending("gpu_fault", "it fell off the bus"), 0.0)
    second = it.next_start(0.0)
    assert second.slot != first.slot
    it.run(second.key, second.slot.name)
    it.finish("a", Ending("oom", "its memory is full"), 0.0)
    assert not it.allocator.is_full_of_heavy("local")  # that of the machine is not


@pytest.mark.parametrize(
    ("slot", "visible"),
    [
        (Slot("gpu 0", HEAVY, "cuda", "GPU-1"), "GPU-1"),
        (Slot("gpu 0", HEAVY, "cpu", "SOAK-1"), "SOAK-1"),
        (Slot("cpu 0", HEAVY), ""),
        (Slot("job 0", HEAVY, "cuda"), "GPU-of-this-job"),
    ],
)
def test_a_worker_sees_the_card_that_its_slot_names_or_that_was_assigned_to_it(slot, visible, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-of-this-job")
    assert environment({"slot": slot.record(), "is_online": True})["CUDA_VISIBLE_DEVICES"] == visible


def test_a_failure_blocks_only_what_depends_on_it():
    it = scheduler(("bad", "", 1), ("good", "", 1), ("after", "bad", 1), ("far", "after good", 1), ("fine", "good", 1))
    begin(it)
    it.finish("bad", ERROR, 0.0)
    it.finish("good", OK, 0.0)
    assert begin(it) == ["fine"]
    it.finish("fine", OK, 0.0)
    assert it.is_over
    assert phases(it) == {"bad": "failed", "good": "done", "after": "blocked", "far": "blocked", "fine": "done"}
    assert it.outcomes["far"].message == "needs bad, which failed: it broke"
    assert exit_code(it.outcomes.values()) == 1


def judged(name, *needs):
    return Task(name, "evaluate", name, "heavy", needs, 1.0, is_verdict=True)


def trained(name, *needs):
    return Task(name, "toy", name, "heavy", needs, 1.0)


def test_what_diverged_is_a_result_and_so_is_its_evaluation():
    it = Scheduler([trained("training"), judged("evaluation", "training")], SLOTS)
    begin(it)
    it.finish("training", Ending("diverged", "diverged at step 3"), 0.0)
    assert it.is_over
    assert it.outcomes["evaluation"] == Outcome("diverged", "diverged", "diverged at step 3")
    assert exit_code(it.outcomes.values()) == 0


def test_a_training_on_a_model_that_diverged_is_blocked_and_so_is_its_evaluation():
    tasks = [
        trained("below"),
        trained("on top", "below"),
        judged("its score", "below", "on top"),
        judged("own", "below"),
    ]
    it = Scheduler(tasks, SLOTS)
    begin(it)
    it.finish("below", Ending("diverged", "diverged at step 3"), 0.0)
    assert it.is_over
    assert phases(it) == {"below": "diverged", "on top": "blocked", "its score": "blocked", "own": "diverged"}
    assert it.outcomes["its score"].message == "needs below, which diverged at step 3"
    assert exit_code(it.outcomes.values()) == 1


def test_the_network_is_tried_again_after_1_2_and_4_seconds_and_then_given_up():
    it, lost = scheduler(("fetch", "", 1)), Ending("network", "no answer")
    for begun, due in ((0.0, 1.0), (1.0, 3.0), (3.0, 7.0)):
        assert begin(it, begun) == ["fetch"]
        it.finish("fetch", lost, begun)
        assert begin(it, due - 0.01) == []
    assert begin(it, 7.0) == ["fetch"]
    it.finish("fetch", lost, 7.0)
    assert phases(it) == {"fetch": "failed"}


def test_kills_are_survived_without_end_as_long_as_each_try_gets_further():
    it, killed = scheduler(("a", "", 1)), Ending("killed", "by somebody")
    for second in range(50):
        assert begin(it, second) == ["a"]
        it.finish("a", killed, second, is_further=True)
    for second in range(100, 400, 100):
        assert begin(it, second) == (["a"] if second < 400 else [])
        it.finish("a", killed, second)
    assert phases(it) == {"a": "failed"}


@pytest.mark.parametrize("failure", ["error", "denied", "missing", "missing_input", "mismatch"])
def test_what_would_fail_again_is_not_tried_again_in_the_same_run(failure):
    it = scheduler(("a", "", 1))
    begin(it)
    it.finish("a", Ending(failure, "so it is"), 0.0)
    assert it.is_over


def test_three_failures_alike_stop_their_kind():
    it = scheduler(*((f"t{number}", "", 1) for number in range(6)))
    for number in range(3):
        begin(it)
        it.finish(f"t{number}", Ending("error", f"bad value {number} in /runs/{number}"), 0.0)
    it.finish("t3", OK, 0.0)  # it was at work already
    assert it.is_over
    assert list(phases(it).values()) == ["failed", "failed", "failed", "done", "blocked", "blocked"]
    assert "3 toy stages failed alike" in it.outcomes["t5"].message


def test_three_failures_unlike_each_other_stop_nothing():
    it = scheduler(*((f"t{number}", "", 1) for number in range(4)), slots=SLOTS[:1])
    for number, why in enumerate(("this", "that", "something else")):
        begin(it)
        it.finish(f"t{number}", Ending("error", why), 0.0)
    assert begin(it) == ["t3"]


def test_keep_going_starts_all_the_same():
    it = scheduler(*((f"t{number}", "", 1) for number in range(5)), slots=SLOTS[:1], is_keep_going=True)
    for number in range(5):
        assert begin(it) == [f"t{number}"]
        it.finish(f"t{number}", ERROR, 0.0)


def test_online_and_light_work_takes_no_card():
    tasks = [Task(work, work, work, work, (), 1.0) for work in ("online", "light", "heavy")]
    tasks.append(Task("heavy too", "heavy", "heavy too", "heavy", (), 1.0))
    slots = [
        Slot("net", frozenset({"online"})),
        Slot("cpu", frozenset({"light"})),
        Slot("gpu", frozenset({"heavy"}), "cuda", "GPU-1"),
    ]
    it = Scheduler(tasks, slots)
    assert sorted(begin(it)) == ["heavy", "light", "online"]
    it.finish("online", OK, 0.0)
    it.finish("light", OK, 0.0)
    assert begin(it) == []


def test_once_halted_nothing_starts_and_the_rest_can_go_on_later():
    it = scheduler(("a", "", 1), ("b", "a", 1))
    begin(it)
    it.halt()
    it.finish("a", Ending("cancelled", "stopped"), 0.0)
    assert it.is_over
    assert exit_code(it.outcomes.values()) == 75
