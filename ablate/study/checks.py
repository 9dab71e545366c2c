"""What is wrong with a study that its schema cannot see: names that mean nothing, settings that reach no row."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from ablate.core.errors import did_you_mean
from ablate.core.yaml import Loc
from ablate.study import catalog
from ablate.study.ablations import MAX_CELLS, ablation_findings, num_cells
from ablate.study.cells import rows_of
from ablate.study.chat_templates import lacking, template_names
from ablate.study.effect import layered, useless
from ablate.study.evaluation_settings import Evaluate
from ablate.study.extend import Edit
from ablate.study.fields import RECIPES
from ablate.study.meaning import (
    code_findings,
    data_findings,
    repeated,
    task_findings,
    teacher_findings,
    unreadable_findings,
)
from ablate.study.named_models import model_findings
from ablate.study.overlays import FILE
from ablate.study.rates import rate_findings
from ablate.study.resolve import Resolver
from ablate.study.schema import Study
from ablate.study.words import Finding

FORMULA: Final = ("=", "+", "-", "@")


def study_findings(resolver: Resolver) -> Iterator[Finding]:
    """-> every mistake in a study whose every value is of the right type."""
    study = resolver.study
    if unreadable := list(unreadable_findings(study.evaluate)):
        yield from _below(("evaluate",), unreadable)
        return
    yield from _below(("seeds",), repeated(study.seeds, "seeds"))
    yield from _below(("data",), data_findings(study.data))
    yield from _below(("evaluate", "tasks"), task_findings(study.evaluate.tasks, study.evaluate.include_path))
    yield from _below(("evaluate",), code_findings(study.evaluate))
    yield from rate_findings(study)
    yield from _primary(study)
    yield from _names(study)
    yield from _labels(study)
    yield from _pairs(study)
    if too_many := list(_too_many_cells(study)):
        yield from too_many
        return
    for name in study.ablations:
        yield from ablation_findings(resolver, name)


def _too_many_cells(study: Study) -> Iterator[Finding]:
    """-> that all ablations together have too many cells; one that has them alone says so itself."""
    nums = [num_cells(ablation) for ablation in study.ablations.values()]
    total = sum(nums) * len(study.seeds)
    if total > MAX_CELLS and max(nums) <= MAX_CELLS:
        message = (
            f"the study has {total} cells, each under {len(study.seeds)} seeds counted, and {MAX_CELLS} is the most "
            "it may have: make several studies of it, which share what is equal"
        )
        yield Finding(("ablations",), message, True)


def _below(outer: Loc, findings: Iterable[Finding]) -> Iterator[Finding]:
    yield from (finding._replace(loc=outer + finding.loc) for finding in findings)


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
            what = f"{'.'.join(map(str, loc))}: a text that begins with {label.lstrip()[0]!r}"
            yield Finding(loc, f"{what} is a formula to a spreadsheet; begin it otherwise")


def _primary(study: Study) -> Iterator[Finding]:
    primary = study.report.primary
    if primary is None:
        return
    task, slash, metric = primary.partition("/")
    if not (slash and metric):
        message = f"report.primary: task/metric is expected, as in hellaswag/acc_norm, got {primary!r}"
        yield Finding(("report", "primary"), message)
    elif task not in (possible := _with_tags(study.evaluate)):
        hint = did_you_mean(task, possible)
        yield Finding(("report", "primary"), f"report.primary: {task!r} is not in evaluate.tasks.{hint}")


def _with_tags(evaluate: Evaluate) -> list[str]:
    """-> the names of the tasks, and of a tag those of its tasks, which have columns of their own."""
    names = list(evaluate.task_names)
    known = (name for name in evaluate.task_names if catalog.is_tag(name, evaluate.include_path))
    return names + [entry.name for name in known for entry in catalog.entries(name, evaluate.include_path)]


def chat_findings(resolver: Resolver) -> Iterator[Finding]:
    """-> models on this disk that a row asks by a chat template which they do not have, each once."""
    seen: set[tuple[str, str]] = set()
    for row in rows_of(resolver) if _may_chat(resolver.study) else ():
        setting, role = row.setting, "teacher" if row.model.startswith("teacher/") else "student"
        folder = Path((setting.teacher if role == "teacher" else setting.student).model)
        for why in _lacking(folder, setting.evaluate) if folder.is_absolute() else ():
            if (str(folder), why) not in seen:
                seen.add((str(folder), why))
                message = f"evaluate.apply_chat_template: the {role} {folder.name} of pair {setting.pair} {why}"
                yield Finding(("evaluate", "apply_chat_template"), message)


def _may_chat(study: Study) -> bool:
    """Whether any row can be asked by a chat template: most studies have none, and their rows need not be made."""
    parts = (study.evaluate.model_dump()["tasks"], *study.ablations.values())
    return study.evaluate.apply_chat_template is not False or any("apply_chat_template" in str(part) for part in parts)


def _lacking(folder: Path, evaluate: Evaluate) -> Iterator[str]:
    asked = {evaluate.asking(name).apply_chat_template for name in evaluate.task_names} - {False}
    names = template_names(folder) if asked else ()
    yield from (why for template in asked if (why := lacking(names, template)))


def _pairs(study: Study) -> Iterator[Finding]:
    named = study.distill.get("pair")
    if named is not None and named not in study.pairs:
        yield Finding(("distill", "pair"), f"unknown pair {named!r}.{did_you_mean(named, study.pairs)}")
    yield from _below(("distill", "teachers"), teacher_findings(study.distill.get("teachers"), study.pairs))
    for name, pair in study.pairs.items():
        of_pair = teacher_findings(pair.distill.get("teachers"), study.pairs)
        yield from _below(("pairs", name, "distill", "teachers"), of_pair)
        if "pair" in pair.distill:
            yield Finding(("pairs", name, "distill", "pair"), "a pair cannot name another pair: say distill.pair", True)
        yield from _below(("pairs", name, "teacher"), model_findings(pair.teacher))
        yield from _below(("pairs", name, "student"), model_findings(pair.student))


def edits_findings(resolver: Resolver, edits: Iterable[Edit]) -> Iterator[Finding]:
    """-> every --set of a recipe that no row is made with; one that says what was so before is fine."""
    of_recipes = [edit for edit in edits if edit.loc[0] in (*RECIPES, "dtype", "pairs") and edit.loc[-1] != "label"]
    layered_rows = list(layered(resolver, rows_of(resolver))) if of_recipes else []
    for edit in of_recipes:
        if edit.value != edit.before:
            yield from (Finding(edit.loc, why) for why in useless(resolver, layered_rows, FILE, edit.loc, edit.value))
