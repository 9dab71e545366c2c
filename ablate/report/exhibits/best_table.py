"""The table of which rows may be the best, metric by metric: how often each leads when questions are drawn again."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.folded_table import folded_table
from ablate.report.formatting import decimals, listed, number, pair_suffix, plural
from ablate.report.metric_names import metric_name
from ablate.report.spreadsheet import to_csv
from ablate.report.words import say
from ablate.results.best_rows import Candidate, Contest, contests_of
from ablate.results.collect import AblationResult, Metric, Results

HEAD = ("Metric", "Model", "Seeds", "Score", "Probability of best, questions alone", "May be the best")


class Line(NamedTuple):
    """One row by one metric, as shown."""

    metric: str
    model: str
    seeds: str
    score: str
    probability: str
    may_be_best: str


@EXHIBITS.register("table-best", order=20)
def best_table(results: Results, ablation: AblationResult) -> Piece | None:
    """-> tables/<ablation>-best.csv, and the table folded below that of the scores."""
    contests = contests_of(results, ablation)
    if not contests:
        return None
    lines = [line for contest in contests for line in _lines(contest, _name(contest, contests, ablation.columns))]
    return folded_table(
        title=ablation.title,
        summary=say("best.summary", counts=_counted(contests, ablation.columns)),
        region="Which rows may be the best",
        caption=say("best.caption"),
        head=HEAD,
        lines=lines,
        note=_note(contests),
        files={f"tables/{ablation.name}-best.csv": to_csv([("Pair", *HEAD), *_exact(contests)])},
    )


def _note(contests: Sequence[Contest]) -> str:
    has_seeds = all(contest.has_seed_noise for contest in contests)
    return say("best.note") if has_seeds else f"{say('best.note')} {say('best.one_seed')}"


def _counted(contests: Sequence[Contest], columns: Sequence[Metric]) -> str:
    """`3 of 5 rows by commonsense_qa; any of 5 rows by truthfulqa_mc2 and hellaswag acc`."""
    names_by_count: dict[str, list[str]] = {}
    for contest in contests:
        count = _count_text(contest.num_possible, len(contest.candidates))
        names_by_count.setdefault(count, []).append(_name(contest, contests, columns))
    return "; ".join(say("best.by", count=count, metrics=listed(names)) for count, names in names_by_count.items())


def _name(contest: Contest, contests: Sequence[Contest], columns: Sequence[Metric]) -> str:
    return metric_name(contest.metric, columns) + pair_suffix(contest.pair, [other.pair for other in contests])


def _count_text(possible: int, total: int) -> str:
    rows = plural(total, "row")
    return say("best.any", rows=rows) if possible == total else say("best.some", num=possible, rows=rows)


def _lines(contest: Contest, name: str) -> Iterator[Line]:
    scores = [contender.row.score(contest.metric) for contender in contest.candidates]
    places = decimals([score.stderr or score.sd for score in scores if score])
    for contender, score in zip(contest.candidates, scores, strict=True):
        score_text = number(score.value, places) if score else ""
        yield Line(
            name,
            *_model(contender),
            score_text,
            _share(contender.probability),
            "yes" if contender.may_be_best else "no",
        )
    for row, why in contest.left_out:
        yield Line(name, row.row.label, str(len(row.done)), "", "", say("best.left_out", why=why))


def _share(probability: float) -> str:
    """Of some thousand resamples none is no certainty."""
    if probability < 0.01:
        return "< 1 %"
    return "> 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def _model(contender: Candidate) -> tuple[str, str]:
    return contender.row.row.label, str(len(contender.row.done))


def _exact(contests: Sequence[Contest]) -> Iterator[tuple[str | float | None, ...]]:
    for contest in contests:
        for contender in contest.candidates:
            score = contender.row.score(contest.metric)
            value = score.value if score else None
            fields = (value, contender.probability, "yes" if contender.may_be_best else "no")
            yield contest.pair, str(contest.metric), *_model(contender), *fields
        for row, why in contest.left_out:
            yield (
                contest.pair,
                str(contest.metric),
                row.row.label,
                str(len(row.done)),
                None,
                None,
                say("best.left_out", why=why),
            )
