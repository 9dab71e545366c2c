"""The form of a cache: what costs least, among all that is possible."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from ablate.planning.cache_forms import Group, Prices, cheapest, without_hidden

PRICES = Prices(body=10, head=1, vector=0.5)
FREE, NO_VECTOR = ("none", "vector", "hidden"), ("none", "hidden")


def group(ways=FREE, passes=1.0, share=1.0) -> Group:
    return Group((), ways, share, passes)


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


NUMBERS = st.integers(0, 20).map(float)  # exact sums
GROUPS = st.builds(group, st.sampled_from([FREE, NO_VECTOR, ("none",), ("vector",), ("hidden",)]), NUMBERS, NUMBERS)


@given(st.lists(GROUPS, min_size=1, max_size=4), st.builds(Prices, NUMBERS, NUMBERS, NUMBERS), NUMBERS)
def test_no_other_assignment_is_cheaper(groups, prices, share):
    def flops(chosen):
        shared = prices.body * share if "hidden" in chosen else 0.0
        return shared + sum(one.flops(way, prices) for one, way in zip(groups, chosen, strict=True))

    best = min(map(flops, itertools.product(*(one.ways for one in groups))))
    assert flops([way for _, way in cheapest(groups, prices, share).ways]) == best
