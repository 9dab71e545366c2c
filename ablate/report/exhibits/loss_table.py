"""The loss curves as numbers: where each stands at the quarters of its training."""

from collections.abc import Iterator, Sequence

from ablate.report.exhibits.base import Piece
from ablate.report.exhibits.curves import LOSSES, Curve, betas_text
from ablate.report.exhibits.folded_table import folded_table
from ablate.report.formatting import number
from ablate.report.spreadsheet import to_csv

QUARTERS = ("first", "25 %", "50 %", "75 %", "last")
PLACES = 4


def loss_table(name: str, title: str, curves: Sequence[Curve]) -> Piece:
    """-> the table folded below an ablation's curves, and tables/<name>-losses.csv with all digits."""
    known = [(loss, curve) for loss in LOSSES for curve in curves if curve.has(loss)]
    return folded_table(
        title=title,
        summary="Losses as numbers, at the quarters of each training",
        region="Losses",
        caption=f"Moving averages, beta {betas_text(curves)}.",
        head=("Loss", "Model", "Seed", "Steps", *QUARTERS),
        lines=[
            (*_about(loss, curve), *(number(value, PLACES) for value in _quarters(curve, loss)))
            for loss, curve in known
        ],
        note="Steps: optimizer steps until the training ended, or the loss was no longer finite.",
        files={f"tables/{name}-losses.csv": to_csv(_csv(known))},
    )


def _about(loss: str, curve: Curve) -> tuple[str, str, str, str]:
    seed = curve.cell.cell.seed
    return loss, curve.label, "" if seed is None else str(seed), f"{len(curve.raw[loss]):,}"


def _quarters(curve: Curve, loss: str) -> Iterator[float]:
    smooth = curve.smooth[loss]
    yield from (smooth[round(quarter * (len(smooth) - 1) / 4)] for quarter in range(5))


def _csv(known: Sequence[tuple[str, Curve]]) -> Iterator[list[object]]:
    yield ["loss", "row", "label", "seed", "steps", *QUARTERS]
    for loss, curve in known:
        cell = curve.cell.cell
        yield [loss, cell.row.name, curve.label, cell.seed, len(curve.raw[loss]), *_quarters(curve, loss)]
