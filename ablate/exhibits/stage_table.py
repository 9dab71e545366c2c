"""Every stage of a study as a line: what it is, whether it is done, where, when and in what time."""

from collections.abc import Iterator

from ablate.committed import read_sound
from ablate.exhibits.base import OVERVIEWS, Piece
from ablate.exhibits.folded import folded
from ablate.exhibits.spreadsheet import to_csv
from ablate.exhibits.words import plural
from ablate.scores import Results
from ablate.stage import Stage
from ablate.watch import duration

HEAD = ("Stage", "What it is", "State", "Cells", "Device", "Began", "Time")


@OVERVIEWS.register("3-stages")
def stage_table(results: Results) -> Piece | None:
    """-> the table folded below the pictures of stages and time, and tables/stages.csv."""
    stages = results.plan.made
    lines = [tuple(_line(results, stage)) for stage in stages]
    exact = [tuple(_line(results, stage, is_exact=True)) for stage in stages]
    return folded(
        title=results.study.title or results.study.name,
        summary=f"Every stage: {plural(len(stages), 'stage')} with device, beginning and time",
        region="Stages",
        caption="Stages, each after what it needs.",
        head=HEAD,
        lines=lines,
        note="Time: of the attempt that ended it, from its first line of work to its last. Cells: how many need it.",
        files={f"tables/{results.prefix}stages.csv": to_csv([(*HEAD[:-1], "Seconds"), *exact])},
    )


def _line(results: Results, stage: Stage, *, is_exact: bool = False) -> Iterator[str]:
    plan = results.plan
    record = read_sound(plan.store.folder(stage), "stage.json")
    made = record.get("provenance", {})
    seconds = made.get("seconds")
    yield from (stage.folder, plan.label(stage), results.word_of(stage), str(len(plan.needed_by.get(stage.key, ()))))
    yield from (str(made.get("device", "")), str(made.get("started", "")))
    yield "" if seconds is None else str(seconds) if is_exact else duration(float(seconds))
