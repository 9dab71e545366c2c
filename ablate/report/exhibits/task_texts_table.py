"""The table of what models wrote to generation tasks: how long, and how many texts were cut before they ended."""

from collections.abc import Iterator, Sequence

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.folded_table import folded_table
from ablate.report.formatting import listed, number
from ablate.report.spreadsheet import to_csv
from ablate.report.words import say
from ablate.results.collect import AblationResult, Results
from ablate.results.task_texts import TaskTexts, task_texts


@EXHIBITS.register("table-task-texts", order=45)
def task_texts_table(results: Results, ablation: AblationResult) -> Piece | None:
    """-> the table folded below that of the scores, and tables/<ablation>-task-texts.csv; None without such tasks."""
    known = list(task_texts(ablation))
    if not known:
        return None
    tasks = listed(dict.fromkeys(one.task for one in known))
    return folded_table(
        title=ablation.title,
        summary=say("task_texts.summary", tasks=tasks, finding=_finding(known)),
        region="Texts of generation tasks",
        caption=say("task_texts.caption"),
        head=("Task", "Model", "Seeds", "Texts", "Tokens", "Ended", "Cut"),
        lines=[_line(one) for one in known],
        note=say("task_texts.note"),
        files={f"tables/{ablation.name}-task-texts.csv": to_csv(_csv(known))},
    )


def _finding(known: Sequence[TaskTexts]) -> str:
    num_cut, num = sum(one.num_cut for one in known), sum(one.num for one in known)
    return say("task_texts.cut", num=f"{num_cut:,}", all=f"{num:,}") if num_cut else say("task_texts.ended")


def _line(one: TaskTexts) -> tuple[str, ...]:
    counts = (f"{one.seeds}", f"{one.num:,}", number(one.num_tokens, 1), f"{100 * one.ended:.1f} %", f"{one.num_cut:,}")
    return (one.task, one.row.row.label, *counts)


def _csv(known: Sequence[TaskTexts]) -> Iterator[list[object]]:
    yield ["task", "row", "label", "seeds", "texts", "tokens", "ended", "cut"]
    for one in known:
        row = one.row.row
        yield [one.task, row.name, row.label, one.seeds, one.num, one.num_tokens, one.ended, one.num_cut]
