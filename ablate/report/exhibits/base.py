"""What an exhibit is (results in, a piece of the report and its files out), and the registries of all of them."""

from dataclasses import dataclass, field
from typing import Protocol

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


def joined(*pieces: Piece) -> Piece:
    """-> one piece after the other."""
    files = {path: data for piece in pieces for path, data in piece.files.items()}
    return Piece("\n".join(piece.html for piece in pieces), "\n".join(piece.markdown for piece in pieces), files)


class Exhibit(Protocol):
    """Shows one ablation. Registered in `EXHIBITS` by a module of this folder, under a name that sorts it."""

    def __call__(self, results: Results, ablation: AblationResult) -> Piece | None:
        """-> the piece, or None where there is nothing to show yet."""


class Overview(Protocol):
    """Shows a whole study. Registered in `OVERVIEWS` by a module of this folder, under a name that sorts it."""

    def __call__(self, results: Results) -> Piece | None:
        """-> the piece, or None where there is nothing to show yet."""


EXHIBITS: Registry[Exhibit] = Registry("exhibit", "ablate.report.exhibits")
"""In the order of the page: their names start with a number."""
OVERVIEWS: Registry[Overview] = Registry("overview", "ablate.report.exhibits")
"""At the end of the page, in the order of their names."""
