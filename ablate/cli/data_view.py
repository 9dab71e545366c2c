"""What `data` prints: training rows decoded with what counts in the loss, their lengths, what was cut or left out."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from ablate.cli.console import printable
from ablate.core.errors import AblateError, StageError
from ablate.core.values import Json
from ablate.planning.row_sets import Located, RowSet

if TYPE_CHECKING:
    from ablate.data.row_samples import Bin, Piece, Sample
    from ablate.data.tokens import TokenRows

OPENING, CLOSING = "{+", "+}"
"""Around what counts in the loss, where there is no colour."""
BAR = 40


@dataclass(frozen=True)
class OtherTokenizer:
    """A teacher's tokenizer that is not the student's: how they differ, and the rows by it."""

    model: str
    differences: tuple[str, ...]
    samples: tuple["Sample", ...]


@dataclass(frozen=True)
class ShownRows:
    """A set of rows, as far as a reader wants to see it."""

    name: str
    pairs: tuple[str, ...]
    student: str
    is_made: bool
    """By a committed stage; else for this look alone."""
    template: str
    counts: dict[str, Json]
    """rows, tokens, loss_tokens, without_loss of the training rows; holdout; cut."""
    notes: tuple[str, ...]
    max_length: int | None
    longest: int
    lengths: tuple["Bin", ...]
    samples: tuple["Sample", ...]
    teachers: tuple[OtherTokenizer, ...]


def shown_rows(row_set: RowSet, num_rows: int) -> ShownRows:
    """-> the rows as their stage has them, or made now. Raises AblateError where model or data are not here."""
    from ablate.data import row_samples, tokens
    from ablate.data.prepare import prepare
    from ablate.data.tokenizers import load_tokenizer

    student = _path_of(row_set.student)
    tokenizer = load_tokenizer(student, row_set.student.trust_remote_code)
    if row_set.folder:
        rows: TokenRows = tokens.load(row_set.folder / "out" / "train.safetensors")
        summary, notes = row_set.summary, row_set.notes
    else:
        prepared = prepare(_path_of(row_set.source), row_set.data, tokenizer, lambda done, total: None)
        rows, summary, notes = prepared.train, prepared.summary, [str(note) for note in prepared.notes]
    return ShownRows(
        name=row_set.name,
        pairs=row_set.pairs,
        student=row_set.student.name,
        is_made=row_set.folder is not None,
        template=str(summary["template"]),
        counts={**rows.counts._asdict(), "held_out": summary["holdout"]["rows"], "cut": summary["cut"]},
        notes=tuple(notes),
        max_length=row_set.data.max_length,
        longest=int(rows.lengths.max(initial=0)),
        lengths=tuple(row_samples.histogram(rows.lengths.tolist())),
        samples=tuple(row_samples.samples(rows, tokenizer, num_rows, row_set.data.max_length)),
        teachers=tuple(_other_tokenizers(row_set, tokenizer, num_rows)),
    )


def _path_of(located: Located) -> Path:
    if located.path is None:
        raise AblateError(
            f"{located.name} is not on this machine yet: `ablate run` fetches it before all else, with --rehearse too"
        )
    return located.path


def _other_tokenizers(row_set: RowSet, tokenizer: Any, num_rows: int) -> Iterator[OtherTokenizer]:
    from ablate.data.tokenizers import compare, load_tokenizer

    for teacher in row_set.teachers:
        if teacher.path is None:
            continue
        own = load_tokenizer(teacher.path, teacher.trust_remote_code)
        differences = compare(teacher.path, _path_of(row_set.student))
        if own.chat_template != tokenizer.chat_template:
            differences.append("chat template: rows are rendered by the student's")
        if differences:
            yield OtherTokenizer(teacher.name, tuple(differences), tuple(_samples_by(own, row_set, num_rows)))


def _samples_by(tokenizer: Any, row_set: RowSet, num_rows: int) -> list["Sample"]:
    """-> the first rows by another tokenizer; none where the data are not here, or it cannot render them."""
    from ablate.data import row_samples
    from ablate.data.prepare import prepare

    if row_set.source.path is None or not num_rows:
        return []
    first = row_set.data.model_copy(update={"limit": num_rows, "holdout": 0})
    try:
        prepared = prepare(row_set.source.path, first, tokenizer, lambda done, total: None)
    except StageError:
        return []
    return row_samples.samples(prepared.train, tokenizer, num_rows, first.max_length)


def data_record(study: str, shown: list[ShownRows]) -> dict[str, Any]:
    """-> all of it, for a machine."""
    return {"study": study, "sets": [_plain(asdict(rows)) for rows in shown]}


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def print_data(console: Console, shown: list[ShownRows]) -> None:
    """Rows as text: what counts in the loss in colour, or between marks."""
    has_colour = console.is_terminal and not console.no_color
    for rows in shown:
        for line in headlines(rows):
            console.print(Text(line), soft_wrap=True)
        for line in _bars(rows.lengths):
            console.print(Text(line), soft_wrap=True)
        for title, samples in sample_groups(rows):
            for one in samples:
                console.print(Text(f"\n{title} {sample_title(one)}", "bold" if has_colour else ""), soft_wrap=True)
                console.print(_styled(one.pieces, has_colour), soft_wrap=True)
        console.print()
    counting = Text("in green", "bold green") if has_colour else Text(f"between {OPENING} and {CLOSING}")
    console.print(Text("What counts in the loss is ") + counting + Text("."))


def headlines(rows: ShownRows) -> Iterator[str]:
    """-> what a set is, its counts, and what a reader should know of it."""
    origin = "as made by its stage" if rows.is_made else "made for this look; the study has not made them yet"
    yield f"{rows.name} for {rows.student} (pair {', '.join(rows.pairs)}), template {rows.template}: {origin}"
    counts: dict[str, Any] = rows.counts
    yield (
        f"{counts['rows']:,} training rows, {counts['held_out']:,} held out; {counts['tokens']:,} tokens, "
        f"{counts['loss_tokens']:,} of them count in the loss"
    )
    limit = "no limit" if rows.max_length is None else f"limit {rows.max_length:,}"
    yield f"longest row {rows.longest:,} tokens, {limit}; {counts['cut']:,} rows cut"
    yield from (f"note: {note}" for note in rows.notes)
    for teacher in rows.teachers:
        yield f"the tokenizer of {teacher.model} differs: {'; '.join(teacher.differences)}"


def sample_groups(rows: ShownRows) -> Iterator[tuple[str, tuple["Sample", ...]]]:
    """-> the rows by the student's tokenizer, then by others."""
    yield "row", rows.samples
    yield from ((f"by the tokenizer of {teacher.model}: row", teacher.samples) for teacher in rows.teachers)


def sample_title(one: "Sample") -> str:
    cut = ", as long as a row may be: its end may be cut off" if one.is_cut else ""
    return f"{one.number}: {one.num_tokens:,} tokens, {one.num_counting:,} count{cut}"


def _bars(lengths: tuple["Bin", ...]) -> Iterator[str]:
    most = max((part.rows for part in lengths), default=1)
    for part in lengths:
        bar = "#" * max(round(BAR * part.rows / most), int(part.rows > 0))
        yield f"  {part.shortest:>7,} to {part.longest:>7,} tokens  {part.rows:>7,}  {bar}".rstrip()


def _styled(pieces: tuple["Piece", ...], has_colour: bool) -> Text:
    text = Text()
    for piece in pieces:
        visible = printable(piece.text)
        if has_colour:
            text.append(visible, "bold green" if piece.counts else "dim")
        else:
            text.append(f"{OPENING}{visible}{CLOSING}" if piece.counts else visible)
    return text
