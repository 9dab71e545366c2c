"""Trainings whose student writes answers: how near to the teacher, how long, and whether they end, step by step."""

from collections.abc import Sequence

from ablate.report.exhibits.base import EXHIBITS, Piece, joined
from ablate.report.exhibits.curve_panels import Sheet, drawn
from ablate.report.exhibits.curves import ANSWERS, MORE_OF_ANSWERS, TITLES, Curve
from ablate.report.exhibits.loss_curves import averages_text, curves_of, unfinished
from ablate.report.exhibits.loss_table import measures_table
from ablate.report.words import capitalised, say
from ablate.results.collect import AblationResult, Results


@EXHIBITS.register("answers", order=113)
def answer_curves(results: Results, ablation: AblationResult) -> Piece | None:
    """-> figures/<ablation>-answers.png, and -answers-more.png folded below; None where no student wrote an answer."""
    if not any(row.row.setting.distill.writes_in_training for row in ablation.rows if row.row.model == "distill"):
        return None
    curves = [curve for curve in curves_of(ablation, results.study.pairs) if _shown([curve], ANSWERS)]
    if not curves:
        return None
    name, title = f"{ablation.name}-answers", say("written.title", title=ablation.title)
    first, others = _shown(curves, ANSWERS), _shown(curves, MORE_OF_ANSWERS)
    more = [measure for measure in others if _varies(curves, measure)]
    sheet = Sheet(name, curves, first)
    pieces = [drawn(sheet, title, _caption(curves, first))]
    if more:
        beside = drawn(Sheet(f"{name}-more", curves, more), title, _caption(curves, more))
        pieces.append(beside)
    table = measures_table(sheet, ablation.title, [*first, *others], what=say("written.numbers"))
    return joined(*pieces, table, fold=say("fold.written"))


def _shown(curves: Sequence[Curve], measures: Sequence[str]) -> list[str]:
    return [measure for measure in measures if any(curve.has(measure) for curve in curves)]


def _varies(curves: Sequence[Curve], measure: str) -> bool:
    """Whether it has more than one value; of a share of rows that is fixed a table is enough."""
    return len({value for curve in curves for value in curve.raw.get(measure, ())}) > 1


def _caption(curves: Sequence[Curve], measures: Sequence[str]) -> str:
    meanings = [
        say("written.meaning", measure=capitalised(TITLES[one]), meaning=say(f"written.{one}")) for one in measures
    ]
    return " ".join([averages_text(curves), *meanings, say("written.steps"), *unfinished(curves)])
