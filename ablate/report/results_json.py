"""results.json, a study's results for programs: cells, differences, verdicts, trends, and how each was made."""

import json
from collections.abc import Iterator
from typing import Any

from ablate.core import package
from ablate.core.values import spelled
from ablate.planning.row_notes import row_notes
from ablate.report.exhibits.base import EXHIBITS, OVERVIEWS
from ablate.report.provenance import overrides, study_file
from ablate.results.collect import AblationResult, CellResult, Metric, Results, RowResult
from ablate.results.question_scores import NotComparable
from ablate.results.stage_times import provenance
from ablate.store.stage import Stage


def json_bytes(record: dict[str, Any]) -> bytes:
    """-> a JSON file of a report; NaN is the text "NaN"."""
    return f"{json.dumps(spelled(record), indent=1)}\n".encode()


def results_record(results: Results) -> dict[str, Any]:
    """-> what results.json holds; its overrides are written `path=value`."""
    from ablate.report.summary import summary_record
    from ablate.results import best_rows, calibration, effects, gap_recovered, marks, more_seeds, replication, trends

    study = results.study
    return {
        "study": study.name,
        "title": study.title,
        "rehearsal": study.rehearsal,
        "file": study_file(results.plan),
        "overrides": list(overrides(results.plan)),
        "seeds": list(study.seeds),
        "primary": study.report.primary,
        "ablate": package.version(),
        **_other_packages(),
        **_row_notes(results),
        "ablations": {
            ablation.name: {"title": ablation.title, "question": ablation.spec.question}
            for ablation in results.ablations
        },
        "summary": summary_record(results),
        "cells": [cell_record(cell) for cell in results.cells],
        "differences": list(difference_records(results)),
        "best": list(best_rows.records(results)),
        "effects": list(effects.records(results)),
        "trends": list(trends.records(results)),
        "gaps": list(gap_recovered.records(results)),
        "marks": list(marks.records(results)),
        "more_seeds": more_seeds.record(results),
        "calibration": list(calibration.records(results)),
        "published": list(replication.records(results)),
        "stages": {stage.folder: _stage(results, stage) for stage in results.plan.stages},
    }


def _other_packages() -> dict[str, Any]:
    """-> those whose exhibits are in the report, if any are; a loss's stands with the stages that use it."""
    packages = EXHIBITS.packages() | OVERVIEWS.packages()
    return {"packages": packages} if packages else {}


def _row_notes(results: Results) -> dict[str, Any]:
    """-> what a reader should know of the rows, where there is anything; their counts stand in out/summary.json."""
    notes = row_notes(results.plan)
    return {"rows": list(notes)} if notes else {}


def cell_record(cell: CellResult) -> dict[str, Any]:
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
            name: {
                "version": task.get("version"),
                "n": task["n"],
                "metrics": task["metrics"],
                "finer": task.get("finer", {}),
            }
            for name, task in cell.evaluation.get("tasks", {}).items()
        },
        "stages": list(dict.fromkeys(stage.folder for stage in cell.cell.evaluate.walk())),
    }


def difference_records(results: Results) -> Iterator[dict[str, Any]]:
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
        return row.difference(control, metric).record() if control else {}
    except NotComparable as reason:
        return {"not comparable": str(reason)}


def _verdict(results: Results, ablation: AblationResult, row: RowResult, metric: Metric) -> dict[str, Any]:
    from ablate.results.verdicts import findings_of

    finding = findings_of(results, ablation).find(row, metric)
    return finding.record() if finding else {}


def _stage(results: Results, stage: Stage) -> dict[str, Any]:
    state = results.state_of[stage.key]
    return {
        "kind": stage.kind,
        "key": stage.key,
        "state": state.word,
        "why": state.why,
        "settings": stage.payload["settings"],
        "inputs": {name: other.folder for name, other in stage.inputs.items()},
        "provenance": provenance(results.plan, stage) or None,
    }
