"""One family a page: how often a page of equal recipes says that anything differs, and what the correction costs."""

import numpy as np
import pytest
from support.pages import drawn, page, verdicts

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


@pytest.mark.soak
@pytest.mark.parametrize("options", SETTINGS)
def test_of_2000_pages_of_equal_recipes_at_most_5_in_100_say_that_anything_differs(tutorial, options):
    share = false_news(tutorial, 2000, **options)
    print(f"{options}: {share:.4f}")
    assert share <= 0.05 + 2 * 0.0049
