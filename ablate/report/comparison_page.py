"""Two runs of one study side by side: comparison.md and .html beside a report."""

from collections.abc import Sequence
from typing import NamedTuple

from ablate.report.formatting import decimals, listed, number, p_text, plural
from ablate.report.markup import page_asset, render
from ablate.report.words import say
from ablate.results.collect import Results
from ablate.results.rerun_comparison import Move, lacking

HEAD = ("Ablation", "Model", "Metric", "Here", "There", "Difference", "p (Holm)", "Outcome")


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
        "title": say("runs.title", study=here.study.title or here.study.name),
        "here": str(here.plan.store.root),
        "there": str(there.plan.store.root),
        "summary": summary_text(moves, lacking(here, there)),
        "region": say("runs.caption"),
        "caption": say("runs.caption"),
        "head": HEAD,
        "lines": [_line(move) for move in moves],
        "note": say("runs.note"),
        "style": page_asset("style.css"),
    }
    return {name: render(name, **values).encode() for name in ("comparison.md", "comparison.html")}


def summary_text(moves: Sequence[Move], only_there: Sequence[str]) -> str:
    """-> what moved, in a sentence or three."""
    moved = sum(move.has_moved for move in moves)
    refused = sum(move.contrast is None for move in moves)
    same = sum(move.is_same for move in moves)
    parts = [say("runs.moved", num=moved, all=plural(len(moves), "score"), same=same)]
    parts += [say("runs.refused", num=refused)] if refused else []
    parts += [say("runs.only_there", rows=listed(only_there))] if only_there else []
    return " ".join(parts)


def _line(move: Move) -> Line:
    places = decimals([move.contrast.se] if move.contrast else [])
    marks = ("moved" if move.has_moved else "", "same stages" if move.is_same else "")
    return Line(
        move.ablation,
        move.row.row.label,
        str(move.metric),
        "" if move.here is None else number(move.here, places),
        "" if move.there is None else number(move.there, places),
        _difference(move, places),
        p_text(move.p_holm) if move.p_holm == move.p_holm else "",
        move.why or ", ".join(filter(None, marks)),
    )


def _difference(move: Move, places: int) -> str:
    if move.contrast is None:
        return ""
    return f"{number(move.contrast.value, places, is_signed=True)} ± {number(move.contrast.se, places)}"
