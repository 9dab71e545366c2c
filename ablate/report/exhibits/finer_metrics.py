"""The table of finer metrics: how likely the right answers are, which moves where no prediction changes yet."""

from ablate.report.exhibits import scores_table
from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.table_rows import table_rows
from ablate.report.markup import render
from ablate.report.words import say
from ablate.results.collect import AblationResult, Results


@EXHIBITS.register("table-finer", order=40)
def finer_metrics(results: Results, ablation: AblationResult) -> Piece | None:
    """-> tables/<ablation>-finer.csv, and the table folded below that of the scores."""
    if not ablation.finer:
        return None
    lines = table_rows(ablation, ablation.finer)
    values = scores_table.shown(ablation, ablation.finer, lines) | {"notes": [say("finer.note")]}
    files = {f"tables/{ablation.name}-finer.csv": scores_table.csv(ablation.finer, lines).encode()}
    values["region"] = "Right answers"
    return Piece(render("table.html", **values), render("table.md", **values), files, say("finer.summary"))
