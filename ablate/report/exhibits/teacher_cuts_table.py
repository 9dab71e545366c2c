"""What it costs to learn from a teacher's likeliest tokens alone: bytes, what is left out, and the score beside."""

from collections.abc import Iterator, Sequence

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.folded_table import folded_table
from ablate.report.formatting import decimals, number, with_error
from ablate.report.metric_names import metric_name
from ablate.report.spreadsheet import to_csv
from ablate.report.words import say
from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.question_scores import NotComparable
from ablate.results.teacher_cuts import COSTS, BytesAToken, TeacherCut, bytes_of, teacher_cuts

HEAD = ("Seeds", "Model", "Bytes a token", "Probability kept", "Entropy lost", "KL error")


@EXHIBITS.register("table-teacher-cuts", order=130)
def teacher_cuts_table(results: Results, ablation: AblationResult) -> Piece | None:
    """-> tables/<ablation>-teacher-cuts.csv and the table; None where every row learns from its whole teacher."""
    cuts = [cut for cut in teacher_cuts(ablation) if cut.costs]
    if not cuts:
        return None
    named = [metric for metric in ablation.columns if str(metric) == results.study.report.primary]
    metric = next(iter(named or ablation.columns), None)
    sizes = [bytes_of(cut, results.plan.store) for cut in cuts]
    score = (say("teacher_cuts.difference", metric=metric_name(metric, ablation.columns)),) if metric else ()
    return folded_table(
        title=ablation.title,
        summary=say("teacher_cuts.summary"),
        region="Cut teachers",
        caption=say("teacher_cuts.caption"),
        head=(*HEAD, *score),
        lines=list(_lines(cuts, sizes, metric)),
        note=say("teacher_cuts.note"),
        files={f"tables/{ablation.name}-teacher-cuts.csv": to_csv(_csv(cuts, sizes, metric))},
    )


def _lines(
    cuts: Sequence[TeacherCut], sizes: Sequence[BytesAToken | None], metric: Metric | None
) -> Iterator[tuple[str, ...]]:
    """Each whole teacher before the first row that is cut from it."""
    seen: set[int] = set()
    for cut, size in zip(cuts, sizes, strict=True):
        if cut.exact and id(cut.exact) not in seen:
            seen.add(id(cut.exact))
            whole = (f"{size.hidden:,}" if size else "", "1", "0", "0", *(("",) if metric else ()))
            yield str(len(cut.exact.done)), cut.exact.row.label, *whole
        mass, entropy, error = (cut.costs[name] for name in COSTS)
        costs = (number(1 - mass, 4), number(entropy, 4), number(error, 4))
        score = (_difference(cut, metric),) if metric else ()
        yield str(len(cut.row.done)), cut.row.row.label, f"{size.top_k:,}" if size else "", *costs, *score


def _difference(cut: TeacherCut, metric: Metric) -> str:
    known = _contrast(cut.row, cut.exact, metric)
    return with_error(*known, decimals([known[1]]), is_signed=True) if known else ""


def _contrast(row: RowResult, exact: RowResult | None, metric: Metric) -> tuple[float, float] | None:
    """-> difference and its standard error; None where two rows cannot be compared, or one is not done."""
    try:
        contrast = row.difference(exact, metric) if exact else None
    except NotComparable:
        return None
    return (contrast.value, contrast.se) if contrast else None


def _csv(
    cuts: Sequence[TeacherCut], sizes: Sequence[BytesAToken | None], metric: Metric | None
) -> Iterator[list[object]]:
    yield ["row", "label", "exact_row", "k", "bytes", "bytes_hidden", *COSTS, "metric", "difference", "se"]
    for cut, size in zip(cuts, sizes, strict=True):
        known = _contrast(cut.row, cut.exact, metric) if metric else None
        exact = cut.exact.row.name if cut.exact else None
        about = [cut.row.row.name, cut.row.row.label, exact, cut.k, *((size.top_k, size.hidden) if size else ("", ""))]
        yield [*about, *(cut.costs[name] for name in COSTS), str(metric or ""), *(known or ("", ""))]
