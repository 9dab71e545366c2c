"""A table folded up in the page, for readers who want to know more: one line and a click until then."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ablate.report.exhibits.base import Piece
from ablate.report.markup import render


def folded_table(
    *,
    title: str,
    summary: str,
    region: str,
    caption: str,
    head: Sequence[str],
    lines: Sequence[Sequence[str]],
    note: str,
    files: Mapping[str, str],
) -> Piece:
    """-> the piece. The second cell of a line names it; `summary` is the finding, `region` for screen readers."""
    values: dict[str, Any] = {"title": title, "summary": summary, "region": region, "caption": caption}
    values |= {"head": head, "lines": lines, "note": note}
    encoded = {path: text.encode() for path, text in files.items()}
    return Piece(render("folded_table.html", **values), render("folded_table.md", **values), encoded)


def folded(piece: Piece, summary: str) -> Piece:
    """-> the same piece, folded up in the page."""
    return replace(piece, html=render("folded.html", summary=summary, inside=piece.html))
