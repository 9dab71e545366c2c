"""Everything that an ablation compares, before any correction: its rows with their control, and its own contrasts."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ablate.results.aligned_rows import align_rows, of_each_pair
from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.own_contrasts import Design, designs
from ablate.results.paired import Aligned, Contrast, Floats
from ablate.results.question_scores import NotComparable
from ablate.results.stated_designs import stated
from ablate.study.resolve import Resolver

Key: TypeAlias = tuple[Metric, tuple[tuple[tuple[str, ...], float], ...]]
ALONE = "no row beside it differs in this alone"


@dataclass(frozen=True)
class Comparison:
    """One contrast by one metric."""

    metric: Metric
    rows: tuple[tuple[RowResult, float], ...]
    """With their weights."""
    contrast: Contrast
    sums_G: Floats
    """Of the differences, over each cluster of questions."""
    group_N: NDArray[np.int64]

    @cached_property
    def key(self) -> Key:
        """The same for one comparison wherever it is shown: from the keys of its cells, blind to sign and scale."""
        by_cells: dict[tuple[str, ...], float] = {}
        for row, weight in self.rows:
            cells = tuple(cell.cell.evaluate.key for cell in row.done)
            by_cells[cells] = by_cells.get(cells, 0.0) + weight
        used = sorted((cells, weight) for cells, weight in by_cells.items() if weight)
        return self.metric, tuple((cells, round(weight / used[0][1], 9)) for cells, weight in used)


class WithControl(NamedTuple):
    """A row against its control."""

    row: RowResult
    metric: Metric
    aligned: Aligned
    comparison: Comparison


class Refused(NamedTuple):
    """A row that cannot be compared with its control by one metric."""

    row: RowResult
    metric: Metric
    why: str


class Own(NamedTuple):
    """A contrast of the ablation's own."""

    design: Design
    comparison: Comparison
    left_out: tuple[tuple[RowResult, str], ...]
    """Rows that would take part, and why they do not."""


class AllCompared(NamedTuple):
    """All that one ablation compares."""

    with_control: tuple[WithControl, ...]
    refused: tuple[Refused, ...]
    own: tuple[Own, ...]


def compared_in(results: Results, ablation: AblationResult) -> AllCompared:
    """-> what an ablation compares, by all metrics of its table."""
    name = f"compared/{ablation.name}"
    if name not in results.memo:
        with_control, refused = _all_with_control(ablation)
        results.memo[name] = AllCompared(with_control, refused, tuple(_all_own(Resolver(results.study), ablation)))
    compared: AllCompared = results.memo[name]
    return compared


def after_control(ablation: AblationResult) -> Iterator[tuple[RowResult, RowResult]]:
    """-> each row that is done, after its control if that is done too."""
    for row in ablation.rows:
        control = ablation.control_of(row.row)
        if control is not None and control is not row and row.done and control.done:
            yield control, row


def _all_with_control(ablation: AblationResult) -> tuple[tuple[WithControl, ...], tuple[Refused, ...]]:
    compared, refused = [], []
    for control, row in after_control(ablation):
        for metric in ablation.columns if row.row.model == "distill" and not row.is_replicate else ():
            try:
                one = _with_control(row, control, metric)
            except NotComparable as reason:
                refused.append(Refused(row, metric, str(reason)))
                continue
            if math.isfinite(one.comparison.contrast.value):
                compared.append(one)
            else:
                refused.append(Refused(row, metric, "NaN"))
    return tuple(compared), tuple(refused)


def _with_control(row: RowResult, control: RowResult, metric: Metric) -> WithControl:
    aligned = row.aligned(control, metric)
    contrast, weighted = row.difference(control, metric), ((row, 1.0), (control, -1.0))
    sums_G: Floats = np.bincount(aligned.group_N, aligned.differences).astype(float)
    return WithControl(row, metric, aligned, Comparison(metric, weighted, contrast, sums_G, aligned.group_N))


def _all_own(resolver: Resolver, ablation: AblationResult) -> Iterator[Own]:
    """-> the contrasts that the study states, else those that follow from the axes, of each pair."""
    of_pairs = of_each_pair(ablation)
    every = [row for rows in of_pairs for row in rows]
    for metric in ablation.columns:
        if ablation.spec.contrasts:
            yield from _own(every, metric, partial(stated, ablation.spec, every))
        else:
            for rows in of_pairs:
                yield from _own(rows, metric, partial(designs, resolver, rows, list(ablation.spec.grid)))


def _own(
    rows: Sequence[RowResult], metric: Metric, planned: Callable[[Sequence[bool]], Sequence[Design]]
) -> Iterator[Own]:
    """-> the contrasts by one metric; `planned`: from whether each row has it."""
    if len(rows) < 2:
        return
    aligned = align_rows(rows, metric)
    number_of = {id(row): number for number, row in enumerate(aligned.rows)}
    for design in planned([id(row) in number_of for row in rows]):
        weights = [0.0] * len(aligned.rows)
        for number, weight in design.weights.items():
            weights[number_of[id(rows[number])]] = weight
        weighted = tuple((rows[number], weight) for number, weight in design.weights.items())
        sums_G: Floats = np.bincount(aligned.group_N, aligned.differences(weights)).astype(float)
        comparison = Comparison(metric, weighted, aligned.contrast(weights), sums_G, aligned.group_N)
        yield Own(design, comparison, (*aligned.left_out, *((rows[number], ALONE) for number in design.alone)))
