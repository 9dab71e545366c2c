"""Writes a study's report: its pages, tables, figures, results.csv and results.json; quick when nothing changed."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ablate.core import disk, folder_swap, package, plain_files
from ablate.core.errors import AblateError
from ablate.core.values import Json, digest
from ablate.execution.status import State, states
from ablate.planning.plan import Plan
from ablate.report.exhibits.base import EXHIBITS, OVERVIEWS
from ablate.report.formats import DEFAULT, in_order
from ablate.report.provenance import overrides, study_file
from ablate.report.results_json import json_bytes, results_record
from ablate.report.styles import STYLES, drawn_for
from ablate.results.collect import Results, collect
from ablate.store.checkpoints import Checkpoints
from ablate.store.kind import KINDS
from ablate.store.stage import Stage

LONGEST_NAME = 200
"""Of a report's folder; file systems allow 255 bytes."""
LARGEST_FILE = 1 << 30
MADE = ".made.json"
"""In a report folder: digests of what the report was made from, and of every file in it."""


class _StudyAsItStands(NamedTuple):
    """What is known of a study before its results are read."""

    plan: Plan
    state_of: Mapping[str, State]

    def inputs_digest(self) -> str:
        """-> of all that its part of a report is made from, this code included: the same digest, the same report."""
        plan = self.plan
        return digest({
            "code": package.code_digest(),
            "offered": [[offer.name, *offer.origin] for shows in (EXHIBITS, OVERVIEWS) for offer in shows.offered()],
            "study": plan.study.model_dump_json(),
            "file": study_file(plan),
            "overrides": overrides(plan),
            "published": _sha256(Path(plan.study.published)) if plan.study.published else None,
            "cells": [[cell.name, cell.row.label, cell.evaluate.key] for cell in plan.cells],
            "stages": {stage.key: self._stage_inputs(stage) for stage in plan.stages},
        })  # fmt: skip

    def _stage_inputs(self, stage: Stage) -> Json:
        """-> what stands for a stage's files: its manifest, or how far its attempts have come."""
        state, store = self.state_of[stage.key], self.plan.store
        manifest = disk.read_json(store.folder(stage) / "done.json")
        attempts = store.attempts(stage.key12) if manifest is None and KINDS[stage.kind].is_work else []
        sizes: list[Json] = [attempt.metrics.stat().st_size for attempt in attempts if attempt.metrics.is_file()]
        saved: list[Json] = [step for attempt in attempts for step in Checkpoints(attempt.checkpoints).listed()]
        return [state.word, state.why, state.progress, manifest, sizes, saved]


def write_report(
    plan: Plan,
    *others: Plan,
    folder: Path | None = None,
    formats: Sequence[str] | None = None,
    style: str | None = None,
) -> Path:
    """-> the report folder, written whole file by file; not touched when it already says what would be written.

    Works at any time: a cell that is not done says so. Files of an earlier report that this one lacks are removed.
    With `others` of the same root all studies stand in one page, in a folder named after all of them; the numbers are
    in each one's own. `formats`: of `FORMATS`, `style`: of `STYLES`; None: what the report in the folder was last
    asked for.
    """
    plans = _distinct([plan, *others])
    folder = folder or plan.store.report_folder(report_name([plan.study.name for plan in plans]))
    studies = [_StudyAsItStands(plan, states(plan.stages, plan.store)) for plan in plans]
    formats = _formats_before(folder) if formats is None else in_order(formats)
    style = style or _style_before(folder)
    inputs = digest([[study.inputs_digest() for study in studies], list(formats), style])
    if not _is_current(folder, inputs):
        with drawn_for(style):
            files = _files(studies, formats)
        _write(folder, files, {"inputs": inputs, "formats": list(formats), "style": style})
    return folder


def _formats_before(folder: Path) -> tuple[str, ...]:
    """-> those of the report that lies there, so that a run brings up to date what was once asked for."""
    record = _recorded(folder) if plain_files.is_folder(folder) else {}
    named = record.get("formats")
    return (in_order(map(str, named)) if isinstance(named, list) else ()) or DEFAULT


def _style_before(folder: Path) -> str:
    record = _recorded(folder) if plain_files.is_folder(folder) else {}
    return style if (style := record.get("style")) in STYLES else STYLES[0]


def _distinct(plans: Sequence[Plan]) -> list[Plan]:
    """-> each study once. Raises AblateError for two of one name: their reports would be one folder."""
    by_name: dict[str, Plan] = {}
    for plan in plans:
        if by_name.setdefault(plan.study.name, plan).study != plan.study:
            raise AblateError(f"two studies have the name {plan.study.name!r}: give one another `name`")
    return list(by_name.values())


def report_name(names: Sequence[str]) -> str:
    """-> `a+b`; of many, the first and a digest of all."""
    whole = "+".join(names)
    return whole if len(whole) <= LONGEST_NAME else f"{names[0]}+{len(names) - 1}-{digest(whole)[:8]}"


def _files(studies: Sequence[_StudyAsItStands], formats: Sequence[str]) -> dict[str, bytes]:
    """-> path below the report folder -> content."""
    from ablate.report.page import report_files
    from ablate.report.spreadsheet import results_csv

    reported = [collect(study.plan, study.state_of) for study in studies]
    if len(reported) > 1:
        return report_files([results.among_others() for results in reported], formats)
    return report_files(reported, formats) | {
        "results.csv": results_csv(reported[0]).encode(),
        "results.json": json_bytes(results_record(reported[0])),
    }


def write_comparison(here: Results, there: Results, folder: Path) -> Path:
    """-> comparison.html in a report folder, with comparison.md and .json beside it: one study in two roots."""
    from ablate.report.comparison_page import comparison_pages
    from ablate.results import rerun_comparison

    moves = rerun_comparison.moves(here, there)
    record = {"comparison.json": json_bytes(rerun_comparison.as_json(here, there, moves))}
    for name, data in (comparison_pages(here, there, moves) | record).items():
        disk.write(folder / name, data)
    return folder / "comparison.html"


def _is_current(folder: Path, inputs: str) -> bool:
    """Whether the report was made from the same inputs, and every file of it is as it was written."""
    record = _recorded(folder) if plain_files.is_folder(folder) else {}
    files = record.get("files") or {}
    is_whole = (plain_files.oddity(folder, name) is None and _sha256(folder / name) == files[name] for name in files)
    return record.get("inputs") == inputs and all(is_whole)


def _sha256(path: Path) -> str | None:
    """-> None where there is no such file, nor one of a size that is to be expected."""
    try:
        with plain_files.opened(path, follows=True) as file:
            size = os.fstat(file.fileno()).st_size
            return hashlib.file_digest(file, "sha256").hexdigest() if size < LARGEST_FILE else None
    except OSError:
        return None


def _write(folder: Path, files: Mapping[str, bytes], about: Mapping[str, Json]) -> None:
    """Whoever looks, and whenever it is killed, sees the report that was or the one that is; other files stay."""
    _clear_way(folder.parent)
    before = _recorded(folder) if plain_files.is_folder(folder) else {}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    with folder_swap.replaced(folder, {*(before.get("files") or ()), MADE}) as new:
        for name, data in files.items():
            disk.make_folder((new / name).parent)
            disk.write(new / name, data)
        disk.write_json(new / MADE, {**about, "files": digests})


def _clear_way(parent: Path) -> None:
    """Reports may lie behind a link; what is neither a folder nor a link to one is set aside."""
    if plain_files.what_is(parent) is not None and plain_files.what_is(parent, follows=True) != "a folder":
        disk.move_aside(parent, parent.parent)


def _recorded(folder: Path) -> dict[str, Any]:
    record = disk.read_json(folder / MADE)
    return record if isinstance(record, dict) else {}
