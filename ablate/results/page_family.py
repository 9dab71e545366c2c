"""One family a study's page: every comparison on it, each once, and one correction for all.

The 5 % are shared out: half to the ablations' own contrasts by the primary metric, an equal share for each ablation; a
quarter to the comparisons with the control by the primary metric; a quarter to those by all other metrics. Where a part
has no comparison, the others have its share. A row that stands in several tables is compared with its control once,
so that it has one verdict; a contrast that stands in two parts has its share of both.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ablate.results.collect import Metric, Results
from ablate.results.comparisons import Comparison, Key, compared_in
from ablate.results.multiple_comparisons import ALPHA, Joint, holm, simultaneous_alpha, simultaneous_level

SHARES: Mapping[Literal["own", "control", "other"], float] = {"own": 2, "control": 1, "other": 1}
"""Parts of the 5 %: the questions come first."""


class Part(NamedTuple):
    """Comparisons that have a share of the 5 % together."""

    name: Literal["own", "control", "other"]
    """The ablations' own contrasts by the primary metric, rows against their control by it, all by other metrics."""
    size: int
    share: float
    """Of 1."""


class Compared(NamedTuple):
    """What one ablation compares."""

    own: Sequence[Comparison]
    with_control: Sequence[Comparison]


@dataclass(frozen=True)
class Family:
    """What one correction makes of all comparisons of a page."""

    p_holm: Mapping[Key, float]
    """NaN of a comparison without an error, which is no member."""
    levels: Mapping[Key, float]
    """Of the intervals, which hold together with 95 %."""
    primary: frozenset[Metric]
    """The metric that decides; several where ablations have tasks of their own."""
    parts: tuple[Part, ...]
    alpha: float
    """Of an interval whose weight is 1."""

    @property
    def size(self) -> int:
        """Comparisons that the correction counts, each once."""
        return sum(not math.isnan(p) for p in self.p_holm.values())

    def level_with_control(self, metric: Metric) -> float:
        """-> of the interval of any row's difference to its control by this metric."""
        name = "control" if metric in self.primary else "other"
        weights = [part.share / part.size for part in self.parts if part.name == name]
        return simultaneous_level(self.alpha, weights[0]) if weights else 1 - ALPHA


def family_of(results: Results) -> Family:
    """-> that of a study's page."""
    if "family" not in results.memo:
        primary = frozenset(ablation.primary for ablation in results.ablations if ablation.primary)
        each = [compared_in(results, ablation) for ablation in results.ablations]
        compared = [
            Compared([one.comparison for one in of_one.own], [one.comparison for one in of_one.with_control])
            for of_one in each
        ]
        results.memo["family"] = family(compared, primary)
    known: Family = results.memo["family"]
    return known


def family(ablations: Sequence[Compared], primary: frozenset[Metric]) -> Family:
    """-> the family of all that a page's ablations compare."""
    distinct = {one.key: one for ablation in ablations for one in (*ablation.own, *ablation.with_control)}
    p = {key: one.contrast.p for key, one in distinct.items()}
    parts, weights = _shared_out(ablations, [key for key in p if not math.isnan(p[key])], primary)
    adjusted = holm(list(p.values()), [weights.get(key, 1.0) for key in p])
    alpha = simultaneous_alpha(_joints([one for key, one in distinct.items() if key in weights], weights))
    levels = {key: simultaneous_level(alpha, weights.get(key, 1.0)) for key in distinct}
    return Family(dict(zip(p, adjusted, strict=True)), levels, primary, parts, alpha)


def _shared_out(
    ablations: Sequence[Compared], members: Sequence[Key], primary: frozenset[Metric]
) -> tuple[tuple[Part, ...], dict[Key, float]]:
    """-> the parts that have a comparison, and the weight of each comparison; all weights add up to 1."""
    known = set(members)
    own = [keys for ablation in ablations if (keys := _keys(ablation.own, known, primary))]
    control = _keys((one for ablation in ablations for one in ablation.with_control), known, primary)
    other = [key for key in members if key[0] not in primary]
    groups: dict[Literal["own", "control", "other"], list[list[Key]]]
    groups = {"own": own, "control": [control] if control else [], "other": [other] if other else []}
    total = sum(SHARES[name] for name, keys in groups.items() if keys)
    weights: dict[Key, float] = {}
    parts = []
    for name, of_part in groups.items():
        if of_part:
            share = SHARES[name] / total
            parts.append(Part(name, len({key for keys in of_part for key in keys}), share))
            for keys in of_part:
                each = share / len(of_part) / len(keys)
                weights |= {key: weights.get(key, 0.0) + each for key in keys}
    return tuple(parts), weights


def _keys(comparisons: Iterable[Comparison], members: set[Key], primary: frozenset[Metric]) -> list[Key]:
    """-> of those by the primary metric, each once."""
    keys = dict.fromkeys(one.key for one in comparisons if one.metric in primary)
    return [key for key in keys if key in members]


def _joints(comparisons: Sequence[Comparison], weights: Mapping[Key, float]) -> list[Joint]:
    """-> comparisons on the same questions together."""
    by_questions: dict[tuple[str, bytes], list[Comparison]] = {}
    for one in comparisons:
        by_questions.setdefault((one.metric.task, one.group_N.tobytes()), []).append(one)
    return [
        Joint(
            [one.sums_G for one in alike],
            alike[0].group_N,
            [one.contrast for one in alike],
            [weights[one.key] for one in alike],
        )
        for alike in by_questions.values()
    ]
