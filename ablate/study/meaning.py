"""What a value of the right type can still get wrong: a task nobody has, a template that is none, a pair unnamed."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ablate.core.errors import AblateError, did_you_mean
from ablate.core.value_errors import shown
from ablate.core.yaml import Loc
from ablate.example import assets
from ablate.study import catalog
from ablate.study.asked_task import AskedTask, task_name
from ablate.study.data_settings import COLUMNS, Data
from ablate.study.evaluation_settings import Evaluate
from ablate.study.named_models import model_findings
from ablate.study.rates import too_high
from ablate.study.row_files.forms import POSSIBLE, form_of
from ablate.study.row_files.glance import glance
from ablate.study.schema import Study, TeacherOrStudent
from ablate.study.words import Finding


def value_meaning(study: Study, target: Loc, value: Any) -> Iterator[Finding]:
    """-> what is wrong with a value that an axis or `set` gives a field, its type being right."""
    if target == ("distill", "pair") and value not in study.pairs:
        yield Finding((), f"unknown pair {shown(value)}.{did_you_mean(str(value), study.pairs)}")
    if target[-2:] == ("distill", "teachers"):
        yield from teacher_findings(value, study.pairs)
    if target[0] == "pairs" and target[2:] == ("distill", "pair"):
        yield Finding((), "a pair cannot name another pair: say distill.pair")
    if target[0] == "pairs" and target[3:] == ("model",):
        yield from _model_findings(study, target, value)
    if target == ("evaluate", "tasks"):
        yield from task_findings(value, study.evaluate.include_path)
    if target == ("data", "template"):
        yield from template_findings(value)
    yield from (finding._replace(loc=()) for finding in too_high(target, value))


def teacher_findings(teachers: Any, pairs: Iterable[str]) -> Iterator[Finding]:
    """-> teachers of pairs that the study does not have; `teachers` as the file says them."""
    for index, one in enumerate(teachers if isinstance(teachers, list | tuple) else ()):
        pair = one.get("pair") if isinstance(one, dict) else None
        if pair is not None and pair not in pairs:
            message = f"distill.teachers: unknown pair {shown(pair)}.{did_you_mean(str(pair), pairs)}"
            yield Finding((index, "pair"), message)


def _model_findings(study: Study, target: Loc, value: str) -> Iterator[Finding]:
    """-> what is wrong with a model that a row puts in the place of a pair's."""
    pair = study.pairs.get(str(target[1]))
    ref = getattr(pair, str(target[2]), None)
    if isinstance(ref, TeacherOrStudent) and value != ref.model:
        named = ref.model_copy(update={"model": value})
        yield from (Finding((), finding.message) for finding in model_findings(named) if finding.loc == ("model",))


def may_generate(study: Study) -> bool:
    """Whether any task has answers generated, as far as known: an ablation may ask others."""
    others = any("evaluate.tasks" in str(ablation) for ablation in study.ablations.values())
    names, include = study.evaluate.task_names, study.evaluate.include_path
    return others or any(not catalog.task_exists(name, include) or _generates(name, include) for name in names)


def _generates(name: str, include_path: str | None) -> bool:
    try:
        return catalog.generates(name, include_path)
    except catalog.UnknownTask:
        return True  # told elsewhere


def task_findings(tasks: Sequence[Any], include_path: str | None) -> Iterator[Finding]:
    """`tasks`: names, and mappings or `AskedTask`s with a name."""
    names = [task_name(task) for task in tasks]
    yield from repeated(names, "evaluate.tasks")
    for index, task in enumerate(names):
        if not catalog.task_exists(task, include_path):
            near = difflib.get_close_matches(task, catalog.task_names(include_path), n=5)
            hint = did_you_mean(task, near) if near else " `lm-eval ls tasks` lists all."
            message = f"unknown task {task!r}: neither lm-eval nor evaluate.include_path has it."
            yield Finding((index,), message + hint)
            continue
        yield from (Finding((index,), f"evaluate.tasks: {why}") for why in _outside(task, include_path))
        if not isinstance(tasks[index], str):
            asked = AskedTask.model_validate(tasks[index])
            yield from (one._replace(loc=(index, *one.loc)) for one in _own_findings(asked, include_path))
    yield from _asked_twice(tasks, include_path)


def _own_findings(asked: AskedTask, include_path: str | None) -> Iterator[Finding]:
    """-> what is said in vain, or cannot be, of a task that is known."""
    try:
        if asked.gen_kwargs and not catalog.generates(asked.task, include_path):
            message = f"evaluate.tasks: {asked.task} has nothing generated, so gen_kwargs changes nothing"
            yield Finding(("gen_kwargs",), message, True)
        yield from _metric_findings(asked, include_path)
    except catalog.UnknownTask as error:  # a group with a member that nobody has
        yield Finding((), str(error))


def _metric_findings(asked: AskedTask, include_path: str | None) -> Iterator[Finding]:
    """-> metrics that lm-eval does not work out of the task."""
    possible = catalog.metrics_of(asked.task, include_path) if asked.metric_list else ()
    for number, one in enumerate(asked.metric_list or ()):
        place = ("metric_list", number)
        if one.metric not in possible:
            message = f"evaluate.tasks: lm-eval works out no metric {one.metric!r} of {asked.task}."
            yield Finding(place, message + did_you_mean(one.metric, possible, limit=30))
        if one.aggregation is not None and one.aggregation not in catalog.aggregation_names():
            hint = did_you_mean(one.aggregation, catalog.aggregation_names(), limit=30)
            yield Finding((*place, "aggregation"), f"evaluate.tasks: unknown aggregation {one.aggregation!r}.{hint}")


def _asked_twice(tasks: Sequence[Any], include_path: str | None) -> Iterator[Finding]:
    """-> tasks that stand in two groups, or alone and in a group, and would be asked in two ways under one name."""
    ways: dict[str, tuple[Any, str]] = {}
    for index, task in enumerate(tasks if not all(isinstance(task, str) for task in tasks) else ()):
        name = str(task_name(task))
        way = None if isinstance(task, str) else AskedTask.model_validate(task).model_copy(update={"task": ""})
        for member in _members(name, include_path):
            other, first = ways.setdefault(member, (way, name))
            if other != way and first != name:
                message = f"evaluate.tasks: {member} is asked in two ways, by {first!r} and by {name!r}: leave one out"
                yield Finding((index,), message)
                break


def _members(name: str, include_path: str | None) -> list[str]:
    """-> the tasks that a name stands for; of an unknown one none."""
    if not catalog.task_exists(name, include_path):
        return []
    try:
        return [entry.name for entry in catalog.entries(name, include_path) if not entry.is_group]
    except catalog.UnknownTask:
        return []  # told where its data is looked for


def _outside(task: str, include_path: str | None) -> list[str]:
    """-> what a task would read that is in no key; one that cannot be looked through is told where it is needed."""
    try:
        return catalog.places_outside(task, include_path)
    except AblateError as error:
        return [str(error)]


def repeated(values: Sequence[object], name: str) -> Iterator[Finding]:
    for index, value in enumerate(values):
        if value in values[:index]:
            yield Finding((index,), f"{name}: {value!r} is named twice")


def unreadable_findings(evaluate: Evaluate) -> Iterator[Finding]:
    """-> why no task can be looked for in a folder of task files: one of them is none."""
    include = evaluate.include_path
    if include is None or assets() in Path(include).parents:
        return
    try:
        list(catalog.files_outside(Path(include)))
        catalog.uses_code(include)
    except AblateError as error:
        yield Finding(("include_path",), f"evaluate.include_path: {' '.join(str(error).split())}")


def code_findings(evaluate: Evaluate) -> Iterator[Finding]:
    """-> task files that run Python which nobody allowed, or are made of what lies elsewhere; ours are ours."""
    include = evaluate.include_path
    if include is None or assets() in Path(include).parents:
        return
    for why in catalog.files_outside(Path(include)):
        yield Finding(("include_path",), f"evaluate.include_path: {why}")
    if evaluate.allow_code:
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
    if source.is_file() and data.config is not None:
        yield Finding(("config",), f"data.config: one file has no configurations, got {data.config!r}", True)
    if source.is_file() and form_of(source.name) is None:
        yield Finding(("source",), f"data.source: rows are read from {POSSIBLE}, not from {source.name}")
    elif source.is_file() and data.split != "train":
        yield Finding(("split",), f"data.split: one file has only the split train, got {data.split!r}")
    elif all(name in COLUMNS[data.format] for name in data.columns):
        yield from row_findings(data)


def row_findings(data: Data) -> Iterator[Finding]:
    """-> what is wrong with the rows on this disk, as far as a first look goes."""
    problem, _, num_rows = glance(data)
    if problem:
        is_split = problem.startswith("data.split")
        yield Finding(("split" if is_split else "source",), problem if is_split else f"data.source: {problem}")
    elif num_rows is not None and data.holdout >= num_rows and data.holdout < (data.limit or data.holdout + 1):
        message = f"data.holdout: {data.holdout} of {num_rows} rows are held out, which leaves none to train on"
        yield Finding(("holdout",), message)


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
