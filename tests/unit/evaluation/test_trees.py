"""Trees of requests: each token of each request once, none of them lost, and nothing shared that is scored."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.evaluation import trees
from ablate.evaluation.trees import MIN_PREFIX, Request, build_forest

WINDOW = 30
LONG = tuple(range(MIN_PREFIX + 4))
tokens = st.integers(0, 2)
preambles = st.sampled_from([(), LONG[: MIN_PREFIX - 1], LONG])


@st.composite
def asked(draw):
    """-> requests with few tokens to choose from, so that much is shared: by a question and by all of them."""
    preamble = draw(preambles)
    contexts = draw(st.lists(st.lists(tokens, min_size=1, max_size=5), min_size=1, max_size=4))
    endings = st.lists(tokens, min_size=1, max_size=14)
    requests = []
    for question, context in enumerate(contexts):
        for ending in draw(st.lists(endings, min_size=1, max_size=6)):
            whole = (*preamble, *context, *ending)
            requests.append(Request(str(question), whole[-(WINDOW + 1) :][:-1], tuple(ending)))
    return draw(st.permutations(requests))


def paths(tree):
    """-> number of a request -> the nodes that its last token sees."""
    seen_TT = tree.visible()
    return {
        number: np.flatnonzero(seen_TT[read[-1]]) for number, read in zip(tree.requests, tree.scored_nodes, strict=True)
    }


def check(requests, forest):
    counts = Counter(number for tree in forest.trees for number in tree.requests)
    assert counts == Counter(range(len(requests)))
    for tree in forest.trees:
        for (number, path), read in zip(paths(tree).items(), tree.scored_nodes, strict=True):
            request = requests[number]
            assert forest.prefix + tuple(tree.ids[node] for node in path) == request.ids
            assert [tree.positions[node] for node in path] == list(range(len(forest.prefix), len(request.ids)))
            assert path[-len(request.continuation) :].tolist() == read.tolist()


def prefixes(requests, size):
    """-> everything that some request of a question begins with, after what all begin with."""
    return {
        (request.question, request.ids[:end]) for request in requests for end in range(size + 1, len(request.ids) + 1)
    }


@given(asked())
def test_every_request_can_be_read_off_its_tree(requests):
    check(requests, build_forest(requests))


@given(asked())
def test_no_token_is_run_twice(requests):
    forest = build_forest(requests)
    assert sum(map(len, forest.trees)) == len(prefixes(requests, len(forest.prefix)))


@given(asked())
def test_what_all_begin_with_holds_nothing_that_is_scored(requests):
    size = len(build_forest(requests).prefix)
    assert all(size <= request.num_context for request in requests)
    shared = min(len(request.ids) for request in requests)
    while len({request.ids[:shared] for request in requests}) > 1:
        shared -= 1
    possible = min(shared, *(request.num_context for request in requests))
    is_worth_it = possible >= MIN_PREFIX and len({request.question for request in requests}) > 1
    assert size == (possible if is_worth_it else 0)


@given(asked(), st.integers(1, 12))
def test_a_question_that_is_too_large_is_cut_and_nothing_else_changes(requests, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "MAX_NODES", most)
        forest = build_forest(requests)
    check(requests, forest)
    for tree in forest.trees:
        assert len(tree) <= most or len({requests[number].ids for number in tree.requests}) == 1


@given(asked())
def test_trees_come_widest_first_and_are_the_same_each_time(requests):
    forest = build_forest(requests)
    assert [len(tree) for tree in forest.trees] == sorted((len(tree) for tree in forest.trees), reverse=True)
    assert [tree.requests for tree in build_forest(requests).trees] == [tree.requests for tree in forest.trees]


def test_the_answers_of_one_question_by_hand():
    requests = [Request("q", (7, 8, *ending[:-1]), ending) for ending in [(1, 2, 3), (1, 2, 4), (5, 6), (9,)]]
    [tree] = build_forest(requests).trees
    assert (tree.ids, tree.positions) == ([7, 8, 1, 2, 5], [0, 1, 2, 3, 2])
    assert dict(zip(tree.requests, map(list, tree.scored_nodes), strict=True)) == {
        3: [1],
        0: [1, 2, 3],
        1: [1, 2, 3],
        2: [1, 4],
    }
    assert tree.visible().astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
