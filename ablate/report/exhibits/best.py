"""Which rows may be the best, metric by metric: how often each leads when questions are drawn again."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.folded import folded
from ablate.report.exhibits.spreadsheet import to_csv
from ablate.report.exhibits.words import decimals, listed, metric_name, number, plural
from ablate.results.best_rows import Candidate, Contest, contests_of
from ablate.results.collect import AblationResult, Metric, Results

HEAD = ("Metric", "Model", "Seeds", "Score", "Probability of best, questions alone", "May be the best")
NOTE = (
    "Probability of best: share of resamples of the questions (clusters whole) in which the row leads; it knows nothing"
    " of other seeds, whatever their number here. May be the best: the rows that cannot be told from the best;"
    " the set holds the best row with 95 % (multiple comparisons with the best, max-T bootstrap)."
)
ONE_SEED = " With one seed it holds question noise only: another seed could change who is in it."


class Line(NamedTuple):
    """One row by one metric, as shown."""

    metric: str
    model: str
    seeds: str
    score: str
    probability: str
    may_be_best: str


@EXHIBITS.register("table-best", order=20)
def best(results: Results, ablation: AblationResult) -> Piece | None:
    """-> tables/<ablation>-best.csv, and the table folded below that of the scores."""
    contests = contests_of(results, ablation)
    if not contests:
        return None
    lines = [line for of in contests for line in _lines(of, _name(of, contests, ablation.columns))]
    return folded(
        title=ablation.title,
        summary=f"Which rows may be the best: {_counted(contests, ablation.columns)}",
        region="Which rows may be the best",
        caption="Distilled rows and the control, each metric for itself.",
        head=HEAD,
        lines=lines,
        note=NOTE + ("" if all(of.has_seed_noise for of in contests) else ONE_SEED),
        files={f"tables/{ablation.name}-best.csv": to_csv([("Pair", *HEAD), *_exact(contests)])},
    )


def _counted(contests: Sequence[Contest], columns: Sequence[Metric]) -> str:
    """`3 of 5 rows by commonsense_qa; any of 5 rows by truthfulqa_mc2 and hellaswag acc`."""
    found: dict[str, list[str]] = {}
    for contest in contests:
        told = _many(contest.num_possible, len(contest.candidates))
        found.setdefault(told, []).append(_name(contest, contests, columns))
    return "; ".join(f"{told} by {listed(names)}" for told, names in found.items())


def _name(contest: Contest, contests: Sequence[Contest], columns: Sequence[Metric]) -> str:
    """The pair is named where there are several."""
    pair = f" ({contest.pair})" if len({other.pair for other in contests}) > 1 else ""
    return metric_name(contest.metric, columns) + pair


def _many(possible: int, of: int) -> str:
    return f"any of {plural(of, 'row')}" if possible == of else f"{possible} of {plural(of, 'row')}"


def _lines(contest: Contest, name: str) -> Iterator[Line]:
    scores = [one.row.score(contest.metric) for one in contest.candidates]
    places = decimals([score.stderr or score.sd for score in scores if score])
    for one, score in zip(contest.candidates, scores, strict=True):
        told = number(score.value, places) if score else ""
        yield Line(name, *_model(one), told, _share(one.probability), "yes" if one.may_be_best else "no")
    for row, why in contest.left_out:
        yield Line(name, row.row.label, str(len(row.done)), "", "", f"left out: {why}")


def _share(probability: float) -> str:
    """Of some thousand resamples none is no certainty."""
    if probability < 0.01:
        return "< 1 %"
    return "> 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def _model(one: Candidate) -> tuple[str, str]:
    return one.row.row.label, str(len(one.row.done))


def _exact(contests: Sequence[Contest]) -> Iterator[tuple[str | float | None, ...]]:
    for contest in contests:
        for one in contest.candidates:
            score = one.row.score(contest.metric)
            value = score.value if score else None
            told = (value, one.probability, "yes" if one.may_be_best else "no")
            yield contest.pair, str(contest.metric), *_model(one), *told
        for row, why in contest.left_out:
            yield contest.pair, str(contest.metric), row.row.label, str(len(row.done)), None, None, f"left out: {why}"
