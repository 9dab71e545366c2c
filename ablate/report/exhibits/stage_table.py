"""Every stage of a study as a line: what it is, whether it is done, where, when and in what time."""

from ablate.core.text import duration
from ablate.report.exhibits.base import OVERVIEWS, Piece
from ablate.report.exhibits.folded_table import folded_table
from ablate.report.formatting import plural
from ablate.report.spreadsheet import to_csv
from ablate.report.words import say
from ablate.results.collect import Results
from ablate.results.stage_times import provenance
from ablate.store.stage import Stage

HEAD = ("Stage", "What it is", "State", "Cells", "Device", "Began", "Time")


@OVERVIEWS.register("stages", order=40)
def stage_table(results: Results) -> Piece:
    """-> the table folded below the pictures of stages and time, and tables/stages.csv."""
    stages = results.plan.all_stages
    rows = [_row(results, stage) for stage in stages]
    return folded_table(
        title=results.study.title or results.study.name,
        summary=say("stages.summary", stages=plural(len(stages), "stage")),
        region="Stages",
        caption=say("stages.caption"),
        head=HEAD,
        lines=[(*texts, "" if seconds is None else duration(seconds)) for texts, seconds in rows],
        note=say("stages.note"),
        files={
            f"tables/{results.prefix}stages.csv": to_csv(
                [(*HEAD[:-1], "Seconds"), *((*texts, seconds) for texts, seconds in rows)]
            )
        },
    )


def _row(results: Results, stage: Stage) -> tuple[tuple[str, ...], float | None]:
    """-> the words of a line, and the seconds that the stage took."""
    plan = results.plan
    record = provenance(plan, stage)
    num_cells = len(plan.needed_by.get(stage.key, ()))
    texts = (stage.folder, plan.label(stage), results.word_of(stage), str(num_cells))
    seconds = record.get("seconds")
    where = (str(record.get("device", "")), str(record.get("started", "")))
    return texts + where, None if seconds is None else float(seconds)
