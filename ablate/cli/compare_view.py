"""What `compare` prints: two rows or cells by every metric they share, and in what their settings differ."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from ablate.cli.console import console_of_stdout, print_plainly, printable
from ablate.cli.diff_view import differences
from ablate.cli.flips_view import flip_records, flips_between, print_flips
from ablate.cli.results_view import PRIMARY_MARK
from ablate.report.formatting import decimals, interval_text, listed, number, p_text, with_error
from ablate.report.metric_names import metric_name
from ablate.report.words import say
from ablate.results.paired import Contrast
from ablate.results.question_scores import Summary
from ablate.results.two_rows import NamedRow, Pairing, not_shared, pairings

DIGEST = re.compile(r"\b[0-9a-f]{64}\b")


def compare_record(one: NamedRow, other: NamedRow, num_flips: int = 0) -> dict[str, Any]:
    """-> everything that `compare --json` says."""
    shared = pairings(one, other)
    return {
        "one": _row_record(one),
        "other": _row_record(other),
        "is_same": one.keys == other.keys,
        "noise": _noise(one, other, [pairing.contrast for pairing in shared if pairing.contrast]),
        "metrics": [_pairing_record(one, pairing) for pairing in shared],
        "not_shared": [str(metric) for metric in not_shared(one, other)],
        "settings": list(settings_that_differ(one, other)),
        "flips": flip_records(list(flips_between(one, other, shared)), num_flips) if num_flips else [],
    }


def _row_record(row: NamedRow) -> dict[str, Any]:
    cells = [cell.cell.name for cell in row.row.done]
    return {"study": row.results.study.name, "name": row.name, "label": row.row.row.label, "cells": cells}


def _pairing_record(one: NamedRow, pairing: Pairing) -> dict[str, Any]:
    contrast, flips = pairing.contrast, pairing.flips
    record = {
        "task": pairing.metric.task,
        "metric": pairing.metric.name,
        "is_primary": pairing.metric == one.ablation.primary,
        "lower_is_better": pairing.lower_is_better,
        "one": pairing.one._asdict(),
        "other": pairing.other._asdict(),
    }
    if contrast is None:
        return record | {"not comparable": pairing.why}
    low, high = contrast.interval()
    errors = {"p": contrast.p, "low": low, "high": high, "visible": contrast.visible}
    return record | contrast._asdict() | errors | ({"won": flips.won, "lost": flips.lost} if flips else {})


def print_comparison(one: NamedRow, other: NamedRow, num_flips: int = 0) -> None:
    """The table and what belongs to it; of each task `num_flips` questions at most on which the two differ."""
    console, shared = console_of_stdout(), pairings(one, other)
    print_plainly(console, printable(say("terminal.first", name=one.name, label=one.row.row.label)))
    print_plainly(console, printable(say("terminal.second", name=other.name, label=other.row.row.label)))
    print_plainly(console, "")
    if one.keys == other.keys:
        print_plainly(console, say("terminal.same"))
        return
    if shared:
        console.print(_table(one, shared))
    for line in _notes(one, other, shared):
        print_plainly(console, printable(line))
    if num_flips:
        print_flips(console, one, list(flips_between(one, other, shared)), num_flips)


def _table(one: NamedRow, shared: Sequence[Pairing]) -> Table:
    heads = ("Metric", "First", "Second", "Difference", "95 % interval", "p", "Won / lost", "Visible", "Note")
    lines = [_line(one, pairing) for pairing in shared]
    used = [place for place in range(len(heads)) if any(line[place] for line in lines)]
    table = Table(box=None, pad_edge=False)
    for place in used:
        table.add_column(heads[place], justify="left" if heads[place] in ("Metric", "Note") else "right")
    for line in lines:
        table.add_row(*(Text(printable(line[place])) for place in used))
    return table


def _line(one: NamedRow, pairing: Pairing) -> tuple[str, ...]:
    name, contrast, flips = metric_name(pairing.metric, one.ablation.columns), pairing.contrast, pairing.flips
    mark = PRIMARY_MARK if pairing.metric == one.ablation.primary else ""
    places = decimals([pairing.one.stderr or pairing.one.sd, pairing.other.stderr or pairing.other.sd])
    start = (f"{name}{mark}", _score(pairing.one, places), _score(pairing.other, places))
    if contrast is None:
        return (*start, "", "", "", "", "", say("terminal.not_comparable", why=pairing.why))
    places = decimals([contrast.se])
    return (
        *start,
        number(contrast.value, places, is_signed=True),
        interval_text(*contrast.interval(), places),
        p_text(contrast.p),
        f"{flips.won} / {flips.lost}" if flips else "",
        number(contrast.visible, places),
        say("terminal.lower") if pairing.lower_is_better else "",
    )


def _score(score: Summary, places: int) -> str:
    return with_error(score.value, score.stderr if score.seeds == 1 else score.sd, places)


def _notes(one: NamedRow, other: NamedRow, shared: Sequence[Pairing]) -> Iterator[str]:
    contrasts = [pairing.contrast for pairing in shared if pairing.contrast]
    alone = not_shared(one, other)
    if alone:
        yield say("terminal.alone", metrics=listed(map(str, alone)))
    if contrasts:
        yield say("terminal.alone_compared")
        yield say("terminal.visible")
        yield say(f"terminal.{_noise(one, other, contrasts)}")
    differing = list(settings_that_differ(one, other))
    yield ""
    yield say("terminal.settings" if differing else "terminal.no_settings")
    yield from (f"  {line}" for line in differing)


def _noise(one: NamedRow, other: NamedRow, contrasts: Sequence[Contrast]) -> str:
    if not (one.row.is_trained or other.row.is_trained):
        return "untrained"
    return "both_noises" if all(contrast.has_seed_noise for contrast in contrasts) else "question_noise"


def settings_that_differ(one: NamedRow, other: NamedRow) -> Iterator[str]:
    """-> `kd_ratio: 0.25 -> 1.0`, followed through what each was made from; of rows their first cells'."""
    plans = [row.results.plan for row in (one, other)]
    labels = {stage.key: plan.label(stage) for plan in plans for stage in plan.stages}
    folders = (row.row.done[0].cell.evaluate.folder for row in (one, other))
    for line in differences(plans[0].store, *folders):
        short = line.replace("settings.recipe.", "").replace("settings.", "").replace("inputs.", "")
        yield DIGEST.sub(lambda digest: labels.get(digest[0], digest[0][:12]), short)
