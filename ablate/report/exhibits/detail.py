"""Every comparison of an ablation with its control, one a line: difference, interval, p, flips, verdict."""

from collections.abc import Sequence
from typing import NamedTuple

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.folded import folded
from ablate.report.exhibits.spreadsheet import to_csv
from ablate.report.exhibits.words import decimals, metric_name, number, p_text, tex
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.verdicts import Finding, findings_of

HEAD = (
    "Metric",
    "Model",
    "Seeds",
    "Difference",
    "Adjusted 95 % interval",
    "p (Holm)",
    "Won / lost",
    "Check p",
    "Verdict",
)
NOTE = (
    "Difference: to the control, question by question. The intervals hold together with 95 % (max-T bootstrap). "
    "Won / lost: questions that only the model, or only the control, has right; check p: McNemar's test of them, or of "
    "flipped signs where scores are not 0 or 1. The checks decide nothing. Better, worse and suggestive need both: "
    "p under 0.05 and an interval without 0; equivalent: the 90 % interval of the comparison alone."
)


class Line(NamedTuple):
    """One comparison, as shown."""

    metric: str
    model: str
    seeds: str
    difference: str
    interval: str
    p: str
    flips: str
    check: str
    verdict: str


@EXHIBITS.register("table-detail", order=30)
def detail(results: Results, ablation: AblationResult) -> Piece | None:
    """-> tables/<ablation>-differences.csv and .tex, and the table folded below that of the scores."""
    found = findings_of(results, ablation).all
    if not found:
        return None
    lines = [_line(one, ablation.columns, found) for one in _sorted(found, ablation.columns)]
    return folded(
        title=ablation.title,
        summary="Every comparison with the control: intervals, p, verdicts",
        region="Comparisons",
        caption="Distilled rows beside the control.",
        head=HEAD,
        lines=lines,
        note=NOTE,
        files={
            f"tables/{ablation.name}-differences.csv": to_csv([HEAD, *lines]),
            f"tables/{ablation.name}-differences.tex": _latex(lines),
        },
    )


def _sorted(found: Sequence[Finding], columns: Sequence[Metric]) -> list[Finding]:
    """By metric, then as in the table."""
    return sorted(found, key=lambda one: columns.index(one.metric))


def _line(one: Finding, columns: Sequence[Metric], found: Sequence[Finding]) -> Line:
    name, of = metric_name(one.metric, columns), one.contrast
    seeds = str(len(one.row.done))
    if of is None:
        return Line(name, one.row.row.label, seeds, "", "", "", "", "", f"{one.verdict}: {one.why}")
    places = decimals([other.contrast.se for other in found if other.contrast and other.metric == one.metric])
    value, low, high = (number(x, places, is_signed=True) for x in (of.value, one.low, one.high))
    flips = one.flips.replace("/", " / ")
    return Line(
        name,
        one.row.row.label,
        seeds,
        value,
        f"{low} to {high}",
        p_text(one.p_holm),
        flips,
        p_text(one.check_p),
        one.verdict,
    )


def _latex(lines: Sequence[Line]) -> str:
    """-> booktabs."""
    rows = "\n".join(" & ".join(tex(cell) for cell in line) + r" \\" for line in lines)
    head = " & ".join(tex(cell) for cell in HEAD)
    return (
        f"\\begin{{tabular}}{{llrrrrrrl}}\n\\toprule\n{head} \\\\\n\\midrule\n{rows}\n\\bottomrule\n\\end{{tabular}}\n"
    )
