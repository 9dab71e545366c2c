"""The table of one ablation in the tutorial's shape: reference rows, then KD rows, each score with its error."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.footnotes import footnotes
from ablate.report.exhibits.table_rows import Entry, TableRow, table_rows
from ablate.report.formatting import decimals, number, with_error
from ablate.report.markup import md, render
from ablate.report.metric_names import metric_name
from ablate.report.spreadsheet import to_csv
from ablate.report.words import say
from ablate.results.collect import AblationResult, Metric, Results
from ablate.results.paired import Contrast
from ablate.results.question_scores import Summary
from ablate.results.verdicts import findings_of
from ablate.study.published import read_published


@dataclass(frozen=True)
class Places:
    """Decimals of one column."""

    score: int
    difference: int


@EXHIBITS.register("table", order=10)
def scores_table(results: Results, ablation: AblationResult) -> Piece:
    """-> tables/<ablation>.md and .csv, and the table of the page."""
    published = read_published(results.study.published)
    lines = table_rows(ablation, ablation.columns, published, findings_of(results, ablation))
    values = shown(ablation, ablation.columns, lines) | {"notes": footnotes(results, ablation, lines, published)}
    markdown = render("table.md", **values)
    files = {
        f"tables/{ablation.name}.md": f"# {md(ablation.title)}\n\n{markdown}".encode(),
        f"tables/{ablation.name}.csv": csv(ablation.columns, lines).encode(),
    }
    return Piece(render("table.html", **values), markdown, files, say("fold.scores"))


def shown(ablation: AblationResult, metrics: Sequence[Metric], lines: list[TableRow]) -> dict[str, Any]:
    """-> what the templates of a table show, but for its notes."""
    places = {metric: _places(metric, lines) for metric in metrics}
    rows = [_shown(line, ablation, places) for line in lines]
    return {
        "title": ablation.title,
        "metrics": [metric_name(metric, metrics) for metric in metrics],
        "groups": [(name, list(group)) for name, group in groupby(rows, key=lambda line: line["group"])],
        "has_seeds": any(len(line.result.cells) > 1 for line in lines),
        "has_differences": any(isinstance(e.difference, Contrast) for line in lines for e in line.entries.values()),
    }


def _places(metric: Metric, lines: list[TableRow]) -> Places:
    entries = [line.entries[metric] for line in lines]
    scores = [entry.score for entry in entries if entry.score]
    errors = [score.stderr for score in scores if score.stderr] or [score.sd for score in scores if score.sd]
    differences = [entry.difference.se for entry in entries if isinstance(entry.difference, Contrast)]
    return Places(decimals(errors), decimals(differences))


def _shown(line: TableRow, ablation: AblationResult, places: dict[Metric, Places]) -> dict[str, Any]:
    row = line.result.row
    several_pairs = len({other.row.setting.pair for other in ablation.rows}) > 1
    kind = "Distilled students" if row.model == "distill" else "Reference models"
    return {
        "label": line.label,
        "group": f"{kind}, {row.setting.pair}" if several_pairs else kind,
        "is_control": line.is_control,
        "seeds": line.seeds,
        "news": line.news,
        "is_calm": line.is_calm,
        "is_empty": not line.result.done,
        "entries": [_entry(line.entries[metric], places[metric]) for metric in places],
    }


def _entry(entry: Entry, places: Places) -> dict[str, str]:
    return {
        "score": _score(entry.score, places.score) if entry.score else "",
        "difference": _difference_text(entry.difference, places.difference),
        "published": "" if entry.published is None else number(entry.published, 4),
        "verdict": entry.finding.verdict if entry.finding and entry.finding.contrast else "",
    }


def _score(score: Summary, places: int) -> str:
    if score.seeds == 1:
        return with_error(score.value, score.stderr, places)
    return f"{number(score.value, places)} (sd {number(score.sd or 0.0, places)})"


def _difference_text(difference: Contrast | str | None, places: int) -> str:
    if isinstance(difference, Contrast):
        return with_error(difference.value, difference.se, places, is_signed=True)
    return difference or ""


def csv(metrics: Sequence[Metric], lines: list[TableRow]) -> str:
    """-> the same numbers, all their digits, for a spreadsheet."""
    parts = ("", " stderr", " sd", " difference", " difference se", " verdict", " published")
    names = [f"{metric}{part}" for metric in metrics for part in parts]
    return to_csv([["row", "label", "seeds", "states", *names], *(_fields(line) for line in lines)])


def _fields(line: TableRow) -> list[Any]:
    states = ", ".join(dict.fromkeys(cell.state for cell in line.result.cells))
    return [line.result.row.name, line.label, len(line.result.done), states, *_numbers(line)]


def _numbers(line: TableRow) -> Iterator[float | str | None]:
    for entry in line.entries.values():
        score, difference = entry.score, entry.difference
        yield from (score.value, score.stderr, score.sd) if score else (None, None, None)
        yield from (difference.value, difference.se) if isinstance(difference, Contrast) else (None, None)
        yield entry.finding.verdict if entry.finding else None
        yield entry.published
