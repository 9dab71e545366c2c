"""One family a page: how often a page of equal recipes says that anything differs, and what the correction costs."""

import numpy as np
import pytest
from support.pages import drawn, page, verdicts

from ablate.results.page_family import Compared

CLAIMS = {"better", "worse", "suggestive"}
SETTINGS = [
    pytest.param({"num_seeds": 3, "seed_sd": 0.1}, id="three seeds"),
    pytest.param({"num_seeds": 3, "seed_sd": 0.0}, id="three seeds without noise"),
    pytest.param({"num_seeds": 1, "seed_sd": 0.0}, id="one seed without noise"),
]


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    return page(tmp_path_factory.mktemp("page"))


def false_news(tutorial, num, **options):
    """-> the share of pages that say anything, where no row differs from any other."""
    draw = np.random.default_rng(19)
    pages = (verdicts(*drawn(tutorial, draw, **options)) for _ in range(num))
    return sum(not CLAIMS.isdisjoint(page.values()) for page in pages) / num


@pytest.mark.parametrize("options", [SETTINGS[0], SETTINGS[2]])
def test_a_page_of_equal_recipes_hardly_ever_says_that_anything_differs(tutorial, options):
    assert false_news(tutorial, 80, **options) <= 0.125  # 4 of 80 are to be expected, over 10 once in 500 times


@pytest.mark.soak
@pytest.mark.parametrize("options", SETTINGS)
def test_of_2000_pages_of_equal_recipes_at_most_5_in_100_say_that_anything_differs(tutorial, options):
    share = false_news(tutorial, 2000, **options)
    print(f"{options}: {share:.4f}")
    assert share <= 0.05 + 2 * 0.0049


def test_what_differs_clearly_is_news_in_every_table_and_nothing_else_is(tutorial):
    ablations, of_page = drawn(tutorial, np.random.default_rng(1), shift={0: 2.0}, num_seeds=3)
    with_control = {one.key for ablation in ablations for one in ablation.with_control}
    page_verdicts = verdicts(ablations, of_page)
    assert {page_verdicts[key] for key in with_control} == {"worse"}
    assert CLAIMS.isdisjoint(word for key, word in page_verdicts.items() if key not in with_control)


def only(page, *, is_primary=True, has_own=True):
    """-> the page without other metrics, or without contrasts of its own."""
    ablations = [
        Compared(
            [one for one in own if has_own and (one.metric in page.primary or not is_primary)],
            [one for one in with_control if one.metric in page.primary or not is_primary],
        )
        for own, with_control in page.ablations
    ]
    return page._replace(ablations=ablations)


@pytest.mark.parametrize(
    ("asked", "shares"),
    [
        ({}, {"own": 2 / 3, "control": 1 / 3}),
        ({"has_own": False}, {"control": 1}),
        ({"is_primary": False}, {"own": 1 / 2, "control": 1 / 4, "other": 1 / 4}),
        ({"is_primary": False, "has_own": False}, {"control": 1 / 2, "other": 1 / 2}),
    ],
)
def test_the_share_of_a_part_without_comparisons_is_the_others(tutorial, asked, shares):
    _, of_page = drawn(only(tutorial, **asked), np.random.default_rng(2), num_seeds=1)
    assert {part.name: part.share for part in of_page.parts} == pytest.approx(shares)
    assert sum(part.size for part in of_page.parts) == of_page.size


def test_each_ablation_has_an_equal_share_of_what_the_questions_have(tutorial):
    """One contrast of an ablation of two rows is tested at the level at which four of a longer one are together."""
    ablations, of_page = drawn(tutorial, np.random.default_rng(3), num_seeds=1)
    spent = [
        {
            one.key: (1 - of_page.levels[one.key]) / of_page.alpha
            for one in ablation.own
            if one.metric in of_page.primary
        }
        for ablation in ablations
    ]
    assert [len(one) for one in spent] == [1, 3, 4, 4, 2]
    assert [sum(one.values()) for one in spent] == pytest.approx([0.1] * 5)


def test_intervals_of_a_page_hold_together_better_than_each_for_itself_and_no_wider_than_bonferronis(tutorial):
    _, of_page = drawn(tutorial, np.random.default_rng(4), num_seeds=3)
    assert 0.045 <= of_page.alpha <= 0.12
    assert all(level >= 0.95 for level in of_page.levels.values())
