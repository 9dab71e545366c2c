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
from ablate.report.words import say
from ablate.results.collect import AblationResult, Results, RowResult
from ablate.results.question_scores import mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOSSES = ("class_loss", "bits_per_byte", "forward_kl", "reverse_kl")
PLACES = 4


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
        title=say("held_out.title", title=ablation.title),
        caption=" ".join([say("held_out.caption"), *_caution(rows)]),
    )
    return joined(drawn, _table(ablation, rows, losses), fold=say("fold.held_out"))


def _caution(rows: Sequence[RowResult]) -> Iterator[str]:
    """-> what the dots are, and a warning where rows were not measured on the same tokens."""
    if any(len(row.held_out) > 1 for row in rows):
        yield say("held_out.seeds")
    settings = [(row.row.setting.pair, row.row.setting.data.model_dump_json()) for row in rows]
    if _has_several_tokenizers(rows):
        yield say("held_out.other_tokenizers")
    elif len(set(settings)) > 1:
        yield say("held_out.other_data")


def _has_several_tokenizers(rows: Sequence[RowResult]) -> bool:
    """Whether the same held-out rows are other tokens to some of the models."""
    nums: dict[str, set[int]] = {}
    for row in rows:
        for measured in row.held_out.values():
            nums.setdefault(row.row.setting.data.model_dump_json(), set()).add(int(measured["tokens"]))
    return any(len(several) > 1 for several in nums.values())


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
    ax.set_title(say("held_out.panel", loss=loss))
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
        summary=say("held_out.numbers"),
        region="Held-out losses",
        caption=say("held_out.numbers_caption", tokens=listed(tokens)),
        head=("Seeds", "Model", *losses),
        lines=[(str(len(row.held_out)), row.row.label, *_cells(row, losses)) for row in rows],
        note=say("held_out.no_error"),
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
    return say("held_out.alt", loss=loss, rows=plural(len(known), "row"), losses=texts)
