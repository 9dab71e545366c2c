"""What is wrong with a study that its schema cannot see: names that mean nothing, files that say no row apart."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ablate import catalog
from ablate.errors import did_you_mean
from ablate.spec.ablations import ablation_findings
from ablate.spec.cells import rows
from ablate.spec.effect import layered, useless
from ablate.spec.extend import Edit
from ablate.spec.fields import RECIPES
from ablate.spec.resolve import Resolver
from ablate.spec.schema import Data, Study
from ablate.spec.words import Finding
from ablate.spec.yaml import Loc

COLUMNS: Final = {"alpaca": ("instruction", "input", "output"), "chat": ("messages",), "text": ("text",)}
"""The columns that each format of rows has."""
FORMULA: Final = ("=", "+", "-", "@")


def study_findings(study: Study) -> Iterator[Finding]:
    """-> every mistake in a study whose every value is of the right type."""
    yield from _names(study)
    yield from _labels(study)
    yield from _repeated(study.seeds, ("seeds",))
    yield from _data(study.data)
    yield from _tasks(study)
    yield from _pairs(study)
    resolver = Resolver(study)
    for name in study.ablations:
        yield from ablation_findings(resolver, name)


def _names(study: Study) -> Iterator[Finding]:
    for part, names in (("pairs", list(study.pairs)), ("ablations", list(study.ablations))):
        first: dict[str, str] = {}
        for name in names:
            other = first.setdefault(name.casefold(), name)
            if other != name:
                message = f"{part}: {name!r} and {other!r} differ in case alone: some file systems take them for one"
                yield Finding((part, name), message, is_key=True)


def _labels(study: Study) -> Iterator[Finding]:
    labels: dict[Loc, str | None] = {("title",): study.title}
    for name, pair in study.pairs.items():
        labels |= {
            ("pairs", name, "label"): pair.label,
            ("pairs", name, "teacher", "label"): pair.teacher.label,
            ("pairs", name, "student", "label"): pair.student.label,
        }
    for name, ablation in study.ablations.items():
        labels |= {("ablations", name, "title"): ablation.title, ("ablations", name, "question"): ablation.question}
    for loc, label in labels.items():
        if label and label.lstrip().startswith(FORMULA):
            what = ".".join(map(str, loc))
            yield Finding(loc, f"{what}: a text that begins with {label.lstrip()[0]!r} is a formula to a spreadsheet; begin it otherwise")


def _repeated(values: Sequence[object], loc: Loc) -> Iterator[Finding]:
    for index, value in enumerate(values):
        if value in values[:index]:
            yield Finding((*loc, index), f"{'.'.join(map(str, loc))}: {value!r} is named twice")


def _data(data: Data) -> Iterator[Finding]:
    for name in data.columns:
        if name not in COLUMNS[data.format]:
            hint = did_you_mean(name, COLUMNS[data.format])
            yield Finding(("data", "columns", name), f"data.columns: format {data.format} has no column {name!r}.{hint}", True)
    if data.limit and data.holdout >= data.limit:
        message = f"data.holdout: {data.holdout} of {data.limit} rows are held out, which leaves none to train on"
        yield Finding(("data", "holdout"), message)
    yield from _template(data.template)


def _template(template: str) -> Iterator[Finding]:
    if template in ("model", "plain"):
        return
    if "{{" not in template:
        hint = did_you_mean(template, ["model", "plain"]).partition(" Possible:")[0]
        yield Finding(
            ("data", "template"), f"data.template: model, plain or a jinja text with {{{{ ... }}}} in it, got {template[:60]!r}.{hint}"
        )
        return
    from jinja2 import Environment, TemplateSyntaxError

    try:
        Environment(autoescape=False).parse(template)  # noqa: S701 (renders training text, not HTML)
    except TemplateSyntaxError as error:
        yield Finding(("data", "template"), f"data.template: not jinja, line {error.lineno}: {error.message}")


def _tasks(study: Study) -> Iterator[Finding]:
    evaluate, primary = study.evaluate, study.report.primary
    yield from _repeated(evaluate.tasks, ("evaluate", "tasks"))
    yield from task_findings(evaluate.tasks, evaluate.include_path, ("evaluate", "tasks"))
    if primary is None:
        return
    task, slash, metric = primary.partition("/")
    if not (slash and metric):
        yield Finding(("report", "primary"), f"report.primary: task/metric is expected, as in hellaswag/acc_norm, got {primary!r}")
    elif task not in evaluate.tasks:
        hint = did_you_mean(task, evaluate.tasks)
        yield Finding(("report", "primary"), f"report.primary: {task!r} is not in evaluate.tasks.{hint}")


def task_findings(tasks: Sequence[str], include_path: str | None, loc: Loc) -> Iterator[Finding]:
    for index, task in enumerate(tasks):
        if not catalog.task_exists(task, include_path):
            hint = did_you_mean(task, catalog.task_names(include_path))
            yield Finding((*loc, index), f"unknown task {task!r}: neither lm-eval nor evaluate.include_path has it.{hint}")


def _pairs(study: Study) -> Iterator[Finding]:
    named = study.distill.get("pair")
    if named is not None and named not in study.pairs:
        yield Finding(("distill", "pair"), f"unknown pair {named!r}.{did_you_mean(named, study.pairs)}")
    for name, pair in study.pairs.items():
        if "pair" in pair.distill:
            yield Finding(("pairs", name, "distill", "pair"), "a pair cannot name another pair: say distill.pair", True)


def edits_findings(study: Study, edits: Iterable[Edit]) -> Iterator[Finding]:
    """-> every --set of a recipe that no row is made with; one that says what was so before is fine."""
    resolver = Resolver(study)
    made = list(layered(resolver, rows(study)))
    for edit in edits:
        is_recipe = edit.loc[0] in (*RECIPES, "dtype", "pairs") and edit.loc[-1] != "label"
        if is_recipe and edit.value != edit.before:
            for why in useless(resolver, made, 0, edit.loc, edit.value):
                yield Finding(edit.loc, why)
