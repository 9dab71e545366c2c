"""Losses on rows that no training saw, whatever was minimised: dots, one panel a loss."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ablate.report import plot_style
from ablate.report.exhibits.base import EXHIBITS, Piece, joined
from ablate.report.exhibits.figure import Panel, figure
from ablate.report.exhibits.folded_table import folded_table
from ablate.report.formatting import listed, number, plural
from ablate.report.labels import on_lines, one_line
from ablate.report.spreadsheet import to_csv
from ablate.results.collect import AblationResult, Results, RowResult
from ablate.results.question_scores import mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOSSES = ("class_loss", "bits_per_byte", "forward_kl", "reverse_kl")
PLACES = 4
NOTE = (
    "Means over the loss-bearing tokens of rows that no training saw, at temperature 1, in nats, whatever was"
    " minimised; no error is told, for tokens of one row are not independent."
)


@EXHIBITS.register("losses-held-out", order=120)
def held_out(results: Results, ablation: AblationResult) -> Piece | None:
    """-> figures/<ablation>-held-out and tables/<ablation>-held-out.csv; None where no rows were held out."""
    rows = [row for row in ablation.rows if row.held_out and not row.row.model.startswith("teacher/")]
    losses = [loss for loss in LOSSES if any(_values(row, loss) for row in rows)]
    if not _has_several_tokenizers(rows):
        losses = [loss for loss in losses if loss != "bits_per_byte"]
    if not any(row.row.model == "distill" for row in rows):
        return None
    name = f"{ablation.name}-held-out"
    drawn = figure(
        name,
        partial(_picture, rows, losses),
        [Panel(f"{name}-{loss}", partial(_picture, rows, [loss]), _alt(rows, loss)) for loss in losses],
        title=f"Held-out losses: {ablation.title}",
        caption=f"{NOTE} {_seeds(rows)}The divergences are those from each row's own teacher.{_unlike(rows)}",
    )
    return joined(drawn, _table(ablation, rows, losses), fold="Losses on rows that were held out")


def _seeds(rows: Sequence[RowResult]) -> str:
    return "Small dots: single seeds; large: their mean. " if any(len(row.held_out) > 1 for row in rows) else ""


def _has_several_tokenizers(rows: Sequence[RowResult]) -> bool:
    """Whether the same held-out rows are other tokens to some of the models."""
    nums: dict[str, set[int]] = {}
    for row in rows:
        for measured in row.held_out.values():
            nums.setdefault(row.row.setting.data.model_dump_json(), set()).add(int(measured["tokens"]))
    return any(len(several) > 1 for several in nums.values())


def _unlike(rows: Sequence[RowResult]) -> str:
    """-> a warning where rows were not measured on the same tokens."""
    settings = [(row.row.setting.pair, row.row.setting.data.model_dump_json()) for row in rows]
    if _has_several_tokenizers(rows):
        return (
            " Not one scale: the rows are other tokens to models of other tokenizers. bits_per_byte is one scale: the"
            " class loss in bits over the bytes of the text."
        )
    return " Not one scale: other pairs or other data are other tokens." if len(set(settings)) > 1 else ""


def _values(row: RowResult, loss: str) -> list[float]:
    """-> one a seed; none where the row has no such loss."""
    return [losses[loss] for losses in row.held_out.values() if loss in losses]


def _picture(rows: Sequence[RowResult], losses: Sequence[str]) -> "Figure":
    figure, axes = plot_style.panels(len(losses), 3.4, 0.95 + 0.34 * len(rows), sharey=True)
    figure.set_figwidth(3.0 * len(losses) + 2.0)
    for ax, loss in zip(axes, losses, strict=True):
        _draw(ax, rows, loss)
    return figure


def _draw(ax: "Axes", rows: Sequence[RowResult], loss: str) -> None:
    ax.set_title(f"{loss}, held out")
    plot_style.name_rows(ax, on_lines([row.row.label for row in rows], 32))
    ax.margins(x=0.08)
    for y, row in enumerate(rows):
        values = _values(row, loss)
        if values:
            _draw_row(ax, row, values, y)
    ax.locator_params(axis="x", nbins=5)


def _draw_row(ax: "Axes", row: RowResult, values: Sequence[float], y: int) -> None:
    is_distilled = row.row.model == "distill"
    label = f"{one_line(row.row.label)} {_values_text(values)}"
    plot_style.draw_dots(ax, y, mean(values), values, is_distilled=is_distilled, label=label)


def _values_text(values: Sequence[float]) -> str:
    """`1.2345`, or `1.2345 (1.2301 to 1.2402)` over seeds."""
    ends = f" ({number(min(values), PLACES)} to {number(max(values), PLACES)})" if len(values) > 1 else ""
    return number(mean(values), PLACES) + ends


def _table(ablation: AblationResult, rows: Sequence[RowResult], losses: Sequence[str]) -> Piece:
    tokens = dict.fromkeys(f"{int(measured['tokens']):,}" for row in rows for measured in row.held_out.values())
    return folded_table(
        title=ablation.title,
        summary="Held-out losses as numbers",
        region="Held-out losses",
        caption=f"Over {listed(tokens)} tokens.",
        head=("Seeds", "Model", *losses),
        lines=[(str(len(row.held_out)), row.row.label, *_cells(row, losses)) for row in rows],
        note=NOTE,
        files={f"tables/{ablation.name}-held-out.csv": to_csv(_csv(rows, losses))},
    )


def _cells(row: RowResult, losses: Sequence[str]) -> Iterator[str]:
    for loss in losses:
        values = _values(row, loss)
        yield _values_text(values) if values else ""


def _csv(rows: Sequence[RowResult], losses: Sequence[str]) -> Iterator[list[object]]:
    yield ["row", "label", "seed", "tokens", *losses]
    for row in rows:
        for seed, measured in row.held_out.items():
            yield [row.row.name, row.row.label, seed, int(measured["tokens"]), *(measured.get(loss) for loss in losses)]


def _alt(rows: Sequence[RowResult], loss: str) -> str:
    """The losses in words."""
    known = [(row, values) for row in rows if (values := _values(row, loss))]
    texts = ", ".join(f"{one_line(row.row.label)} {_values_text(values)}" for row, values in known)
    return f"{loss} on held-out rows, {plural(len(known), 'row')}: {texts}."
