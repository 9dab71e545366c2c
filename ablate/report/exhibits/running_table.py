"""What runs, how far it is and when it will be over; and what was begun and stopped, and where it would go on."""

from collections.abc import Iterator, Sequence

from ablate.core.text import duration
from ablate.report.exhibits.base import OVERVIEWS, Piece
from ablate.report.exhibits.folded_table import folded_table
from ablate.report.formatting import plural
from ablate.report.spreadsheet import to_csv
from ablate.report.words import say
from ablate.results.collect import CellResult, Results
from ablate.results.progress import begun, progress_of
from ablate.results.stage_progress import StageProgress

HEAD = ("State", "What it is", "How far", "Left", "Goes on from", "Cells")
NONE = "\N{EN DASH}"
ORDER = ("running", "waiting", "failed", "damaged", "blocked")


@OVERVIEWS.register("running", order=3)
def running_table(results: Results) -> Piece | None:
    """-> tables/progress.csv and the table, which the page shows on page 1; None where nothing is begun."""
    lines = sorted(begun(results).values(), key=lambda line: ORDER.index(line[0].state))
    if not lines:
        return None
    return folded_table(
        title=results.study.title or results.study.name,
        summary=_summary([at for at, _ in lines]),
        region="What runs",
        caption=say("progress.caption"),
        head=HEAD,
        lines=[_line(results, at, cells) for at, cells in lines],
        note=_note(results),
        files={f"tables/{results.prefix}progress.csv": to_csv(_csv(results, lines))},
    )


def _summary(stages: list[StageProgress]) -> str:
    running = [at for at in stages if at.state == "running"]
    if not running:
        return say("progress.stopped", stages=plural(len(stages), "stage"))
    left = [at.eta_s for at in running if at.eta_s is not None]
    time = say("progress.left", time=duration(max(left))) if left else ""
    return say("progress.running", stages=plural(len(running), "stage"), time=time)


def _line(results: Results, at: StageProgress, cells: list[CellResult]) -> tuple[str, ...]:
    left = duration(at.eta_s) if at.eta_s is not None else ""
    goes_on = at.goes_on_from or ("its beginning" if at.state != "running" else "")
    label = results.plan.label(at.stage)
    return (_word(at), label, at.how_far or NONE, left or NONE, goes_on or NONE, str(len(cells)))


def _word(at: StageProgress) -> str:
    return "stopped" if at.state == "waiting" else at.state


def _note(results: Results) -> str:
    num = sum(not one.at.is_begun for one in progress_of(results))
    return " ".join([say("progress.note"), *([say("progress.not_begun", cells=plural(num, "cell"))] if num else [])])


def _csv(results: Results, lines: Sequence[tuple[StageProgress, list[CellResult]]]) -> Iterator[tuple[object, ...]]:
    yield "Stage", "What it is", "State", "Step", "Steps", "Seconds left", "Goes on from", "Cells"
    for at, cells in lines:
        names = " ".join(cell.cell.name for cell in cells)
        numbers = (at.step, at.steps, _whole(at.eta_s), at.resumable_from)
        yield at.stage.folder, results.plan.label(at.stage), _word(at), *numbers, names


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)
