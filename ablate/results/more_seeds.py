"""What more training seeds would show of a study that has one, and what they would cost."""

import math
from collections.abc import Iterable, Iterator
from statistics import fmean, median
from typing import Any, NamedTuple

import numpy as np

from ablate.planning.timing import measured_s
from ablate.results.aligned_rows import align_rows
from ablate.results.collect import AblationResult, CellResult, Results, RowResult
from ablate.results.paired import LEAST_SEED_SHARE, SEED_WEIGHT, Contrast, residual, t_tail
from ablate.results.verdicts import Finding, findings_of
from ablate.store.stage import Stage

SEEDS = 3
POWER = 0.8
DRAWS = 400
HALVINGS = 50


class Noise(NamedTuple):
    """Of training, as a recipe that was trained several times shows it."""

    variance: float
    """Of one training's score."""
    trainings: int
    """That it is estimated from; 0: none was, and the variance counts as 0."""


class MoreSeeds(NamedTuple):
    """Of the primary metric."""

    seeds: int
    """All of them, the one that there is too."""
    visible: float
    """The smallest difference that would be seen with 80 % power."""
    seconds: float
    """Device time of the further trainings and evaluations."""
    trainings: int
    """From how many trainings of the control the noise of training is estimated. 0: `visible` holds the noise of
    questions alone, and is the least that could be seen, were training without noise."""


def more_seeds(results: Results) -> MoreSeeds | None:
    """-> None where the study has several seeds, or nothing was measured yet.

    visible: the median over distilled rows of the difference to the control that 80 % of such studies tell from none
    at the page's level, where SE^2 = V_q + V_s, V_s = 2 s^2 / 3. V_q: the variance from the questions, as one seed
    shows it. s^2: that of one training's score, from the control and its replicates, less the part of the questions; 0
    without replicates.

    seconds: twice what this seed's own trainings and evaluations took; one that is not done, or was interrupted,
    counts as the mean of those of its kind.
    """
    if len(results.study.seeds) > 1:
        return None
    visible = [one for ablation in results.ablations for one in _visible(ablation, findings_of(results, ablation).all)]
    seconds = _seconds(results)
    if not visible or seconds is None:
        return None
    trainings = min(num for _, num in visible)
    return MoreSeeds(SEEDS, median(value for value, _ in visible), (SEEDS - 1) * seconds, trainings)


def record(results: Results) -> dict[str, Any] | None:
    """-> for results.json."""
    more = more_seeds(results)
    return more._asdict() if more else None


def _visible(ablation: AblationResult, findings: Iterable[Finding]) -> Iterator[tuple[float, int]]:
    """-> of each distilled row, and from how many trainings the noise of training is known."""
    noises: dict[int, Noise] = {}
    for one in findings:
        control = ablation.control_of(one.row.row)
        if one.metric == ablation.primary and control and one.contrast and one.contrast.se > 0:
            noise = noises.setdefault(id(control), _noise(ablation, control))
            yield _smallest(one.contrast, _level(one, one.contrast), noise.variance), noise.trainings


def _level(finding: Finding, contrast: Contrast) -> float:
    """-> of the interval that the page shows."""
    return 1 - 2 * t_tail((finding.high - finding.low) / 2 / contrast.se, contrast.df)


def _smallest(contrast: Contrast, level: float, noise: float) -> float:
    """-> the difference that is beyond its own half width in 80 %, by the error and the quantiles of `paired.linear`.

    They follow from V_s, of which six trainings show V_s chi^2(4) / 4: so over DRAWS even quantiles of that.
    """
    from scipy.special import chdtri, ndtr

    v_q, v_s, df_s = contrast.se**2, 2 * noise / SEEDS, 2 * SEEDS - 2
    shown = v_s * chdtri(df_s, (np.arange(DRAWS) + 0.5) / DRAWS) / df_s if noise else np.zeros(1)
    limit = np.array([_with_seeds(contrast, float(one), df_s).half_width(level) for one in shown])
    error = math.sqrt(v_q + v_s)
    low, high = 0.0, float(limit.max()) + 10 * error
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        is_enough = ndtr((middle - limit) / error).mean() >= POWER
        low, high = (low, middle) if is_enough else (middle, high)
    return high


def _with_seeds(contrast: Contrast, v_s: float, df_s: int) -> Contrast:
    """-> what one of six trainings would be, of which they show so much noise."""
    v_q = contrast.se**2
    share = SEED_WEIGHT * v_s / (SEED_WEIGHT * v_s + v_q)
    df = 1 / (share**2 / df_s + (1 - share) ** 2 / contrast.df)
    return contrast._replace(se=math.sqrt(v_s + v_q), df=df, seed_share=v_s / (v_s + v_q), seed_df=df_s)


def _noise(ablation: AblationResult, control: RowResult) -> Noise:
    """Var over trainings of the mean score, less MS_residual / n, which the questions add; at least a tenth of that."""
    metric, names = ablation.primary, (control.row.name, f"{control.row.name}/replicate")
    again = [row for row in ablation.rows if row.row.name in names and row.row.setting.pair == control.row.setting.pair]
    scores = align_rows(again, metric).scores if metric and control.is_trained else ()
    if len(scores) < len(names):
        return Noise(0.0, 0)
    scores_SN = np.concatenate(scores)
    of_questions = float(residual(scores_SN)) / scores_SN.shape[1]
    of_both = float(scores_SN.mean(1).var(ddof=1))
    return Noise(max(of_both - of_questions, LEAST_SEED_SHARE * of_questions), len(scores_SN))


def _seconds(results: Results) -> float | None:
    """-> of the stages that each seed has of its own; None before one of each kind is done."""
    stages = {stage.key: stage for cell in results.cells for stage in _own_stages(cell)}
    known = {key: measured_s(results.plan.store, stage) for key, stage in stages.items()}
    of_kind: dict[str, list[float]] = {stage.kind: [] for stage in stages.values()}
    for key, took in known.items():
        of_kind[stages[key].kind] += [took] if took is not None else []
    if not stages or not all(of_kind.values()):
        return None
    means = {kind: fmean(values) for kind, values in of_kind.items()}
    return sum(means[stages[key].kind] if took is None else took for key, took in known.items())


def _own_stages(cell: CellResult) -> Iterator[Stage]:
    """-> those that another seed needs anew: teachers are tuned under the first alone, replicates have their own."""
    row, trained = cell.cell.row, cell.cell.trained
    if trained is None or row.model == "teacher/finetuned" or row.is_replicate:
        return
    yield cell.cell.evaluate
    yield trained
    if "student_adapter" in trained.inputs:
        yield trained.inputs["student_adapter"]
