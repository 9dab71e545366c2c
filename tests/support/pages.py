"""Whole pages of comparisons over generated scores: the comparisons are those of a real study, scores are drawn."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ablate.results.collect import collect
from ablate.results.comparisons import compared_in
from ablate.results.page_family import Compared, Family, family
from ablate.results.paired import linear, weighted
from ablate.results.verdicts import verdict
from support.report_study import bench
from support.samples import generated

RATES = [3e-3, 1e-3, 3e-4, 1e-5]
ABLATIONS = {
    "teacher": {"grid": {"distill.teacher": ["baseline", "finetuned"]}},
    "student": {"grid": {"distill.teacher": ["baseline", "finetuned"], "distill.student": ["baseline", "finetuned"]}},
    "rate": {"grid": {"distill.lr": RATES}},
    "ratio": {"grid": {"distill.kd_ratio": [0.25, 0.5, 0.75, 1.0]}},
    "loss": {"grid": {"distill.loss": ["forward_kl", "reverse_kl", "jsd"]}},
}
"""As the tutorial has it: its own recipe stands in each of them."""
DELTA = 0.01


class Page(NamedTuple):
    """What the ablations of a study compare, by three metrics on questions of their own."""

    ablations: list[Compared]
    primary: frozenset
    rows: list[tuple[str, ...]]
    """Each by the keys of its cells; the control first."""


def page(root, ablations=ABLATIONS):
    """-> a page whose comparisons are there, and whose scores are yet to be drawn."""
    study = bench(root, ablations=ablations, report={"primary": "truthfulqa_mc2/acc"})
    study.commit(*{cell.evaluate.key: cell for cell in study.plan().cells}.values())
    results = collect(study.plan())
    kept = {metric for metric in results.ablations[0].columns if metric.name == "acc"}
    compared = [
        Compared(
            *(
                [one.comparison for one in some if one.comparison.metric in kept]
                for some in (all_.own, all_.with_control)
            )
        )
        for all_ in (compared_in(results, ablation) for ablation in results.ablations)
    ]
    of_control = {
        cells_of(row) for ablation in compared for one in ablation.with_control for row, w in one.rows if w < 0
    }
    rows = {
        cells_of(row) for ablation in compared for one in (*ablation.own, *ablation.with_control) for row, _ in one.rows
    }
    return Page(compared, frozenset({results.ablations[0].primary}), [*of_control, *sorted(rows - of_control)])


def cells_of(row):
    return tuple(cell.cell.evaluate.key for cell in row.done)


def drawn(one, draw, *, shift=None, **options) -> tuple[list[Compared], Family]:
    """-> the page with scores of rows that are all the same recipe, and its family.

    `shift`: number of a row -> what its every score is moved by; `options`: of `generated`.
    """
    metrics = dict.fromkeys(c.metric for ablation in one.ablations for c in (*ablation.own, *ablation.with_control))
    scores = {metric: generated(draw, num_rows=len(one.rows), **options) for metric in metrics}
    for some in scores.values() if shift else ():
        for number, by in shift.items():
            some.rows[number] = some.rows[number] + by
    number_of = {cells: number for number, cells in enumerate(one.rows)}
    known = {}
    ablations = [
        Compared(
            *(
                [_measured(comparison, scores[comparison.metric], number_of, known) for comparison in some]
                for some in ablation
            )
        )
        for ablation in one.ablations
    ]
    return ablations, family(ablations, one.primary)


def _measured(comparison, scores, number_of, known):
    if comparison.key not in known:
        used = [(number_of[cells_of(row)], w) for row, w in comparison.rows if w]
        arms, weights = [scores.rows[number] for number, _ in used], [w for _, w in used]
        contrast = linear(arms, weights, scores.group_N, True, [True] * len(arms))
        sums_G = np.bincount(scores.group_N, weighted(arms, weights))
        known[comparison.key] = replace(comparison, contrast=contrast, sums_G=sums_G, group_N=scores.group_N)
    return known[comparison.key]


def verdicts(ablations, of_page):
    """-> key of each comparison -> its verdict, as the page has it."""
    every = {one.key: one for ablation in ablations for one in (*ablation.own, *ablation.with_control)}
    return {
        key: verdict(one.contrast, of_page.p_holm[key], DELTA, level=of_page.levels[key]) for key, one in every.items()
    }
