"""What an exhibit is (results in, a piece of the report and its files out), and the registries of all of them."""

import html
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol

from ablate.core.entry_points import OURS, note
from ablate.core.registry import Registry
from ablate.results.collect import AblationResult, Results


@dataclass(frozen=True)
class Piece:
    """What an exhibit adds to the report of one ablation."""

    html: str
    """Safe to put into the page: everything in it that came from a study is escaped."""
    markdown: str
    files: dict[str, bytes] = field(default_factory=dict)
    """Path below the report folder -> content."""
    fold: str = ""
    """Summary of the fold in which the page shows it, a few words; empty: it stands open."""


def joined(*pieces: Piece, fold: str = "") -> Piece:
    """-> one piece after the other, all in one fold where one is named: what is within it stands open."""
    files = {path: data for piece in pieces for path, data in piece.files.items()}
    return Piece("\n".join(piece.html for piece in pieces), "\n".join(piece.markdown for piece in pieces), files, fold)


class Exhibit(Protocol):
    """Shows one ablation. Registered in `EXHIBITS` by a module of this folder, with its place on the page.

    One of another package has an entry point in `ablate.exhibits`, and may have an attribute `order`; its files lie in
    a folder of the package's name.
    """

    def __call__(self, results: Results, ablation: AblationResult) -> Piece | None:
        """-> the piece, or None where there is nothing to show yet."""


class Overview(Protocol):
    """Shows a whole study. Registered in `OVERVIEWS` by a module of this folder, with its place among them.

    For one of another package, whose entry point is in `ablate.overviews`, the same holds as for an exhibit.
    """

    def __call__(self, results: Results) -> Piece | None:
        """-> the piece, or None where there is nothing to show yet."""


EXHIBITS: Registry[Exhibit] = Registry("exhibit", "ablate.report.exhibits", "ablate.exhibits")
"""In the order of the page."""
OVERVIEWS: Registry[Overview] = Registry("overview", "ablate.report.exhibits", "ablate.overviews")
"""At the end of the page, in their order."""


def piece_of(registry: Registry[Any], name: str, *given: Any) -> Piece | None:
    """-> what an exhibit or an overview makes of what it is given.

    One of another package that fails says so in its place, and in the log why: the rest of the report goes on.
    """
    show: Callable[..., Piece | None] = registry[name]
    origin = registry.origin(name)
    if origin == OURS:
        return show(*given)
    try:
        piece = show(*given)
        _check(piece, origin.package, given[1].name if len(given) > 1 else "")
    except (Exception, SystemExit) as error:
        note(f"the {registry.noun} {name!r} of package {origin} failed: {error}")
        text = f"The {registry.noun} {name} of package {origin} failed: {type(error).__name__}.".replace("`", "")
        return Piece(f"<p>{html.escape(text)}</p>", f"`{text}`\n")
    return piece


def _check(piece: object, package: str, ablation: str) -> None:
    """Raises TypeError, ValueError for what would spoil a report: no piece, or files among ours, outside, or shared."""
    if piece is None:
        return
    if not isinstance(piece, Piece):
        raise TypeError(f"a {type(piece).__name__} is no Piece")
    if not isinstance(piece.html, str) or not isinstance(piece.markdown, str):
        raise TypeError("html and markdown of a Piece are texts")
    if not all(isinstance(data, bytes) for data in piece.files.values()):
        raise TypeError("the files of a Piece hold bytes")
    wrong = [path for path in piece.files if not _is_own_file(PurePosixPath(path), package, ablation)]
    if wrong:
        named = f" with {ablation} in their names" if ablation else ""
        raise ValueError(f"its files do not lie in {package}/{named}: {', '.join(wrong)}")


def _is_own_file(path: PurePosixPath, package: str, ablation: str) -> bool:
    return len(path.parts) == 2 and path.parts[0] == package and ablation in path.name and path.name not in ("", "..")
