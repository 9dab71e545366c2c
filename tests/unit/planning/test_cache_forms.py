"""The form of a cache: what costs least, among all that is possible."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.planning.cache_forms import Group, Prices, cheapest, without_hidden

PRICES = Prices(body=10, head=1, vector=0.5)
FREE, NO_VECTOR = ("none", "vector", "hidden"), ("none", "hidden")


def group(ways=FREE, passes=1.0, share=1.0, num_bytes=0.0) -> Group:
    return Group((), ways, share, passes, None, dict.fromkeys(("vector", "hidden"), num_bytes))


def ways(*groups: Group, share: float = 1.0) -> list[str]:
    return [way for _, way in cheapest(groups, PRICES, share).ways]


def test_one_pass_has_the_teacher_beside_and_a_second_is_read_from_vectors():
    assert ways(group(passes=1)) == ["none"]
    assert ways(group(passes=2)) == ["vector"]


def test_hidden_states_are_paid_for_once_however_many_share_them():
    groups = [group(NO_VECTOR, passes=1), group(NO_VECTOR, passes=1)]
    assert ways(groups[0]) == ["none"]
    assert ways(*groups) == ["hidden", "hidden"]
    assert cheapest(groups, PRICES, 1.0).flops == 10 + 2 * 1


def test_few_of_the_rows_make_a_cheaper_cache():
    assert ways(group(passes=1, share=0.5)) == ["vector"]
    assert ways(group(NO_VECTOR, passes=1), share=0.5) == ["hidden"]


def test_what_can_do_with_hidden_states_alone_has_nothing_without():
    nothing = without_hidden([group(), group(("hidden",))], PRICES)
    assert nothing == (math.inf, ())


def test_of_two_that_cost_the_same_the_plainer_is_taken():
    assert [way for _, way in cheapest([group(passes=1)], Prices(1, 1, 0), 1.0).ways] == ["none"]


SLOW = PRICES._replace(student=8.0, write=3.0, read=2.0)


@pytest.mark.parametrize(
    ("num_bytes", "passes", "way", "flops"),
    [
        (0, 2, "vector", 11.5),
        (3, 2, "vector", 11.5),  # written in 9 while 11.5 are asked for, read in 6 while the student takes 8
        (5, 2, "vector", 15 + 2 * (10 - 8)),
        (7, 2, "none", 2 * 11),  # 21 to write, and 6 to wait for at each pass
        (7, 5, "vector", 21 + 5 * (14 - 8)),
        (12, 50, "none", 50 * 11),  # slower than the teacher at every single pass
    ],
)
def test_writing_and_reading_count_as_far_as_they_take_longer_than_what_is_computed_meanwhile(
    num_bytes, passes, way, flops
):
    one = group(("none", "vector"), passes=passes, num_bytes=num_bytes)
    (chosen,) = cheapest([one], SLOW, 1.0).ways
    assert (chosen[1], one.flops(way, SLOW)) == (way, flops)


NUMBERS = st.integers(0, 20).map(float)  # exact sums
GROUPS = st.builds(
    group, st.sampled_from([FREE, NO_VECTOR, ("none",), ("vector",), ("hidden",)]), NUMBERS, NUMBERS, NUMBERS
)
ALL_PRICES = st.builds(Prices, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS)


@given(st.lists(GROUPS, min_size=1, max_size=4), ALL_PRICES, NUMBERS)
def test_no_other_assignment_is_cheaper(groups, prices, share):
    def flops(chosen):
        written = max(one.kept["hidden"] for one in groups) * prices.write
        shared = max(prices.body, written) * share if "hidden" in chosen else 0.0
        return shared + sum(one.flops(way, prices) for one, way in zip(groups, chosen, strict=True))

    best = min(map(flops, itertools.product(*(one.ways for one in groups))))
    assert flops([way for _, way in cheapest(groups, prices, share).ways]) == best
