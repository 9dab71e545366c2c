"""A table folded up in the page, for readers who want to know more: one line and a click until then."""

from collections.abc import Mapping, Sequence
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
    values: dict[str, Any] = {"title": title, "region": region, "caption": caption}
    values |= {"head": head, "lines": lines, "note": note}
    encoded = {path: text.encode() for path, text in files.items()}
    return Piece(render("listing.html", **values), render("listing.md", **values), encoded, summary)
