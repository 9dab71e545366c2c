"""Ablation studies of knowledge distillation: a study file in, comparison tables and loss curves out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

    from ablate.garbage import Piece
    from ablate.integrity import Damage, Tell
    from ablate.planning import Plan
    from ablate.schedule import Summary
    from ablate.spec.schema import Study
    from ablate.trials import Line

__version__ = "0.1.0"


def load(path: str | Path, overrides: Sequence[str] = ()) -> "Study":
    """Reads a study file, edited by overrides such as "train.lr=1e-4". Raises StudyError with every mistake in it."""
    from ablate.spec.load import load as load_study

    return load_study(Path(path), overrides)


def plan(path: str | Path, overrides: Sequence[str] = (), *, root: str | Path = ".") -> "Plan":
    """-> the stages that follow from a study file, and what is done of them under `root`."""
    from ablate.session import open_study

    return open_study(Path(path), Path(root), overrides).plan()


def run(
    path: str | Path, overrides: Sequence[str] = (), *, root: str | Path = ".", is_rehearsal: bool = False
) -> "Summary":
    """Brings a study to its end, or further towards it, and writes its report."""
    from ablate.running import run_study
    from ablate.session import open_study

    return run_study(open_study(Path(path), Path(root), overrides, is_rehearsal=is_rehearsal))


def results(
    path: str | Path | None = None, overrides: Sequence[str] = (), *, root: str | Path = "."
) -> "pandas.DataFrame":
    """-> one line per (ablation, row, seed, task, metric): value, stderr, n, key, state.

    No path: the study run last.
    """
    from ablate.scores import collect, frame
    from ablate.session import session_of

    session = session_of(Path(path) if path else None, Path(root), overrides)
    return frame(collect(session.plan(is_online=False)))


def verify(*, root: str | Path = ".", tell: "Tell | None" = None) -> "list[Damage]":
    """-> everything under a root that is not as it was written; `tell` hears of bytes read, all bytes, what is next."""
    from ablate import integrity
    from ablate.store import Store

    return integrity.verify(integrity.parts(Store(Path(root))), tell or integrity.silent)


def gc(paths: Sequence[str | Path] = (), *, root: str | Path = ".", is_dry: bool = False) -> "list[Piece]":
    """Removes what no study that was run under `root` needs, nor any study file of `paths`. -> what it was."""
    from ablate import garbage, references
    from ablate.store import Store

    store, files = Store(Path(root)), [Path(path) for path in paths]
    needed = references.needed(store, files)
    pieces = garbage.find(store, needed)
    if pieces and not is_dry:
        garbage.remove(store, pieces, needed, lambda: references.needed(store, files))
    return pieces


def doctor(*, root: str | Path = ".") -> "list[Line]":
    """-> whether this machine is fit to run studies under a root, thing by thing."""
    from ablate import fitness

    return list(fitness.doctor(Path(root)))
