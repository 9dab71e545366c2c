"""The table that answers: every row by the primary metric, its difference, the gap it recovers; other metrics small."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import Any

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.table_rows import Entry, TableRow, table_rows
from ablate.report.formatting import decimals, percent
from ablate.report.markup import render
from ablate.report.metric_names import metric_name
from ablate.report.score_text import is_share, number_text, shown_places
from ablate.report.words import say
from ablate.results.collect import AblationResult, Metric, Results, RowResult
from ablate.results.gap_recovered import Gap, gap_of
from ablate.results.marks import marks_of
from ablate.results.paired import Contrast
from ablate.results.question_scores import Summary
from ablate.results.verdicts import findings_of
from ablate.study.published import read_published

MOST_OTHERS = 5
"""Metrics beside the primary one; the whole table has them all."""
SETTLED = ("better", "worse", "equivalent")


@dataclass(frozen=True)
class MainTable:
    """The table of one ablation."""

    results: Results
    ablation: AblationResult

    def values(self) -> dict[str, Any]:
        """-> what the templates show."""
        metrics, published = self.ablation.columns, read_published(self.results.study.published)
        primary, others = metrics[:1], metrics[1 : 1 + MOST_OTHERS]
        rows = table_rows(self.ablation, metrics, published, findings_of(self.results, self.ablation))
        lines = [self._line(number, row, [*primary, *others]) for number, row in enumerate(rows)]
        return {
            "title": self.ablation.title,
            "heads": [_head(metric, metrics) for metric in (*primary, *others)],
            "groups": [(name, list(group)) for name, group in groupby(lines, key=lambda line: line["group"])],
            "has_differences": any(line["difference"] for line in lines),
            "has_intervals": any(line["interval"] for line in lines),
            "has_gaps": any(line["gap"] for line in lines),
            "notes": list(self._notes(lines, len(metrics) - len(primary) - len(others))),
        }

    def _line(self, number: int, row: TableRow, metrics: Sequence[Metric]) -> dict[str, Any]:
        entries = [row.entries[metric] for metric in metrics]
        places = [self._places(metric) for metric in metrics]
        gap = gap_of(self.results, self.ablation, row.result, metrics[0]) if metrics and row.result.done else None
        return {
            "id": row_id(self.ablation, number),
            "label": row.label,
            "group": _group(self.results, row.result),
            "is_control": row.is_control,
            "is_empty": not row.result.done,
            "is_calm": row.is_calm,
            "news": row.news,
            "marks": [mark.kind for mark in marks_of(self.results, self.ablation) if mark.row is row.result],
            "scores": [_score(*cell) for cell in zip(metrics, entries, places, strict=True)],
            "published": [_published(*cell) for cell in zip(metrics, entries, strict=True)],
            "gap": _gap_text(gap),
            **(_difference(metrics[0], entries[0], places[0]) if metrics else NO_DIFFERENCE),
        }

    def _places(self, metric: Metric) -> int:
        """-> decimals of a metric as it is shown, in hundredths where it is a share."""
        scores = [score for row in self.ablation.rows if (score := row.score(metric))]
        errors = [error for score in scores if (error := score.stderr or score.sd)]
        places = decimals([median(errors)] if errors else [])
        return shown_places(metric, places)

    def _notes(self, lines: Sequence[dict[str, Any]], num_hidden: int) -> Iterator[str]:
        several = any(len(row.done) > 1 for row in self.ablation.rows)
        if self.ablation.columns:
            yield say("table.errors_of_seeds" if several else "table.errors_of_questions")
        if any(line["interval"] for line in lines):
            yield say("table.differences")
        if any(line["gap"] for line in lines):
            yield say("table.gaps")
        refusals = dict.fromkeys(line["gap"]["why"] for line in lines if line["gap"] and line["gap"]["why"])
        yield from (say("table.no_gap", why=why) for why in refusals)
        if num_hidden:
            yield say("table.more_metrics", num=num_hidden)


@EXHIBITS.register("table-main", order=6)
def main_table(results: Results, ablation: AblationResult) -> Piece:
    """-> the open table of the page; the whole one is folded below it, and in tables/<ablation>.md and .csv."""
    values = MainTable(results, ablation).values()
    return Piece(render("main_table.html", **values), render("main_table.md", **values))


def row_id(ablation: AblationResult, number: int) -> str:
    """-> what a row of the page is linked by; no name of an ablation begins so."""
    return f"row+{ablation.name}+{number}"


def _head(metric: Metric, metrics: Sequence[Metric]) -> str:
    return metric_name(metric, metrics) + (" (%)" if is_share(metric) else "")


def _group(results: Results, row: RowResult) -> str:
    """-> with the pair where the study has several: a student has other scores in each."""
    kind = "Distilled students" if row.row.model == "distill" else "Reference models"
    return f"{kind}, {row.row.setting.pair}" if len(results.study.pairs) > 1 else kind


def _score(metric: Metric, entry: Entry, places: int) -> dict[str, str]:
    score = entry.score
    if score is None:
        return {"value": "", "error": ""}
    value = number_text(metric, score.value, places) if math.isfinite(score.value) else "NaN"
    return {"value": value, "error": _error(metric, score, places)}


def _error(metric: Metric, score: Summary, places: int) -> str:
    if not math.isfinite(score.value):
        return ""
    if score.seeds > 1:
        return f"(sd {number_text(metric, score.sd or 0.0, places)})"
    return "" if score.stderr is None else f"± {number_text(metric, score.stderr, places)}"


def _published(metric: Metric, entry: Entry) -> str:
    return "" if entry.published is None else number_text(metric, entry.published, 2 if is_share(metric) else 4)


NO_DIFFERENCE = {"difference": "", "interval": "", "verdict": ""}


def _difference(metric: Metric, entry: Entry, places: int) -> dict[str, str]:
    """-> the difference to the control; an interval and a verdict of distilled rows, which the page compares."""
    difference, finding = entry.difference, entry.finding
    if not isinstance(difference, Contrast):
        return NO_DIFFERENCE | {"difference": difference or ""}
    shown = NO_DIFFERENCE | {"difference": number_text(metric, difference.value, places, is_signed=True)}
    if finding is None or finding.contrast is None or math.isnan(finding.low):
        return shown
    ends = [number_text(metric, end, places, is_signed=True) for end in (finding.low, finding.high)]
    is_settled = finding.contrast.has_seed_noise and finding.verdict in SETTLED
    return shown | {"interval": " to ".join(ends), "verdict": finding.verdict if is_settled else ""}


def _gap_text(gap: Gap | None) -> dict[str, str]:
    if gap is None:
        return {}
    if math.isnan(gap.value):
        return {"value": "\N{EN DASH}", "interval": "", "why": gap.why}
    if gap.value < 0:  # how far behind the control is its difference, and no share of the gap
        most = say("table.at_most", high=percent(gap.high)) if gap.high > 0 else ""
        return {"value": say("table.none"), "interval": most, "why": ""}
    return {"value": f"{percent(gap.value)} %", "interval": f"{percent(gap.low)} to {percent(gap.high)}", "why": ""}
