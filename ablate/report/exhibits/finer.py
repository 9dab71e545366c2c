"""The table below the table: how likely the right answers are, which moves where no prediction changes yet."""

from ablate.report.exhibits import table
from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.lines import lines_of
from ablate.report.exhibits.words import render
from ablate.results.collect import AblationResult, Results

NOTE = (
    "log_probability: mean ln p(right answer | question), in nats, higher is better; bits_per_byte: mean of -log2 p of "
    "the right answer over its bytes, lower is better. Of the answer that the task names as its target."
)


@EXHIBITS.register("table-finer", order=40)
def finer(results: Results, ablation: AblationResult) -> Piece | None:
    """-> tables/<ablation>-finer.csv, and the table folded below that of the scores."""
    if not ablation.finer:
        return None
    lines = lines_of(ablation, ablation.finer)
    values = table.shown(ablation, ablation.finer, lines) | {"notes": [NOTE]}
    files = {f"tables/{ablation.name}-finer.csv": table.csv(ablation.finer, lines).encode()}
    return Piece(render("finer.html", **values), render("finer.md", **values), files)
