"""The answer over an ablation, in every situation that there are words for: golden sentences, read aloud once."""

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
import yaml
from support.paths import GOLDEN
from support.situations import (
    ALONE,
    BOTH,
    LOSSES,
    PAIRS,
    PERPLEXITY,
    RATES,
    RATIOS,
    SWAG,
    TEACHERS,
    TRUTH,
    Builder,
    begun,
)

from ablate.report.findings_text import answers_from, headline_from
from ablate.results.marks import Mark

SENTENCES = GOLDEN / "words.yaml"
TEACHER, STUDENT, RATE, RATIO, LOSS = (f"distill.{name}" for name in ("teacher", "student", "lr", "kd_ratio", "loss"))
SITUATIONS: dict[str, Callable] = {}


def situation(*ablation, **more):
    def register(fill):
        SITUATIONS[fill.__name__.replace("_", " ")] = lambda root: _filled(begun(root, *ablation, **more), fill)
        return fill

    return register


def _filled(builder: Builder, fill):
    fill(builder)
    return builder.facts()


def teacher(one: Builder, *numbers, verdict, **more):
    one.effect("levels", TEACHER, "finetuned", "baseline", numbers, verdict, **more)


@situation(TEACHERS)
def one_seed_ahead(one):
    teacher(one, 16.3, 6.1, 26.4, verdict="suggestive")
    one.recovers(one.row(teacher="finetuned"), 93, 70, 118)
    one.against(one.row(teacher="baseline"), (0, -17, 17), "inconclusive")
    one.against(one.row(teacher="finetuned"), (16.3, 6.1, 26.4), "suggestive")


@situation(TEACHERS)
def ahead_but_not_told_from_the_control(one):
    teacher(one, 16.3, 6.1, 26.4, verdict="suggestive")
    one.recovers(one.row(teacher="finetuned"), 93, 70, 118)
    one.against(one.row(teacher="baseline"), (-10, -27, 7), "inconclusive")
    one.against(one.row(teacher="finetuned"), (6.3, -6.1, 18.4), "inconclusive")


@situation(TEACHERS)
def one_seed_unclear(one):
    teacher(one, 3, -3, 9, verdict="inconclusive")
    one.against(one.row(teacher="baseline"), (0, -17, 17), "inconclusive")
    one.against(one.row(teacher="finetuned"), (3, -3, 9), "inconclusive")


@situation(TEACHERS)
def three_seeds_better_by_every_metric(one):
    teacher(one, 4.2, 1.1, 7.3, verdict="better")
    teacher(one, 2.2, 0.4, 4, verdict="better", metric=SWAG)
    one.against(one.row(teacher="finetuned"), (4.2, 1.1, 7.3), "better")
    one.against(one.row(teacher="baseline"), (4.2, 1.1, 7.3), "better")


@situation(TEACHERS)
def three_seeds_worse_and_better_elsewhere(one):
    teacher(one, -12, -20.2, -3.8, verdict="worse")
    teacher(one, 5, 1, 9, verdict="better", metric=SWAG)
    one.against(one.row(teacher="finetuned"), (-12, -20, -4), "worse")
    one.against(one.row(teacher="baseline"), (0.4, -8, 8), "inconclusive")


@situation(TEACHERS)
def three_seeds_equivalent(one):
    teacher(one, 0.1, -0.9, 1.1, verdict="equivalent")


@situation(TEACHERS)
def a_lead_of_less_than_a_point(one):
    teacher(one, 0.64, 0.04, 1.24, verdict="better")


@situation(TEACHERS, metric=PERPLEXITY)
def lower_is_better_and_it_falls(one):
    teacher(one, -0.82, -1.14, -0.5, verdict="better", metric=PERPLEXITY)


@situation(TEACHERS, metric=PERPLEXITY)
def lower_is_better_and_it_is_unclear(one):
    teacher(one, -0.1, -0.5, 0.3, verdict="inconclusive", metric=PERPLEXITY)


@situation(TEACHERS)
def too_few_questions(one):
    teacher(one, 16, float("nan"), float("nan"), verdict="inconclusive")


@situation(RATES)
def the_best_rate_is_the_default(one):
    one.effect("trend", RATE, 2e-2, 1e-4, (2, -8, 12), "inconclusive")
    one.effect("best", RATE, 1e-3, 4e-3, (-32.1, -44, -20.2), "suggestive", tried=3)
    one.recovers(one.row(lr=4e-3), 93, 70, 118)
    one.against(one.row(lr=2e-2), (-57, -76, -38), "suggestive")
    one.against(one.row(lr=4e-3), (16, 5, 27), "suggestive")
    one.against(one.row(lr=1e-3), (-16, -31, -1), "suggestive")
    one.against(one.row(lr=1e-4), (-29, -50, -10), "suggestive")
    one.marks.append(Mark(one.row(lr=2e-2), "collapsed", TRUTH, 0.2, 0.479, one.ablation.rows[2]))


@situation(RATES)
def the_best_rate_is_at_the_edge(one):
    one.effect("best", RATE, 2e-2, 4e-3, (8, 2, 14), "better", tried=3)
    one.effect("trend", RATE, 2e-2, 1e-4, (20, 12, 28), "better")


@situation(RATES)
def elsewhere_is_told_of_the_contrast_that_answers_and_not_of_the_trend(one):
    one.effect("trend", RATE, 2e-2, 1e-4, (24, 14, 34), "better")
    one.effect("best", RATE, 2e-2, 4e-3, (12, 5, 19), "better", tried=3)
    one.effect("trend", RATE, 2e-2, 1e-4, (-25, -34, -16), "worse", metric=SWAG)
    one.effect("best", RATE, 2e-2, 4e-3, (3, 1, 5), "better", metric=SWAG, tried=3)


@situation(RATES)
def the_default_does_best_and_the_next_leads_elsewhere(one):
    one.effect("best", RATE, 1e-3, 4e-3, (-12, -19, -5), "worse", tried=3)
    one.effect("best", RATE, 1e-3, 4e-3, (3, 1, 5), "better", metric=SWAG, tried=3)


@situation(RATIOS)
def a_trend_that_is_bent_elsewhere(one):
    one.effect("trend", RATIO, 1.0, 0.25, (12, 3, 21), "better")
    one.effect("trend", RATIO, 1.0, 0.25, (11, 3, 19), "better", metric=SWAG)
    one.bent = one.effects[1:]


@situation(RATES)
def no_rate_stands_out(one):
    one.effect("trend", RATE, 2e-2, 1e-4, (2, -8, 12), "inconclusive")
    one.effect("best", RATE, 1e-3, 4e-3, (1, -4.2, 6.2), "inconclusive", tried=3)


@situation(RATES)
def another_rate_does_as_well(one):
    one.effect("best", RATE, 1e-3, 4e-3, (0.1, -0.7, 0.9), "equivalent", tried=3)


@situation(RATIOS)
def a_trend_alone(one):
    one.effect("trend", RATIO, 1.0, 0.25, (12, 3, 21), "better")


@situation(RATIOS)
def a_falling_trend_where_no_value_beats_the_default(one):
    one.effect("best", RATIO, 0.25, 0.5, (3, -4, 10), "inconclusive", tried=3)
    one.effect("trend", RATIO, 1.0, 0.25, (-12, -21, -3), "worse")


@situation(RATIOS)
def a_trend_and_two_values_of_which_one_is_the_best(one):
    one.effect("best", RATIO, 1.0, 0.75, (-0.4, -6.1, 5.3), "inconclusive", tried=3)
    one.effect("trend", RATIO, 1.0, 0.25, (14.4, 2.1, 26.7), "suggestive")
    one.may_be_best(one.row(kd_ratio=0.75), one.row(kd_ratio=1.0))


@situation(RATIOS)
def a_falling_trend_and_two_values_of_which_one_is_the_best(one):
    one.effect("best", RATIO, 0.25, 0.5, (3, -4, 10), "inconclusive", tried=3)
    one.effect("trend", RATIO, 1.0, 0.25, (-12, -21, -3), "worse")
    one.may_be_best(one.row(kd_ratio=0.25), one.row(kd_ratio=0.5))


@situation(RATES)
def no_trend_and_two_rates_of_which_one_is_the_best(one):
    one.effect("trend", RATE, 2e-2, 1e-4, (2, -8, 12), "inconclusive")
    one.effect("best", RATE, 1e-3, 4e-3, (1, -4.2, 6.2), "inconclusive", tried=3)
    one.may_be_best(one.row(lr=4e-3), one.row(lr=1e-3))


@situation(RATIOS)
def every_value_may_be_the_best(one):
    one.effect("best", RATIO, 0.75, 0.5, (3, -4, 10), "inconclusive", tried=3)
    one.may_be_best(*one.distilled)


@situation(RATIOS)
def the_control_may_be_the_best_too(one):
    one.effect("best", RATIO, 0.75, 0.5, (3, -4, 10), "inconclusive", tried=3)
    one.may_be_best(one.row(kd_ratio=0.75), one.row(kd_ratio=0.5), one.ablation.control_of(one.distilled[0].row))


@situation(RATIOS)
def a_trend_that_is_bent(one):
    one.effect("trend", RATIO, 1.0, 0.25, (12, 3, 21), "better")
    one.effect("best", RATIO, 0.75, 0.5, (3, -4, 10), "inconclusive", tried=3)
    one.bent = one.effects[:1]


@situation(RATIOS)
def a_clear_trend_that_is_bent_without_a_default(one):
    one.effect("trend", RATIO, 1.0, 0.25, (12, 3, 21), "better")
    one.bent = one.effects[:1]


@situation(RATIOS)
def an_unclear_trend_that_is_bent_without_a_default(one):
    one.effect("trend", RATIO, 1.0, 0.25, (2, -5, 9), "inconclusive")
    one.bent = one.effects[:1]


@situation(RATIOS)
def a_flat_axis_without_a_default(one):
    one.effect("trend", RATIO, 1.0, 0.25, (1, -5, 7), "inconclusive")


@situation(RATIOS)
def a_level_axis_without_a_default(one):
    one.effect("trend", RATIO, 1.0, 0.25, (0.1, -0.8, 0.9), "equivalent")


@situation(RATIOS)
def an_axis_of_too_few_questions(one):
    one.effect("trend", RATIO, 1.0, 0.25, (1, float("nan"), float("nan")), "inconclusive")


@situation(LOSSES)
def one_of_three_losses_is_ahead(one):
    one.effect("levels", LOSS, "reverse_kl", "forward_kl", (5, 1.2, 8.8), "better")
    one.effect("levels", LOSS, "jsd", "forward_kl", (1, -3, 5), "inconclusive")


@situation(LOSSES)
def the_loss_that_is_clearly_ahead_has_not_the_highest_score(one):
    one.effect("levels", LOSS, "reverse_kl", "forward_kl", (6, -2, 14), "inconclusive")
    one.effect("levels", LOSS, "jsd", "forward_kl", (4, 2, 6), "better")


@situation(LOSSES)
def two_of_three_losses_are_ahead(one):
    one.effect("levels", LOSS, "reverse_kl", "forward_kl", (5, 1.2, 8.8), "better")
    one.effect("levels", LOSS, "jsd", "forward_kl", (4, 1, 7), "better")


@situation(LOSSES)
def one_of_three_losses_is_behind(one):
    one.effect("levels", LOSS, "reverse_kl", "forward_kl", (-5, -8.8, -1.2), "worse")
    one.effect("levels", LOSS, "jsd", "forward_kl", (1, -3, 5), "inconclusive")


@situation(LOSSES)
def three_losses_are_equivalent(one):
    one.effect("levels", LOSS, "reverse_kl", "forward_kl", (0.1, -0.8, 0.9), "equivalent")
    one.effect("levels", LOSS, "jsd", "forward_kl", (0.1, -0.8, 0.9), "equivalent")


@situation(BOTH)
def two_settings_that_depend_on_each_other(one):
    teacher(one, 12, 6, 18, verdict="better")
    one.effect("levels", STUDENT, "finetuned", "baseline", (-3, -9, 3), "inconclusive")
    one.effect("interaction", (TEACHER, STUDENT), "finetuned", "baseline", (-8, -15, -1), "worse")


@situation(BOTH)
def two_settings_that_do_not(one):
    one.effect("levels", TEACHER, "finetuned", "baseline", (0.2, -0.6, 0.9), "equivalent")
    one.effect("levels", STUDENT, "finetuned", "baseline", (3, 1, 5), "better")
    one.effect("interaction", (TEACHER, STUDENT), "finetuned", "baseline", (0.2, -0.6, 0.9), "equivalent")


@situation(BOTH)
def two_settings_of_which_nothing_is_known(one):
    teacher(one, 2, -3, 7, verdict="inconclusive")
    one.effect("levels", STUDENT, "finetuned", "baseline", (-3, -9, 3), "inconclusive")
    one.effect("interaction", (TEACHER, STUDENT), "finetuned", "baseline", (1, -6, 8), "inconclusive")


@situation(BOTH)
def one_setting_of_two_is_asked_alone_elsewhere_and_clear_there(one):
    rows = [
        (one.row(teacher="finetuned", student="baseline"), 1.0),
        (one.row(teacher="baseline", student="baseline"), -1.0),
    ]
    teacher(one, 16, 1, 31, verdict="suggestive")
    one.elsewhere.append(replace(one.effects.pop(), rows=rows))
    teacher(one, 12, -4, 28, verdict="inconclusive")
    one.effect("levels", STUDENT, "finetuned", "baseline", (-3, -11, 5), "inconclusive")
    one.effect("levels", STUDENT, "finetuned", "baseline", (-12, -21, -3), "suggestive", metric=SWAG)
    one.effect("interaction", (TEACHER, STUDENT), "finetuned", "baseline", (-8, -18, 2), "inconclusive")


@situation(BOTH)
def one_setting_of_two_is_asked_alone_elsewhere_and_clear_here_too(one):
    teacher(one, 12, 4, 20, verdict="better")
    one.elsewhere.append(one.effects[0])
    one.effect("levels", STUDENT, "finetuned", "baseline", (3, 1, 5), "better")


@situation({"grid": {TEACHER: ["baseline", "finetuned"], LOSS: ["forward_kl", "reverse_kl", "jsd"]}})
def a_grid_with_three_losses(one):
    teacher(one, 12, 6, 18, verdict="better")
    one.effect("levels", LOSS, "reverse_kl", "forward_kl", (5, 1.2, 8.8), "better")
    one.effect("levels", LOSS, "jsd", "forward_kl", (1, -3, 5), "inconclusive")


@situation(TEACHERS)
def the_gap_is_refused(one):
    teacher(one, 16, 6, 26, verdict="better")
    one.recovers(one.row(teacher="finetuned"), why="the teacher is not ahead of the student alone")


@situation(TEACHERS)
def more_than_the_whole_gap(one):
    teacher(one, 16, 6, 26, verdict="better")
    one.recovers(one.row(teacher="finetuned"), 104, 82, 131)


@situation(PAIRS)
def several_pairs(one):
    teacher(one, 16, 6, 26, verdict="better", pair="llama")
    teacher(one, 1, -4, 6, verdict="inconclusive", pair="qwen2")


@situation({"rows": [{"label": "ours", "settings": {RATE: 1e-3}}, {"label": "theirs", "settings": {RATE: 1e-4}}]})
def a_contrast_that_the_study_states(one):
    one.effect("stated", (), "ours", "theirs", (3, 1, 5), "better")
    one.against(one.distilled[0], (3, 1, 5), "better")
    one.against(one.distilled[1], (0, -2, 2), "inconclusive")


@situation(ALONE)
def a_control_only(one):
    one.against(one.distilled[0], (-11.7, -22.2, -1.1), "suggestive")


@situation(ALONE)
def a_control_only_and_unclear(one):
    one.against(one.distilled[0], (2, -5, 9), "inconclusive")


@situation(RATES)
def a_row_that_cannot_be_compared_and_one_that_diverged(one):
    one.effect("best", RATE, 1e-3, 4e-3, (5, 1, 9), "better", tried=2)
    one.against(one.row(lr=1e-4), (0, 0, 0), "not comparable", "other batch size")
    one.marks.append(Mark(one.row(lr=2e-2), "diverged"))
    one.marks.append(Mark(one.row(lr=4e-3), "over-fitted", None, 1.61, 1.2, one.ablation.rows[3]))
    one.marks.append(Mark(one.row(lr=1e-3), "chance", TRUTH, 0.251, 0.25))


@situation(RATES)
def many_rows_guess(one):
    one.effect("best", RATE, 1e-3, 4e-3, (1, -4.2, 6.2), "inconclusive", tried=3)
    one.marks += [Mark(row, "chance", SWAG, 0.251, 0.25) for row in one.distilled]
    one.marks.append(Mark(one.row(lr=2e-2), "diverged", None, 1.7, 0.4))
    one.marks.append(Mark(one.row(lr=2e-2), "collapsed", TRUTH, 0.2, 0.479, one.ablation.rows[2]))


@situation(RATES, num_done=6)
def half_of_it_is_done(one):
    one.effect("best", RATE, 2e-2, 4e-3, (5, 1, 9), "better", tried=1)


@situation(RATES, num_done=0)
def nothing_is_done(one):
    pass


@situation(RATES)
def done_and_nothing_can_be_compared(one):
    pass


@pytest.fixture(scope="module")
def golden():
    return yaml.safe_load(SENTENCES.read_text()) if SENTENCES.exists() else {}


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_situation_is_put_into_the_words_that_were_read_aloud(name, tmp_path, golden):
    facts = SITUATIONS[name](tmp_path)
    spoken = {"headline": headline_from(facts), "answers": answers_from(facts)}
    if os.environ.get("GOLDEN") == "write":
        SENTENCES.write_text(yaml.safe_dump({**golden, name: spoken}, sort_keys=False, width=200, allow_unicode=True))
        golden[name] = spoken
    assert spoken == golden[name]
