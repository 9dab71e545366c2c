"""Training curves as numbers: where each stands at the quarters of its training."""

from collections.abc import Iterator, Sequence

from ablate.report.exhibits.base import Piece
from ablate.report.exhibits.curve_panels import Sheet
from ablate.report.exhibits.curves import Curve, betas_text
from ablate.report.exhibits.folded_table import folded_table
from ablate.report.formatting import number
from ablate.report.spreadsheet import to_csv
from ablate.report.words import say

QUARTERS = ("first", "25 %", "50 %", "75 %", "last")
PLACES = 4


def measures_table(sheet: Sheet, title: str, measures: Sequence[str], *, what: str = "Losses") -> Piece:
    """-> the table folded below curves, and tables/<name>.csv with all digits. `what`: what the measures are of."""
    known = [(measure, curve) for measure in measures for curve in sheet.curves if curve.has(measure)]
    column = "Loss" if what == "Losses" else "Measure"
    return folded_table(
        title=title,
        summary=say("losses.numbers", what=what),
        region=what,
        caption=say("losses.numbers_caption", betas=betas_text(sheet.curves)),
        head=(column, "Model", "Seed", "Steps", *QUARTERS),
        lines=[
            (*_about(measure, curve), *(number(value, PLACES) for value in _quarters(curve, measure)))
            for measure, curve in known
        ],
        note=say("losses.numbers_note", column=column.lower()),
        files={f"tables/{sheet.name}.csv": to_csv(_csv(column.lower(), known))},
    )


def _about(loss: str, curve: Curve) -> tuple[str, str, str, str]:
    seed = curve.cell.cell.seed
    return loss, curve.label, "" if seed is None else str(seed), f"{len(curve.raw[loss]):,}"


def _quarters(curve: Curve, loss: str) -> Iterator[float]:
    smooth = curve.smooth[loss]
    yield from (smooth[round(quarter * (len(smooth) - 1) / 4)] for quarter in range(5))


def _csv(column: str, known: Sequence[tuple[str, Curve]]) -> Iterator[list[object]]:
    yield [column, "row", "label", "seed", "steps", *QUARTERS]
    for loss, curve in known:
        cell = curve.cell.cell
        yield [loss, cell.row.name, curve.label, cell.seed, len(curve.raw[loss]), *_quarters(curve, loss)]
