"""What three seeds would show of a study that has one, as simulated ones of three show it, and what they cost."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student
from support.report_study import Work, bench
from support.scored_cells import commit_losses, commit_scores

from ablate.planning.plan import Cell
from ablate.results.collect import collect
from ablate.results.more_seeds import more_seeds
from ablate.results.paired import Aligned, contrast
from ablate.results.verdicts import findings_of
from ablate.store.stage import Stage

RATES = {"one": {"title": "Rates", "grid": {"distill.lr": [1e-3, 3e-4]}}}
NUM = 600


def scored(draw, hard_N, share):
    """-> 0/1 scores of one training, alike over models for their questions are."""
    return (0.8 * hard_N + 0.6 * draw.normal(size=NUM) < share).astype(float)


def one_seed(tmp_path, replicates=0, seeds=(0,), seed_sd=0.0):
    """-> results of a study; `replicates`: further trainings of its control."""
    study = bench(tmp_path, seeds=list(seeds), ablations=RATES)
    plan = replace(study.plan(), cells=(*study.plan().cells, *_replicates(study, replicates)))
    draw = np.random.default_rng(2)
    hard_N = draw.normal(size=NUM)
    for cell in plan.cells:
        commit_scores(study, cell, {"hellaswag": {"acc": scored(draw, hard_N, 0.2 + seed_sd * draw.normal())}})
        if cell.trained and not study.store.done(cell.trained):
            commit_losses(study, cell, [1.0] * 30)
    return collect(plan)


def _replicates(study, num):
    control = next(cell for cell in study.plan().cells if cell.row.name == "student/finetuned")
    again = replace(control.row, name=f"{control.row.name}/replicate")
    for seed in range(1, num + 1):
        trained = Stage("finetune", 1, Work(name="student", seed=seed), control.trained.inputs)
        asked = Stage("evaluate", 1, Work(name="evaluate"), control.evaluate.inputs | {"adapter_0": trained})
        yield Cell(again, seed, asked, trained)


def test_a_study_of_several_seeds_or_without_a_score_asks_nothing(tmp_path):
    assert more_seeds(one_seed(tmp_path / "several", seeds=(0, 1, 2))) is None
    assert more_seeds(collect(bench(tmp_path / "empty", ablations=RATES).plan())) is None


def test_without_replicates_it_is_what_question_noise_alone_would_hide_at_the_level_of_the_page(tmp_path):
    results = one_seed(tmp_path)
    more = more_seeds(results)
    assert (more.seeds, more.trainings) == (3, 0)
    findings = findings_of(results, results.ablations[0]).all
    seen = [_seen_at_80_percent(one.contrast.se, (one.high - one.low) / 2) for one in findings]
    assert more.visible == pytest.approx(np.median(seen), rel=0.02)


def _seen_at_80_percent(se, half_width):
    """-> the difference that 80 % of drawn estimates tell from 0."""
    return half_width - np.quantile(se * np.random.default_rng(1).standard_t(NUM - 1, size=200_000), 0.2)


def test_with_replicates_80_percent_of_simulated_studies_of_three_seeds_see_that_difference(tmp_path):
    results = one_seed(tmp_path, replicates=24, seed_sd=0.1)
    more = more_seeds(results)
    assert more.trainings == 25
    without = more_seeds(one_seed(tmp_path / "without", seed_sd=0.1))
    assert more.visible > 1.5 * without.visible
    (finding, *_) = findings_of(results, results.ablations[0]).all
    t_page = (finding.high - finding.low) / 2 / finding.contrast.se
    level = 2 * student.cdf(t_page, finding.contrast.df) - 1
    draw, num_seen = np.random.default_rng(0), 0
    for _ in range(400):
        hard_N = draw.normal(size=NUM)
        arms = [np.stack([scored(draw, hard_N, 0.2 + 0.1 * draw.normal()) for _ in range(3)]) for _ in range(2)]
        one = contrast(Aligned(*arms, np.arange(NUM), False))
        num_seen += abs(one.value + more.visible) > one.half_width(level)
    # the noise of 25 trainings is known to a seventh alone, and what three show of it varies
    assert num_seen / 400 == pytest.approx(0.8, abs=0.12)


def test_it_costs_what_this_seeds_own_trainings_and_evaluations_took_twice_more(tmp_path):
    """Three rows are trained anew for each seed, and asked; each stage took 90 s. Teacher and baselines stay."""
    assert more_seeds(one_seed(tmp_path)).seconds == 2 * (3 + 3) * 90


def test_what_is_not_done_yet_counts_as_the_mean_of_its_kind(tmp_path):
    study = bench(tmp_path, ablations=RATES)
    cells = [cell for cell in study.plan().cells if cell.row.name != "lr=0.0003"]
    study.commit(*cells)
    assert more_seeds(collect(study.plan())).seconds == 2 * (3 + 3) * 90
