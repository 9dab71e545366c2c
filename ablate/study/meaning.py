"""What a value of the right type can still get wrong: a task nobody has, a template that is none, a pair unnamed."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ablate.core.errors import did_you_mean
from ablate.example import assets
from ablate.study import catalog
from ablate.study.data_settings import COLUMNS, Data
from ablate.study.evaluation_settings import Evaluate
from ablate.study.local import DATA_SUFFIXES
from ablate.study.rates import too_high
from ablate.study.schema import Study
from ablate.study.words import Finding, shown
from ablate.study.yaml import Loc


def value_meaning(study: Study, target: Loc, value: Any) -> Iterator[Finding]:
    """-> what is wrong with a value that an axis or `set` gives a field, its type being right."""
    if target == ("distill", "pair") and value not in study.pairs:
        yield Finding((), f"unknown pair {shown(value)}.{did_you_mean(str(value), study.pairs)}")
    if target[0] == "pairs" and target[2:] == ("distill", "pair"):
        yield Finding((), "a pair cannot name another pair: say distill.pair")
    if target == ("evaluate", "tasks"):
        yield from task_findings(value, study.evaluate.include_path)
    if target == ("data", "template"):
        yield from template_findings(value)
    yield from (finding._replace(loc=()) for finding in too_high(target, value))


def task_findings(tasks: Sequence[str], include_path: str | None) -> Iterator[Finding]:
    yield from repeated(tasks, "evaluate.tasks")
    for index, task in enumerate(tasks):
        if not catalog.task_exists(task, include_path):
            near = difflib.get_close_matches(task, catalog.task_names(include_path), n=5)
            hint = did_you_mean(task, near) if near else " `lm-eval ls tasks` lists all."
            message = f"unknown task {task!r}: neither lm-eval nor evaluate.include_path has it."
            yield Finding((index,), message + hint)


def repeated(values: Sequence[object], name: str) -> Iterator[Finding]:
    for index, value in enumerate(values):
        if value in values[:index]:
            yield Finding((index,), f"{name}: {value!r} is named twice")


def code_findings(evaluate: Evaluate) -> Iterator[Finding]:
    """-> task files that run Python which nobody allowed; ours are ours."""
    include = evaluate.include_path
    if include is None or evaluate.allow_code or assets() in Path(include).parents:
        return
    if places := catalog.uses_code(include):
        message = f"evaluate.include_path: these task files run Python ({places[0]})"
        yield Finding(("include_path",), f"{message}: say evaluate.allow_code: true to let them")


def data_findings(data: Data) -> Iterator[Finding]:
    for name in data.columns:
        if name not in COLUMNS[data.format]:
            message = f"data.columns: format {data.format} has no column {name!r}."
            yield Finding(("columns", name), message + did_you_mean(name, COLUMNS[data.format]), True)
    if data.limit and data.holdout >= data.limit:
        message = f"data.holdout: {data.holdout} of {data.limit} rows are held out, which leaves none to train on"
        yield Finding(("holdout",), message)
    yield from (finding._replace(loc=("template",)) for finding in template_findings(data.template))
    yield from _source_findings(data)


def _source_findings(data: Data) -> Iterator[Finding]:
    source = Path(data.source)
    if not source.is_absolute():
        return
    if data.revision is not None:
        yield Finding(("revision",), "data.revision: what lies on this disk has no revision", True)
    if source.is_file() and source.suffix.lower() not in DATA_SUFFIXES:
        possible = f"data.source: rows are read from {', '.join(DATA_SUFFIXES)}"
        yield Finding(("source",), f"{possible}, not from {source.name}")
    if source.is_file() and data.split != "train":
        yield Finding(("split",), f"data.split: one file has only the split train, got {data.split!r}")


def template_findings(template: str) -> Iterator[Finding]:
    if template in ("model", "plain"):
        return
    if "{{" not in template:
        hint = did_you_mean(template, ["model", "plain"]).partition(" Possible:")[0]
        possible = "data.template: model, plain or a jinja text with {{ ... }} in it"
        yield Finding((), f"{possible}, got {template[:60]!r}.{hint}")
        return
    from jinja2 import Environment, TemplateSyntaxError

    try:
        Environment(autoescape=False).parse(template)
    except TemplateSyntaxError as error:
        yield Finding((), f"data.template: not jinja, line {error.lineno}: {error.message}")
