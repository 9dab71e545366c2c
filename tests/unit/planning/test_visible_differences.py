"""What a study's questions can show, before it is run."""

import math

import pytest
from support.small_plans import plan_of

from ablate.planning.visible_differences import smallest_visible_difference, visible_differences


def test_four_times_the_questions_show_half_the_difference():
    assert smallest_visible_difference(4000) == pytest.approx(smallest_visible_difference(1000) / 2)
    assert smallest_visible_difference(1000, correlation=0.5) == pytest.approx(2.8 * math.sqrt(0.25 / 1000))


def test_a_limit_counts_where_the_task_has_more_questions_and_stands_in_where_it_is_not_known(tmp_path):
    study = plan_of(tmp_path, "evaluate.tasks=[hellaswag, truthfulqa_mc2]", "evaluate.limit=900").study
    differences = visible_differences(study)
    assert differences == {
        "hellaswag": smallest_visible_difference(900),
        "truthfulqa_mc2": smallest_visible_difference(817),
    }


def test_a_task_of_unknown_size_is_left_out_without_a_limit(tmp_path):
    study = plan_of(tmp_path, "evaluate.tasks=[hellaswag, winogrande]").study
    assert list(visible_differences(study)) == ["hellaswag"]


def test_a_rehearsal_asks_sixteen(tmp_path):
    study = plan_of(tmp_path).study.model_copy(update={"rehearsal": True})
    assert visible_differences(study) == {"hellaswag": smallest_visible_difference(16)}
