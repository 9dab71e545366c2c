"""What a study's rows turn out to be: their shape before a run; once they are made, what was cut, empty or odd."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablate.core.errors import grouped_by_text
from ablate.planning.plan import Plan
from ablate.stages.generate import GenerateSettings
from ablate.stages.rows import RowsSettings
from ablate.store.manifest import read_sound
from ablate.study.cells import Row
from ablate.study.local import as_said
from ablate.study.row_files.files import num_rows_in
from ablate.study.row_files.glance import glance


def row_notes(plan: Plan) -> tuple[str, ...]:
    """-> what a reader should know of the rows that are made, in the words of their stages."""
    stages = [stage for stage in plan.stages if isinstance(stage.settings, RowsSettings | GenerateSettings)]
    named = ((plan.label(stage), note) for stage in stages for note in _notes_of(plan, stage))
    return tuple(f"{names}: {note}" for names, note in grouped_by_text(named))


def _notes_of(plan: Plan, stage: Any) -> list[str]:
    provenance = read_sound(plan.store.folder(stage), "stage.json").get("provenance") or {}
    return list((provenance.get("notes") or {}).get("rows") or ())


def shapes_found(table_rows: Iterable[Row]) -> list[str]:
    """-> the shape of each source on this disk that the rows of the tables use."""
    lines = []
    for data in {row.setting.data.model_dump_json(): row.setting.data for row in table_rows}.values():
        _, shape, num_rows = glance(data)
        if shape:
            num_rows = num_rows if num_rows is not None else num_rows_in(Path(data.source), data.split)
            number = "" if num_rows is None else f"{num_rows:,} rows, "
            lines.append(f"{as_said(data.source)}: {number}{shape}")
    return list(dict.fromkeys(lines))
