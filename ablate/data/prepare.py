"""From a data source to token rows: rendered, cut to the length limit, counted, a part held out."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from ablate.core.errors import StageError
from ablate.core.time_limit import TooLong, Watch
from ablate.core.values import Json, digest
from ablate.data import oddities, render, rows, tokens
from ablate.data.aligned_spans import num_loss_bytes
from ablate.data.masks import TokenRow
from ablate.data.token_texts import token_texts
from ablate.study.data_settings import Data
from ablate.study.row_files.raw import UnreadableRows
from ablate.study.row_files.shapes import require_answers

ROW_LIMIT_S = 120.0
"""Of computing, for the text of one row: a template may be one that never ends."""


@dataclass(frozen=True)
class Prepared:
    """Token rows and what was met on the way."""

    train: tokens.TokenRows
    holdout: tokens.TokenRows
    summary: dict[str, Json]
    notes: list[str]
    """What a reader should know: rows cut, empty, missing or without a loss-bearing token."""


def prepare(path: Path, data: Data, tokenizer: Any, on_progress: Callable[[int, int], None]) -> Prepared:
    """-> the rows of a source as tokens.

    The held-out rows are the last ones. Raises StageError for data that cannot be read, or leaves nothing to train on.
    """
    read = rows.read_with_counts(path, data)
    try:
        require_answers(read.tally, data)
    except UnreadableRows as error:
        raise StageError(str(error)) from error
    num_train = len(read.rows) - data.holdout
    if num_train <= 0:
        raise StageError(f"data.holdout: {data.holdout} rows of {len(read.rows)} would leave none to train on")
    template = render.template(tokenizer, data)
    by_row = _rendered(read.rows, template, data, on_progress)
    cut = [[_cut(token_row, data.max_length) for token_row in several] for several in by_row]
    train, holdout = (tokens.lay(chain.from_iterable(part)) for part in (cut[:num_train], cut[num_train:]))
    counts = oddities.counts(read, by_row, cut, num_train)
    rendering = template.tally.counts()
    if train.counts.loss_tokens == 0:
        why = oddities.why_nothing_counts(counts, rendering, data.max_length)
        raise StageError(f"{data.source}: no token of its training rows ({num_train:,}) counts in the loss; {why}")
    notes = [*oddities.notes(counts), *rendering.notes()]
    further: dict[str, Json] = {"rendering": rendering._asdict(), "notes": list(notes)}
    further |= _holdout_bytes(holdout, tokenizer) | _several_texts(cut[:num_train])
    summary = _summary(train, holdout, template.name, len(tokenizer)) | counts | further
    return Prepared(train, holdout, summary, notes)


def _holdout_bytes(holdout: tokens.TokenRows, tokenizer: Any) -> dict[str, Json]:
    """-> how much text the held-out rows' losses are of, so that models of other tokenizers can be compared."""
    if not (len(holdout) and getattr(tokenizer, "is_fast", False)):
        return {}
    return {"holdout_bytes": num_loss_bytes(holdout, token_texts(tokenizer))}


def _several_texts(by_row: list[list[TokenRow]]) -> dict[str, Json]:
    """-> digest of how many texts each row of the data became; nothing where each is one."""
    nums: list[Json] = [len(texts) for texts in by_row]
    return {} if set(nums) == {1} else {"several_texts": digest(nums)}


def _rendered(
    raw_rows: list[rows.Row], template: render.Template, data: Data, on_progress: Callable[[int, int], None]
) -> list[list[TokenRow]]:
    by_row = []
    with Watch(ROW_LIMIT_S).looking() as watch:
        for number, row in enumerate(raw_rows, 1):
            try:
                by_row.append(watch.call(lambda: f"its text by the template ({template.name})", template.render, row))
            except (StageError, TooLong) as error:
                failure = error.failure if isinstance(error, StageError) else "error"
                raise StageError(f"{data.source}, row {number}: {error}", failure) from error
            on_progress(number, len(raw_rows))
    return by_row


def _cut(row: TokenRow, max_length: int | None) -> TokenRow:
    return row if max_length is None else TokenRow(row.ids[:max_length], row.loss_mask[:max_length])


def _summary(train: tokens.TokenRows, holdout: tokens.TokenRows, template: str, size: int) -> dict[str, Json]:
    return {
        "train": train.counts._asdict(),
        "holdout": holdout.counts._asdict(),
        "template": template,
        "vocabulary": size,
        "longest": int(max(train.lengths.max(initial=0), holdout.lengths.max(initial=0))),
        "content": tokens.content([train, holdout], size),
    }
