"""The report as a notebook, report.ipynb: it reads results.json and results.csv beside it, and works with them."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ablate.report.findings_text import headline
from ablate.report.markup import md
from ablate.report.words import say
from ablate.results.collect import AblationResult, Results

START = '''\
import json
from pathlib import Path

import pandas as pd


def load(folder):
    """-> results.json, and results.csv as a DataFrame."""
    return json.loads(Path(folder, "results.json").read_text()), pd.read_csv(Path(folder, "results.csv"))


def rows_of(name):
    """-> the rows of an ablation by the metric that decides."""
    return next(one["rows"] for one in results["summary"]["ablations"] if one["name"] == name)


def table(name):
    columns = ["label", "score", "stderr", "sd", "difference", "low", "high", "gap", "gap_low", "gap_high", "seconds"]
    return pd.DataFrame(rows_of(name), columns=columns).set_index("label")


def mean_score(name, row):
    """-> over the seeds that are done."""
    is_own = (scores.ablation == name) & scores.key.isin(row["keys"])
    return scores[is_own & (scores.task == row["task"]) & (scores.metric == row["metric"])].value.mean()


def differences(name):
    """-> each row's mean score less its control's, beside the paired difference of the report."""
    rows = rows_of(name)
    controls = [row for row in rows if row["is_control"]]
    computed = {}
    for row in rows:
        if isinstance(row["difference"], float):
            control = next((one for one in controls if one["pair"] == row["pair"]), controls[0])
            computed[row["row"]] = (mean_score(name, row) - mean_score(name, control), row["difference"])
    return pd.DataFrame(computed, index=["computed here", "in the report"]).T
'''


def notebook(studies: Sequence[Results], files: Iterable[str]) -> bytes:
    """-> report.ipynb (nbformat 4.5) of one study, or of several whose folders lie beside its own.

    `files`: paths below the report folder; the pictures of an ablation are shown with it.
    """
    pictures = _pictures_of([ablation.name for results in studies for ablation in results.ablations], files)
    cells = [("code", START)]
    for results in studies:
        folder = f"../{results.study.name}" if results.prefix else "."
        cells.append(("markdown", f"# {md(results.study.title or results.study.name)}"))
        cells.append(("code", f"results, scores = load({folder!r})\nscores.head()"))
        for ablation in results.ablations:
            cells += _cells(results, ablation, pictures.get(ablation.name, []))
    return f"{json.dumps(_whole(cells), indent=1)}\n".encode()


def _pictures_of(names: Sequence[str], files: Iterable[str]) -> dict[str, list[str]]:
    """-> of each ablation those whose file's name begins with its own, and with no longer one's."""
    pictures: dict[str, list[str]] = {}
    for path in files:
        owners = [name for name in names if path.startswith(f"figures/{name}-") and path.endswith(".png")]
        if owners:
            pictures.setdefault(max(owners, key=len), []).append(path)
    return pictures


def _cells(results: Results, ablation: AblationResult, pictures: Sequence[str]) -> Iterator[tuple[str, str]]:
    question, answer = ablation.spec.question or "", headline(results, ablation)
    yield "markdown", "\n\n".join([f"## {md(ablation.title)}", *(md(text) for text in (question, answer) if text)])
    name = ablation.name.removeprefix(results.prefix)
    yield "code", f"table({name!r})"
    yield "markdown", say("terminal.recomputed")
    yield "code", f"differences({name!r})"
    if pictures:
        yield "markdown", "\n\n".join(f"![{path}]({path})" for path in pictures)


def _whole(cells: Sequence[tuple[str, str]]) -> dict[str, Any]:
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": [_cell(number, *cell) for number, cell in enumerate(cells)],
        "metadata": {"kernelspec": python, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _cell(number: int, kind: str, text: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"execution_count": None, "outputs": []} if kind == "code" else {}
    return {
        "cell_type": kind,
        "id": f"cell-{number}",
        "metadata": {},
        "source": text.splitlines(keepends=True),
        **empty,
    }
