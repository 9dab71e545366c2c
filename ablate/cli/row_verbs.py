"""Verbs that print what was measured: results, compare."""

import json
from typing import Annotated

import typer

from ablate.cli.options import HERE, AnyStudy, AsJson, Rehearse, Root, Set, any_project

Ablations = Annotated[list[str] | None, typer.Option("--ablation", metavar="GLOB", help="Rows of this one alone.")]
Rows = Annotated[list[str] | None, typer.Option("--row", metavar="GLOB", help="Rows by name: 'lr=*', 'kd_ratio/*'.")]
Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="GLOB", help="Metrics; the one that decides unless said. '*': all."),
]
Tasks = Annotated[list[str] | None, typer.Option("--task", metavar="GLOB", help="All metrics of a task.")]
States = Annotated[
    list[str] | None, typer.Option("--state", metavar="STATE", help="Rows with a cell that is failed, waiting, ...")
]
Best = Annotated[int | None, typer.Option("--best", min=1, metavar="N", help="The N best students alone.")]
Sort = Annotated[
    str | None,
    typer.Option(
        "--sort",
        metavar="BY",
        help="All rows in one list by score, difference, gap (the best first), cost (the least first) or name.",
    ),
]
AsCsv = Annotated[bool, typer.Option("--csv", help="The rows' lines of results.csv, of every metric unless said.")]


def results(
    study: AnyStudy = None,
    overrides: Set = None,
    rehearse: Rehearse = False,
    ablation: Ablations = None,
    row: Rows = None,
    metric: Metrics = None,
    task: Tasks = None,
    state: States = None,
    best: Best = None,
    sort: Sort = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    root: Root = HERE,
) -> None:
    """Print the rows of a study: scores, differences to the control, gap recovered, cost; also half-way."""
    from ablate.cli.chosen_records import csv_records, json_record
    from ablate.cli.results_view import print_rows
    from ablate.cli.row_choice import Wanted, choose
    from ablate.core.values import spelled
    from ablate.report.spreadsheet import to_csv
    from ablate.results.collect import collect
    from ablate.results.long_table import Record

    ablations, rows, metrics, tasks, states = (tuple(names or ()) for names in (ablation, row, metric, task, state))
    plan = any_project(study, overrides, rehearse, root).plan(is_online=False)
    choice = choose(collect(plan), Wanted(ablations, rows, metrics, tasks, states, sort, best))
    if as_json:
        typer.echo(json.dumps(spelled(json_record(choice)), indent=1))
    elif as_csv:
        typer.echo(to_csv([Record._fields, *csv_records(choice)]), nl=False)
    else:
        print_rows(choice)


RowName = Annotated[
    str, typer.Argument(metavar="CELL", help="[STUDY:]ABLATION/ROW[@SEED]; without a seed all of them.")
]


Flips = Annotated[
    int, typer.Option("--flips", min=0, max=12, metavar="N", help="Of each task N questions on which they differ.")
]


def compare(one: RowName, other: RowName, flips: Flips = 0, as_json: AsJson = False, root: Root = HERE) -> None:
    """Hold two cells, or rows, against each other question by question, and show in what they differ."""
    from ablate.cli.compare_view import compare_record, print_comparison
    from ablate.core.values import spelled
    from ablate.results.two_rows import rows_named

    first, second = rows_named([one, other], root)
    if as_json:
        typer.echo(json.dumps(spelled(compare_record(first, second, flips)), indent=1))
    else:
        print_comparison(first, second, flips)
