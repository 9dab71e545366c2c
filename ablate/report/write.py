"""Writes a study's report: its pages, tables, figures, results.csv and results.json; quick when nothing changed."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ablate.core import disk, package
from ablate.core.errors import AblateError
from ablate.core.values import Json, digest, spelled
from ablate.execution.status import State, states
from ablate.planning.plan import Plan
from ablate.results.collect import AblationResult, CellResult, Metric, Results, RowResult, collect
from ablate.results.question_scores import NotComparable
from ablate.store.kind import KINDS
from ablate.store.manifest import read_sound
from ablate.store.stage import Stage

LONGEST_NAME = 200
"""Of a report's folder; file systems allow 255 bytes."""
MADE = ".made.json"
"""In a report folder: digests of what the report was made from, and of every file in it."""


def write_report(plan: Plan, *others: Plan, folder: Path | None = None) -> Path:
    """-> the report folder, written whole file by file; not touched when it already says what would be written.

    Works at any time: a cell that is not done says so. Files of an earlier report that this one lacks are removed.
    With `others` of the same root all studies stand in one page, in a folder named after all of them; the numbers are
    in each one's own.
    """
    plans = _distinct([plan, *others])
    folder = folder or plan.store.report_folder(report_name([of.study.name for of in plans]))
    known = [_Known(of, states(of.stages, of.store), _overrides(of)) for of in plans]
    inputs = known[0].inputs() if len(known) == 1 else digest([of.inputs() for of in known])
    if not _is_current(folder, inputs):
        _write(folder, _files(known), inputs)
    return folder


def _distinct(plans: Sequence[Plan]) -> list[Plan]:
    """-> each study once. Raises AblateError for two of one name: their reports would be one folder."""
    found: dict[str, Plan] = {}
    for plan in plans:
        if found.setdefault(plan.study.name, plan).study != plan.study:
            raise AblateError(f"two studies have the name {plan.study.name!r}: give one another `name`")
    return list(found.values())


def report_name(names: Sequence[str]) -> str:
    """-> `a+b`; of many, the first and a digest of all."""
    whole = "+".join(names)
    return whole if len(whole) <= LONGEST_NAME else f"{names[0]}+{len(names) - 1}-{digest(whole)[:8]}"


class _Known(NamedTuple):
    """What is known of a study before its results are read."""

    plan: Plan
    state_of: Mapping[str, State]
    overrides: tuple[str, ...]

    def inputs(self) -> str:
        return _inputs(*self)


def _files(known: Sequence[_Known]) -> dict[str, bytes]:
    from ablate.report.exhibits.page import Shown, report_files
    from ablate.report.exhibits.spreadsheet import results_csv

    shown = [Shown(collect(of.plan, of.state_of), of.overrides) for of in known]
    if len(shown) > 1:
        return report_files([Shown(of.results.among_others(), of.overrides) for of in shown])
    return report_files(shown) | {
        "results.csv": results_csv(shown[0].results).encode(),
        "results.json": _json(to_json(*shown[0])),
    }


def write_comparison(here: Results, there: Results, folder: Path) -> Path:
    """-> comparison.html in a report folder, with comparison.md and .json beside it: one study in two roots."""
    from ablate.report.exhibits.compared import pages
    from ablate.results import rerun_comparison

    found = rerun_comparison.moves(here, there)
    record = {"comparison.json": _json(rerun_comparison.as_json(here, there, found))}
    for name, data in (pages(here, there, found) | record).items():
        disk.write(folder / name, data)
    return folder / "comparison.html"


def _json(value: dict[str, Any]) -> bytes:
    return f"{json.dumps(spelled(value), indent=1)}\n".encode()


def to_json(results: Results, overrides: tuple[str, ...]) -> dict[str, Any]:
    """-> results.json: every cell with its differences and how it was made. NaN is the text "NaN"."""
    from ablate.results import best_rows, replication, trends

    study = results.study
    return {
        "study": study.name,
        "title": study.title,
        "rehearsal": study.rehearsal,
        "overrides": list(overrides),
        "seeds": list(study.seeds),
        "primary": study.report.primary,
        "ablate": package.version(),
        "ablations": {of.name: {"title": of.title, "question": of.spec.question} for of in results.ablations},
        "cells": [_cell(cell) for cell in results.cells],
        "differences": list(_differences(results)),
        "best": list(best_rows.records(results)),
        "trends": list(trends.records(results)),
        "published": list(replication.records(results)),
        "stages": {stage.folder: _stage(results, stage) for stage in results.plan.stages},
    }


def _cell(cell: CellResult) -> dict[str, Any]:
    row = cell.cell.row
    return {
        "name": cell.cell.name,
        "ablation": row.ablation,
        "row": row.name,
        "label": row.label,
        "seed": cell.cell.seed,
        "pair": row.setting.pair,
        "control": row.control,
        "state": cell.state,
        "why": cell.why,
        "changed": list(cell.changed),
        "held_out": dict(cell.held_out),
        "evaluation": {name: value for name, value in cell.evaluation.items() if name != "tasks"},
        "tasks": {
            name: {"version": of.get("version"), "n": of["n"], "metrics": of["metrics"], "finer": of.get("finer", {})}
            for name, of in cell.evaluation.get("tasks", {}).items()
        },
        "stages": list(dict.fromkeys(stage.folder for stage in cell.cell.evaluate.walk())),
    }


def _differences(results: Results) -> Iterator[dict[str, Any]]:
    """Every row's paired difference to its control, or why there is none; of distilled rows the verdict too."""
    for ablation in results.ablations:
        for row in ablation.rows:
            control = ablation.control_of(row.row)
            for metric in ablation.metrics if control and control is not row else ():
                yield {
                    "ablation": ablation.name,
                    "pair": row.row.setting.pair,
                    "row": row.row.name,
                    "control": row.row.control,
                    "metric": str(metric),
                    **_difference(row, control, metric),
                    **_verdict(results, ablation, row, metric),
                }


def _difference(row: RowResult, control: RowResult | None, metric: Metric) -> dict[str, Any]:
    try:
        return row.difference(control, metric)._asdict() if control else {}
    except NotComparable as reason:
        return {"not comparable": str(reason)}


def _verdict(results: Results, ablation: AblationResult, row: RowResult, metric: Metric) -> dict[str, Any]:
    from ablate.results.verdicts import findings_of

    found = findings_of(results, ablation).of(row, metric)
    return found.record() if found else {}


def _stage(results: Results, stage: Stage) -> dict[str, Any]:
    record = read_sound(results.plan.store.folder(stage), "stage.json")
    state = results.state_of[stage.key]
    return {
        "kind": stage.kind,
        "key": stage.key,
        "state": state.word,
        "why": state.why,
        "settings": stage.payload["settings"],
        "inputs": {name: other.folder for name, other in stage.inputs.items()},
        "provenance": record.get("provenance"),
    }


def _overrides(plan: Plan) -> tuple[str, ...]:
    """-> those the study was last run with, where it is that study."""
    record = plan.store.study_record(plan.study.name) or {}
    is_it = record.get("study") == plan.study.model_dump(mode="json")
    return tuple(record["overrides"]) if is_it else ()


def _inputs(plan: Plan, state_of: Mapping[str, State], overrides: tuple[str, ...]) -> str:
    """-> a digest of all that a report is made from, this code included, cheap to take."""
    published = Path(plan.study.published) if plan.study.published else None
    return digest({
        "code": package.code_digest(),
        "study": plan.study.model_dump_json(),
        "overrides": overrides,
        "published": hashlib.sha256(published.read_bytes()).hexdigest() if published and published.is_file() else None,
        "cells": [[cell.name, cell.row.label, cell.evaluate.key] for cell in plan.cells],
        "stages": {stage.key: _stage_input(plan, stage, state_of[stage.key]) for stage in plan.stages},
    })  # fmt: skip


def _stage_input(plan: Plan, stage: Stage, state: State) -> Json:
    manifest = disk.read_json(plan.store.folder(stage) / "done.json")
    attempts = plan.store.attempts(stage.key12) if manifest is None and KINDS[stage.kind].is_work else []
    sizes: list[Json] = [attempt.metrics.stat().st_size for attempt in attempts if attempt.metrics.is_file()]
    return [state.word, state.why, state.progress, manifest, sizes]


def _is_current(folder: Path, inputs: str) -> bool:
    made = disk.read_json(folder / MADE) or {}
    files = made.get("files") or {}
    return made.get("inputs") == inputs and all(_digest(folder / name) == sha for name, sha in files.items())


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _write(folder: Path, files: Mapping[str, bytes], inputs: str) -> None:
    disk.make_folder(folder)
    before = set((disk.read_json(folder / MADE) or {}).get("files") or ())
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    disk.write_json(folder / MADE, {"inputs": None, "files": dict.fromkeys(before) | digests})
    for name, data in files.items():
        disk.make_folder((folder / name).parent)
        disk.write(folder / name, data)
    for name in before - files.keys():
        disk.unlink(folder / name)
    disk.write_json(folder / MADE, {"inputs": inputs, "files": digests})
