"""Every stage of a study as a line: what it is, whether it is done, where, when and in what time."""

from ablate.core.text import duration
from ablate.report.exhibits.base import OVERVIEWS, Piece
from ablate.report.exhibits.folded import folded
from ablate.report.exhibits.spreadsheet import to_csv
from ablate.report.exhibits.words import plural
from ablate.results.collect import Results
from ablate.store.manifest import read_sound
from ablate.store.stage import Stage

HEAD = ("Stage", "What it is", "State", "Cells", "Device", "Began", "Time")


@OVERVIEWS.register("3-stages")
def stage_table(results: Results) -> Piece:
    """-> the table folded below the pictures of stages and time, and tables/stages.csv."""
    stages = results.plan.all_stages
    told = [_told(results, stage) for stage in stages]
    return folded(
        title=results.study.title or results.study.name,
        summary=f"Every stage: {plural(len(stages), 'stage')} with device, beginning and time",
        region="Stages",
        caption="Stages, each after what it needs.",
        head=HEAD,
        lines=[(*words, "" if seconds is None else duration(seconds)) for words, seconds in told],
        note="Time: of the attempt that ended it, from its first line of work to its last. Cells: how many need it.",
        files={
            f"tables/{results.prefix}stages.csv": to_csv(
                [(*HEAD[:-1], "Seconds"), *((*words, of) for words, of in told)]
            )
        },
    )


def _told(results: Results, stage: Stage) -> tuple[tuple[str, ...], float | None]:
    """-> the words of a line, and the seconds that the stage took."""
    plan = results.plan
    made = read_sound(plan.store.folder(stage), "stage.json").get("provenance", {})
    num_cells = len(plan.needed_by.get(stage.key, ()))
    words = (stage.folder, plan.label(stage), results.word_of(stage), str(num_cells))
    seconds = made.get("seconds")
    where = (str(made.get("device", "")), str(made.get("started", "")))
    return words + where, None if seconds is None else float(seconds)
