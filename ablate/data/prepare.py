"""From a data source to token rows: rendered, cut to the length limit, counted, a part held out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.core.errors import StageError
from ablate.core.values import Json
from ablate.data import render, rows, tokens
from ablate.data.masks import TokenRow
from ablate.study.data_settings import COLUMNS, Data


@dataclass(frozen=True)
class Prepared:
    """Token rows and what was met on the way."""

    train: tokens.TokenRows
    holdout: tokens.TokenRows
    summary: dict[str, Json]
    notes: list[Json]
    """What a reader should know: rows cut, empty, missing or without a loss-bearing token."""


def prepare(path: Path, data: Data, tokenizer: Any, on_progress: Callable[[int, int], None]) -> Prepared:
    """-> the rows of a source as tokens.

    The held-out rows are the last ones. Raises StageError for data that cannot be read, or leaves nothing to train on.
    """
    raw_rows = rows.read(path, data)
    if data.holdout >= len(raw_rows):
        raise StageError(f"data.holdout: {data.holdout} rows of {len(raw_rows)} would leave none to train on")
    template = render.template(tokenizer, data)
    by_row = _rendered(raw_rows, template, data, on_progress)
    num_train = len(by_row) - data.holdout
    train, holdout = (_laid(part, data.max_length) for part in (by_row[:num_train], by_row[num_train:]))
    if train.counts.loss_tokens == 0:
        raise StageError(f"{data.source}: no token of its {num_train} training rows counts in the loss; {_why(data)}")
    oddities = _oddities(raw_rows, [token_row for several in by_row for token_row in several], data)
    rendering = template.tally.counts()
    summary = _summary(train, holdout, template.name, len(tokenizer)) | oddities | {"rendering": rendering._asdict()}
    return Prepared(train, holdout, summary, [*_notes(train, oddities), *rendering.notes()])


def _rendered(
    raw_rows: list[rows.Row], template: render.Template, data: Data, on_progress: Callable[[int, int], None]
) -> list[list[TokenRow]]:
    by_row = []
    for number, row in enumerate(raw_rows, 1):
        try:
            by_row.append(template.render(row))
        except StageError as error:
            raise StageError(f"{data.source}, row {number}: {error}", error.failure) from error
        on_progress(number, len(raw_rows))
    return by_row


def _laid(by_row: list[list[TokenRow]], max_length: int | None) -> tokens.TokenRows:
    return tokens.lay(_cut(token_row, max_length) for several in by_row for token_row in several)


def _cut(row: TokenRow, max_length: int | None) -> TokenRow:
    return row if max_length is None else TokenRow(row.ids[:max_length], row.loss_mask[:max_length])


def _oddities(raw_rows: list[rows.Row], token_rows: list[TokenRow], data: Data) -> dict[str, Json]:
    answer = COLUMNS[data.format][-1]
    return {
        "cut": sum(len(row.ids) > (data.max_length or len(row.ids)) for row in token_rows),
        "empty": sum(not (row[answer] if answer == "messages" else rows.as_text(row[answer])) for row in raw_rows),
        "missing": rows.num_missing(raw_rows, COLUMNS[data.format]),
    }


def _summary(train: tokens.TokenRows, holdout: tokens.TokenRows, template: str, size: int) -> dict[str, Json]:
    return {
        "train": train.counts._asdict(),
        "holdout": holdout.counts._asdict(),
        "template": template,
        "vocabulary": size,
        "longest": int(max(train.lengths.max(initial=0), holdout.lengths.max(initial=0))),
        "content": tokens.content([train, holdout], size),
    }


def _notes(train: tokens.TokenRows, oddities: dict[str, Json]) -> list[Json]:
    counts = {
        "rows were cut to data.max_length": oddities["cut"],
        "rows have an empty answer": oddities["empty"],
        "rows have a missing value (null, NaN), read as empty": oddities["missing"],
        "training rows have no token that counts in the loss": train.counts.without_loss,
    }
    return [f"{number} {what}" for what, number in counts.items() if number]


def _why(data: Data) -> str:
    if data.max_length is not None:
        return f"data.max_length: {data.max_length} may cut every answer off"
    return "are the answers empty, or data.columns the wrong ones?"
