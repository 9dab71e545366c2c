"""The table of what models wrote to generation tasks: how long, and how many texts were cut before they ended."""

from collections.abc import Iterator, Sequence

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.exhibits.folded_table import folded_table
from ablate.report.formatting import listed, number
from ablate.report.spreadsheet import to_csv
from ablate.report.words import say
from ablate.results.collect import AblationResult, Results
from ablate.results.task_texts import TaskTexts, task_texts

HEAD = ("Task", "Model", "Seeds", "Texts", "Tokens", "Ended", "Cut", "Median", "Empty", "Repeated")


@EXHIBITS.register("table-task-texts", order=45)
def task_texts_table(results: Results, ablation: AblationResult) -> Piece | None:
    """-> the table folded below that of the scores, and tables/<ablation>-task-texts.csv; None without such tasks."""
    known = list(task_texts(ablation))
    if not known:
        return None
    tasks = listed(dict.fromkeys(one.task for one in known))
    filters = list(dict.fromkeys(name for one in known for name in one.extracted))
    return folded_table(
        title=ablation.title,
        summary=say("task_texts.summary", tasks=tasks, finding=_finding(known)),
        region="Texts of generation tasks",
        caption=say("task_texts.caption"),
        head=(*HEAD, *(f"Answer found by {name}" for name in filters)),
        lines=[_line(one, filters) for one in known],
        note=" ".join([say("texts.note"), say("texts.filters") if filters else say("texts.no_filters")]),
        files={f"tables/{ablation.name}-task-texts.csv": to_csv(_csv(known, filters))},
    )


def _finding(known: Sequence[TaskTexts]) -> str:
    num_cut, num = sum(one.num_cut for one in known), sum(one.num for one in known)
    return say("task_texts.cut", num=f"{num_cut:,}", all=f"{num:,}") if num_cut else say("task_texts.ended")


def _line(one: TaskTexts, filters: Sequence[str]) -> tuple[str, ...]:
    counts = (f"{one.seeds}", f"{one.num:,}", number(one.num_tokens, 1), _percent(one.ended), f"{one.num_cut:,}")
    more = (number(one.median_tokens, 0), f"{one.num_empty:,}", _percent(one.repetition))
    extracted = (_percent(one.extracted[name]) if name in one.extracted else "" for name in filters)
    return (one.task, one.row.row.label, *counts, *more, *extracted)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _csv(known: Sequence[TaskTexts], filters: Sequence[str]) -> Iterator[list[object]]:
    more = ["median_tokens", "characters", "empty", "repetition", *(f"extracted {name}" for name in filters)]
    yield ["task", "row", "label", "seeds", "texts", "tokens", "ended", "cut", *more]
    for one in known:
        row, extracted = one.row.row, (one.extracted.get(name) for name in filters)
        rest = [one.median_tokens, one.num_characters, one.num_empty, one.repetition, *extracted]
        yield [one.task, row.name, row.label, one.seeds, one.num, one.num_tokens, one.ended, one.num_cut, *rest]
