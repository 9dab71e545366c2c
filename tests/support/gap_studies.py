"""Simulated studies of three arms, whose gap recovered is known: alike 0/1 scores, clusters, noise of seeds."""

from typing import NamedTuple

import numpy as np

from ablate.results.fieller import Task

ALIKE = 0.8
"""Of a score's normal variable: how much of its variance all arms share."""
IN_CLUSTER = 0.3
"""Of that, how much a cluster shares."""


class Simulated(NamedTuple):
    """Studies with the same questions; the teacher is one model."""

    task: Task
    truth: np.ndarray
    """Of each study: the recipe's own, over all seeds; of one seed that of the very models that were trained."""


def simulated(draw, studies, *, gap, recovered, seeds, seed_sd=0.01, num=240, clusters=60, base=0.45):
    """-> `studies` of them; `seed_sd`: by how much another seed moves a score."""
    group_N = np.unique(draw.integers(clusters, size=num), return_inverse=True)[1]
    shared = np.sqrt(ALIKE * IN_CLUSTER) * draw.normal(size=(studies, clusters))[:, group_N]
    hard_BN = shared + np.sqrt(ALIKE * (1 - IN_CLUSTER)) * draw.normal(size=(studies, num))
    control_BSN, of_control = _arm(draw, hard_BN, base, seeds, seed_sd)
    row_BSN, of_row = _arm(draw, hard_BN, base + recovered * gap, seeds, seed_sd)
    teacher_BSN, of_teacher = _arm(draw, hard_BN, base + gap, 1, 0.0)
    of_these = (of_row - of_control).mean(1) / (of_teacher - of_control).mean(1)
    truth_B = of_these if seeds == 1 else np.full(studies, recovered)
    return Simulated(Task((row_BSN, control_BSN, teacher_BSN), group_N), truth_B)


def _arm(draw, hard_BN, share, seeds, seed_sd):
    """-> B x S x N scores, and each seed's true share of right answers (B x S)."""
    from scipy.stats import norm

    studies, num = hard_BN.shape
    shares_BS = share + seed_sd * draw.normal(size=(studies, seeds))
    own = (draw.normal(size=(studies, 1, num)) + draw.normal(size=(studies, seeds, num))) * np.sqrt((1 - ALIKE) / 2)
    return (hard_BN[:, None] + own < norm.ppf(shares_BS)[..., None]).astype(float), shares_BS
