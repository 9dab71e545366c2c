"""Any two rows, or cells, held against each other on the questions that both answered, by every metric they share."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from ablate.core.errors import AblateError, did_you_mean
from ablate.planning.project import reopen_study
from ablate.results.collect import AblationResult, Metric, Results, RowResult, collect
from ablate.results.paired import Contrast
from ablate.results.question_scores import NotComparable, Summary
from ablate.results.sign_tests import Flips, flips
from ablate.results.verdicts import sign_of


class NamedRow(NamedTuple):
    """A row that somebody asked for, or one cell of it."""

    name: str
    results: Results
    ablation: AblationResult
    row: RowResult
    """Of a cell: that seed alone."""

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(cell.cell.evaluate.key for cell in self.row.done)


class Pairing(NamedTuple):
    """Both by one metric."""

    metric: Metric
    one: Summary
    other: Summary
    lower_is_better: bool
    contrast: Contrast | None = None
    """One less other: of this comparison alone, corrected for no others."""
    why: str = ""
    """What keeps the two from being compared."""
    flips: Flips | None = None
    """Questions that one of them alone has right; of 0/1 scores and one seed each."""


def rows_named(names: Iterable[str], root: Path) -> list[NamedRow]:
    """[STUDY:]ABLATION/ROW[@SEED] -> each: with a seed that cell, else all seeds of the row that are done.

    STUDY is the name of a study that was run; the one run last unless said. Raises AblateError for a name that fits
    nothing, or what is not done.
    """
    studies: dict[str, Results] = {}
    return [_row_named(name, root, studies) for name in names]


def _row_named(name: str, root: Path, studies: dict[str, Results]) -> NamedRow:
    study, colon, rest = name.rpartition(":")
    if study not in studies:
        studies[study] = collect(reopen_study(root, study if colon else None).plan(is_online=False))
    results = studies[study]
    known = {row.name: row for ablation in results.ablations for row in _named(results, ablation)}
    if rest not in known:
        whole = [name for name, row in known.items() if len(row.row.cells) > 1 or "@" not in name]
        hint = did_you_mean(rest, known if len(known) < 16 else whole)
        raise AblateError(f"{name!r} names no row or cell of study {results.study.name!r}.{hint}")
    row = known[rest]
    if not row.row.done:
        cell = row.row.cells[0]
        raise AblateError(f"{name!r} is {cell.state}{f' ({cell.why})' if cell.why else ''}: it has no scores yet")
    return row


def _named(results: Results, ablation: AblationResult) -> Iterable[NamedRow]:
    for row in ablation.rows:
        yield NamedRow(f"{ablation.name}/{row.row.name}", results, ablation, row)
        for cell in row.cells:
            yield NamedRow(cell.cell.name, results, ablation, RowResult(row.row, (cell,)))


def pairings(one: NamedRow, other: NamedRow) -> list[Pairing]:
    """-> of every metric that both have, the one that decides for `one` first."""
    return [_pairing(one.row, other.row, metric) for metric in one.ablation.metrics if _have([one, other], metric)]


def not_shared(one: NamedRow, other: NamedRow) -> list[Metric]:
    """-> metrics that one of the two has alone."""
    metrics = dict.fromkeys((*one.ablation.metrics, *other.ablation.metrics))
    return [metric for metric in metrics if _have([one], metric) != _have([other], metric)]


def _have(rows: Sequence[NamedRow], metric: Metric) -> bool:
    return all(row.row.score(metric) is not None for row in rows)


def _pairing(one: RowResult, other: RowResult, metric: Metric) -> Pairing:
    scores = (one.score(metric), other.score(metric))
    assert scores[0]
    assert scores[1]
    pairing = Pairing(metric, scores[0], scores[1], sign_of(one, metric) < 0)
    try:
        return pairing._replace(contrast=one.difference(other, metric), flips=flips(one.aligned(other, metric)))
    except NotComparable as reason:
        return pairing._replace(why=str(reason))
