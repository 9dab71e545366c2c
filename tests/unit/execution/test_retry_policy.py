"""How often and when a stage is tried again, and when a whole kind of stage is given up."""

import pytest

from ablate.core.failures import FAILURES, NUM_ALIKE, Ending
from ablate.execution.retry_policy import CircuitBreaker, RetryPolicy

LOST = Ending("network", "no answer")
KILLED = Ending("killed", "by somebody")


def tries(policy: RetryPolicy, ending: Ending, *, is_further: bool = False) -> int:
    """-> how often a stage that always ends so is tried again, at most 50 times."""
    for number in range(50):
        if not policy.may_retry("a", ending, is_further=is_further):
            return number
        policy.postpone("a", ending, 0.0)
    return 50


@pytest.mark.parametrize("failure", sorted(FAILURES))
def test_a_stage_is_tried_again_as_often_as_the_table_of_failures_says(failure):
    assert tries(RetryPolicy(), Ending(failure, "so it is")) == FAILURES[failure].num_retries


def test_tries_are_counted_anew_once_one_got_further():
    policy = RetryPolicy()
    assert tries(policy, KILLED) == 3
    assert policy.may_retry("a", KILLED, is_further=True)
    assert tries(policy, KILLED, is_further=True) == 50


def test_every_class_of_failure_has_its_own_count_and_so_has_every_stage():
    policy = RetryPolicy()
    tries(policy, KILLED)
    assert policy.may_retry("a", LOST, is_further=False)
    assert policy.may_retry("b", KILLED, is_further=False)


def test_each_wait_is_twice_as_long_as_the_one_before():
    policy, waits = RetryPolicy(), []
    while policy.may_retry("a", LOST, is_further=False):
        policy.postpone("a", LOST, 100.0)
        waits.append(policy.next_due_at - 100.0)
    assert waits == [1.0, 2.0, 4.0]


def test_a_postponed_stage_is_given_out_once_when_it_is_due():
    policy = RetryPolicy()
    policy.postpone("a", LOST, 0.0)
    assert (policy.take_due(0.99), policy.is_postponed("a")) == ([], True)
    assert (policy.take_due(1.0), policy.is_postponed("a")) == (["a"], False)
    assert (policy.take_due(1.0), policy.next_due_at) == ([], None)


def test_so_many_failures_alike_in_one_kind_trip_it_and_no_others():
    breaker = CircuitBreaker()
    for number in range(NUM_ALIKE - 1):
        assert not breaker.trips("distill", Ending("error", f"bad value {number} in /runs/{number}"))
        assert not breaker.trips("evaluate", Ending("error", f"bad value {number}"))
        assert not breaker.trips("distill", Ending("error", f"{'xyz'[number]} is another thing"))
    assert breaker.trips("distill", Ending("error", "bad value 77 in /elsewhere"))


@pytest.mark.parametrize("failure", [name for name, table in FAILURES.items() if not table.is_counted])
def test_what_is_not_counted_never_trips_it(failure):
    breaker = CircuitBreaker()
    assert not any(breaker.trips("distill", Ending(failure, "so it is")) for _ in range(9))
