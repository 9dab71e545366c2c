"""A garbage collection from beginning to end: what no study at hand needs is found, agreed to and removed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ablate.maintenance import garbage, references
from ablate.maintenance.garbage import Piece, References
from ablate.store.store import Store


class Collected(NamedTuple):
    """What a garbage collection came to."""

    pieces: list[Piece]
    """What was removed, or would be."""
    needed: References
    num_freed: int | None
    """Bytes; None where nothing was agreed to."""


def collect(
    store: Store,
    files: Sequence[Path] = (),
    is_agreed: Callable[[list[Piece], References], bool] = lambda pieces, needed: True,
) -> Collected:
    """Removes what neither the studies that were run under a root need, nor those in files.

    `is_agreed` is asked before anything goes, and may take its time: what was begun meanwhile keeps what it needs.
    """
    needed = references.needed_by_studies(store, files)
    pieces = garbage.find(store, needed)
    if not is_agreed(pieces, needed) or not pieces:
        return Collected(pieces, needed, None)
    needed = references.needed_by_studies(store, files)
    still = {piece.path for piece in garbage.find(store, needed)}
    pieces = [piece for piece in pieces if piece.path in still]
    num_freed = garbage.remove(store, pieces, needed, lambda: references.needed_by_studies(store, files))
    return Collected(pieces, needed, num_freed)
