"""The table of comparisons with the control, one a line: difference, interval, p, flips, verdict."""

from collections.abc import Sequence
from typing import NamedTuple

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.folded_table import folded_table
from ablate.report.formatting import decimals, interval_text, number, p_text
from ablate.report.markup import tex
from ablate.report.metric_names import metric_name
from ablate.report.spreadsheet import to_csv
from ablate.report.words import say
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
def differences_table(results: Results, ablation: AblationResult) -> Piece | None:
    """-> tables/<ablation>-differences.csv and .tex, and the table folded below that of the scores."""
    findings = findings_of(results, ablation).all
    if not findings:
        return None
    lines = [_line(finding, ablation.columns, findings) for finding in _sorted(findings, ablation.columns)]
    return folded_table(
        title=ablation.title,
        summary=say("differences.summary"),
        region="Comparisons",
        caption=say("differences.caption"),
        head=HEAD,
        lines=lines,
        note=say("differences.note"),
        files={
            f"tables/{ablation.name}-differences.csv": to_csv([HEAD, *lines]),
            f"tables/{ablation.name}-differences.tex": _latex(lines),
        },
    )


def _sorted(findings: Sequence[Finding], columns: Sequence[Metric]) -> list[Finding]:
    """By metric, then as in the table."""
    return sorted(findings, key=lambda finding: columns.index(finding.metric))


def _line(finding: Finding, columns: Sequence[Metric], findings: Sequence[Finding]) -> Line:
    name, contrast = metric_name(finding.metric, columns), finding.contrast
    seeds = str(len(finding.row.done))
    if contrast is None:
        return Line(name, finding.row.row.label, seeds, "", "", "", "", "", f"{finding.verdict}: {finding.why}")
    places = decimals([other.contrast.se for other in findings if other.contrast and other.metric == finding.metric])
    return Line(
        name,
        finding.row.row.label,
        seeds,
        number(contrast.value, places, is_signed=True),
        interval_text(finding.low, finding.high, places),
        p_text(finding.p_holm),
        finding.flips.replace("/", " / "),
        p_text(finding.check_p),
        finding.verdict,
    )


def _latex(lines: Sequence[Line]) -> str:
    """-> booktabs."""
    rows = "\n".join(" & ".join(tex(cell) for cell in line) + r" \\" for line in lines)
    head = " & ".join(tex(cell) for cell in HEAD)
    return (
        f"\\begin{{tabular}}{{llrrrrrrl}}\n\\toprule\n{head} \\\\\n\\midrule\n{rows}\n\\bottomrule\n\\end{{tabular}}\n"
    )
