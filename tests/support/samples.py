"""Scores on single questions for the tests of statistics: real ones of the embedded study, and generated ones."""

import json
from typing import NamedTuple

import numpy as np

from support.paths import GOLDEN

FILE = GOLDEN / "samples.json"
METRICS = ("tiny_letters/acc", "tiny_endings/acc_norm", "tiny_truth/acc")
RATES = (2e-2, 4e-3, 1e-3, 1e-4)
"""Of the distilled rows, in order."""


class Samples(NamedTuple):
    """Rows by one metric: the control, then distilled rows in the order of RATES."""

    rows: list[np.ndarray]
    """Of each row S x N."""
    group_N: np.ndarray


def real(metric):
    """-> three seeds of the embedded study's learning rates, by one metric."""
    record = json.loads(FILE.read_text())["metrics"][metric]
    rows = [np.array([_numbers(seed) for seed in seeds]) for seeds in record["rows"].values()]
    return Samples(rows, np.array(record["clusters"].split(), int))


def _numbers(text):
    return [float(one) for one in (text.split() if " " in text else text)]


def generated(seed, *, num=200, num_groups=40, num_seeds=3, num_rows=5, seed_sd=0.1):
    """-> 0/1 scores of rows of one recipe, which share hard questions; all else is their own."""
    draw = np.random.default_rng(seed) if isinstance(seed, int) else seed
    group_N = np.concatenate([np.arange(num_groups), draw.integers(num_groups, size=num - num_groups)])
    hard = draw.normal(size=num)
    rows = []
    for _ in range(num_rows):
        own = draw.normal(scale=0.3, size=num)
        if num_groups < num:
            own = own + draw.normal(scale=0.3, size=num_groups)[group_N]
        ability = own + draw.normal(scale=seed_sd, size=(num_seeds, 1)) + draw.normal(scale=0.4, size=(num_seeds, num))
        rows.append((hard + ability > 0).astype(float))
    return Samples(rows, group_N)


def every():
    """-> what each statistic is tried on, by name."""
    drawn = {f"generated {seed}": generated(seed) for seed in range(2)}
    return {metric: real(metric) for metric in METRICS} | drawn | {"no clusters": generated(2, num=150, num_groups=150)}
