"""Two runs of one study side by side: comparison.md and .html beside a report."""

from collections.abc import Sequence
from typing import NamedTuple

from ablate.report.formatting import decimals, listed, number, p_text, plural
from ablate.report.markup import page_asset, render
from ablate.results.collect import Results
from ablate.results.rerun_comparison import Move, lacking

HEAD = ("Ablation", "Model", "Metric", "Here", "There", "Difference", "p (Holm)", "What is told")
NOTE = (
    "Difference: here less there, ± its paired standard error, question by question where both were asked the same."
    " Moved: told from no difference after Holm's correction for all rows that were made anew; of rows that come from"
    " the same stages, by key, any difference at all. Rows that several ablations share stand here once."
)


class Line(NamedTuple):
    """One row by one metric, as shown."""

    ablation: str
    model: str
    metric: str
    here: str
    there: str
    difference: str
    p: str
    outcome: str


def comparison_pages(here: Results, there: Results, moves: Sequence[Move]) -> dict[str, bytes]:
    """-> comparison.md and .html, of what `moves` found."""
    values = {
        "title": f"{here.study.title or here.study.name}: two runs",
        "here": str(here.plan.store.root),
        "there": str(there.plan.store.root),
        "summary": summary_text(moves, lacking(here, there)),
        "region": "Scores here and there",
        "caption": "Scores here and there.",
        "head": HEAD,
        "lines": [_line(one) for one in moves],
        "note": NOTE,
        "style": page_asset("style.css"),
    }
    return {name: render(name, **values).encode() for name in ("comparison.md", "comparison.html")}


def summary_text(moves: Sequence[Move], only_there: Sequence[str]) -> str:
    """-> what moved, in a sentence or three."""
    moved = sum(one.has_moved for one in moves)
    refused = sum(one.contrast is None for one in moves)
    same = sum(one.is_same for one in moves)
    apart = f" {refused} cannot be compared." if refused else ""
    more = f" Only in the other run: {listed(only_there)}." if only_there else ""
    return f"{moved} of {plural(len(moves), 'score')} moved; {same} come from the same stages.{apart}{more}"


def _line(one: Move) -> Line:
    places = decimals([one.contrast.se] if one.contrast else [])
    marks = ("moved" if one.has_moved else "", "same stages" if one.is_same else "")
    return Line(
        one.ablation,
        one.row.row.label,
        str(one.metric),
        "" if one.here is None else number(one.here, places),
        "" if one.there is None else number(one.there, places),
        _difference(one, places),
        p_text(one.p_holm) if one.p_holm == one.p_holm else "",
        one.why or ", ".join(filter(None, marks)),
    )


def _difference(one: Move, places: int) -> str:
    if one.contrast is None:
        return ""
    return f"{number(one.contrast.value, places, is_signed=True)} ± {number(one.contrast.se, places)}"
