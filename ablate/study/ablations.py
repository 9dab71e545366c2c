"""What is wrong with one ablation: axes that name nothing, cells that are the same work, a control that is no row."""

import math
from collections.abc import Iterator
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from ablate.core.errors import did_you_mean
from ablate.core.values import RUNTIME
from ablate.core.yaml import Loc
from ablate.study.cells import Cell, Row, ablation_rows, cells_of, grid_cells, is_in, work_key
from ablate.study.effect import Layered, layered, useless
from ablate.study.field_types import Dtype
from ablate.study.fields import kind_at, role_at
from ablate.study.layer import partial
from ablate.study.local_chat_templates import chat_template_findings
from ablate.study.meaning import may_generate, row_findings, teacher_findings, value_meaning
from ablate.study.misfits import misfit_findings
from ablate.study.overlays import CELL, SET, tree
from ablate.study.resolve import Resolver
from ablate.study.schema import Ablation, Study
from ablate.study.stated_contrasts import contrast_findings
from ablate.study.words import Finding, findings

MAX_CELLS: Final = 2_000
MAX_SAME: Final = 3
"""Rows told to be the same work; more of them say nothing new."""


def ablation_findings(resolver: Resolver, name: str) -> Iterator[Finding]:
    """-> every mistake in one ablation; its rows are only made where each of its values is right."""
    study = resolver.study
    wrong = [_placed(study, name, finding) for finding in _settings_findings(resolver, name)]
    mistakes = list(_shape(study.ablations[name]))
    if not (wrong or mistakes):
        if not _has_its_pairs(study):
            return
        wrong = [_counted(study, finding) for finding in misfit_findings(resolver, name)]
        if not wrong:
            yield from chat_template_findings(resolver, name)
            mistakes = list(_rows_findings(resolver, name))
    yield from wrong
    yield from (finding._replace(loc=("ablations", name, *finding.loc)) for finding in mistakes)


def _placed(study: Study, name: str, finding: Finding) -> Finding:
    return _counted(study, finding._replace(loc=("ablations", name, *finding.loc)))


def _counted(study: Study, finding: Finding) -> Finding:
    """-> the finding with the number of cells that are made with what it is about, seeds counted."""
    match finding.loc:
        case ("ablations", str(name), *rest) if num_cells(study.ablations[name]) <= MAX_CELLS:
            inner = tuple(rest)
            cells = cells_of(study.ablations[name])
            num = len(cells) if inner[:1] == ("set",) else sum(_is_made_with(cell, inner) for cell in cells)
            return finding._replace(num_cells=num * len(study.seeds))
    return finding


def _is_made_with(cell: Cell, inner: Loc) -> bool:
    return any(inner[: len(loc)] == loc or loc[: len(inner)] == inner for loc in cell.locs.values())


def _has_its_pairs(study: Study) -> bool:
    """Whether the pair that the study distils unless an ablation says otherwise, and all whose teachers, are there."""
    layers = (study.distill, *(pair.distill for pair in study.pairs.values()))
    are_there = not any(finding for layer in layers for finding in teacher_findings(layer.get("teachers"), study.pairs))
    return are_there and study.distill.get("pair", next(iter(study.pairs))) in study.pairs


def num_cells(ablation: Ablation) -> int:
    """-> how many cells an ablation has at most, without making them."""
    of_grid = math.prod(map(len, ablation.grid.values())) if ablation.grid else 0
    return max(1, of_grid + max(map(len, ablation.zip.values()), default=0) + len(ablation.rows))


def _shape(ablation: Ablation) -> Iterator[Finding]:
    for part in ("grid", "zip", "rows"):
        if part in ablation.model_fields_set and not getattr(ablation, part):
            yield Finding((part,), f"{part} is empty, so the ablation has no row to compare", True)
    lengths = {path: len(values) for path, values in ablation.zip.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{path} has {length}" for path, length in lengths.items())
        yield Finding(("zip",), f"zip goes side by side, so its lists are of one length: {listed}", True)
    if (of_grid := math.prod(map(len, ablation.grid.values()))) > MAX_CELLS:
        message = f"the grid has {of_grid} cells, and {MAX_CELLS} is the most an ablation may have"
        yield Finding(("grid",), message, True)
        return
    if not cells_of(ablation):
        yield Finding(("exclude",), "exclude leaves no cell of the grid", True)
    for index, out in enumerate(ablation.exclude):
        if path := next((path for path in out if path not in ablation.grid), None):
            hint = did_you_mean(path, ablation.grid)
            yield Finding(("exclude", index, path), f"exclude: {path!r} is no axis of the grid.{hint}", True)
        elif not any(is_in(cell, out) for cell in grid_cells(ablation)):
            yield Finding(("exclude", index), "exclude: no cell of the grid has these values")


def _settings(ablation: Ablation) -> Iterator[tuple[Loc, str, Loc, Any]]:
    """-> (where the path is written, path, where the value is written, value) of everything that the ablation sets."""
    for part, axes in (("grid", ablation.grid), ("zip", ablation.zip)):
        for path, values in axes.items():
            yield from (((part, path), path, (part, path, index), value) for index, value in enumerate(values))
    for path, value in ablation.set.items():
        yield ("set", path), path, ("set", path), value
    for index, row in enumerate(ablation.rows):
        for path, value in row.settings.items():
            yield ("rows", index, "settings", path), path, ("rows", index, "settings", path), value


def _settings_findings(resolver: Resolver, name: str) -> Iterator[Finding]:
    seen: set[Loc] = set()
    for key_loc, path, loc, value in _settings(resolver.study.ablations[name]):
        try:
            target = resolver.loc(path)
        except ValueError as error:
            yield from [] if key_loc in seen else [Finding(key_loc, str(error), True)]
            seen.add(key_loc)
            continue
        for finding in value_findings(resolver.study, target, value):
            yield finding._replace(loc=(*loc, *finding.loc))


def value_findings(study: Study, target: Loc, value: Any) -> Iterator[Finding]:
    """-> what is wrong with a value at a place of the study, each with its place inside the value."""
    try:
        _check(target, value)
    except ValidationError as error:
        data = tree([(target, value)])
        for finding in findings(error, data, _outer(target)):
            yield finding._replace(loc=finding.loc[len(target) :])
    else:
        yield from value_meaning(study, target, value)


def _outer(target: Loc) -> Loc:
    return target[:2] if target[0] == "pairs" else target[:1]


def _check(target: Loc, value: Any) -> None:
    """Raises ValidationError where the recipe would not take the value."""
    if target == ("dtype",):
        TypeAdapter(Dtype).validate_python(value)
    elif not {"loss", "student_loss", "features"} & {*target[:-1]}:  # a loss's own setting is checked with its name
        outer = _outer(target)
        partial(kind_at(outer, tree([(target, value)]))).model_validate(tree([(target[len(outer) :], value)]))


def _rows_findings(resolver: Resolver, name: str) -> Iterator[Finding]:
    rows = ablation_rows(resolver, name)
    ablation = resolver.study.ablations[name]
    yield from _data_findings(resolver.study, rows)
    cells: list[Cell | None] = [None] * (len(rows) - len(cells_of(ablation))) + list(cells_of(ablation))
    effects = list(_effects(resolver, ablation, rows))
    yield from effects
    yield from [] if effects else _same(rows, cells)
    names = {row.name for row in rows}
    if missing := next((row.control for row in rows if row.control not in names), None):
        loc: Loc = ("control",) if "control" in ablation.model_fields_set else ()
        yield Finding(loc, f"control: there is no row {missing!r}.{did_you_mean(missing, names)}", not loc)
    yield from contrast_findings(ablation, rows)


def _data_findings(study: Study, rows: list[Row]) -> Iterator[Finding]:
    """-> what is wrong with rows that an ablation reads from elsewhere, or in another way."""
    first = {row.setting.data.model_dump_json(): row for row in rows if row.setting.data != study.data}
    for row in first.values():
        for finding in row_findings(row.setting.data):
            yield Finding((), f"row {row.name}: {finding.message}", True)


def _effects(resolver: Resolver, ablation: Ablation, rows: list[Row]) -> Iterator[Finding]:
    layered_rows = list(layered(resolver, rows))
    for path, value in ablation.set.items():
        for why in useless(resolver, layered_rows, SET, resolver.loc(path), value):
            yield Finding(("set", path), why, True)
    yield from _generations_in_vain(resolver, ablation)
    seen: set[Loc] = set()
    for key_loc, path, _, value in _settings(ablation):
        if key_loc[0] == "set" or key_loc in seen:
            continue
        seen.add(key_loc)
        target = resolver.loc(path)
        if role_at(target) is RUNTIME:
            message = f"{path} says how a result is made, not what it is: its rows would be the same"
            yield Finding(key_loc, message, True)
            continue
        with_path: list[Layered] = [row for row in layered_rows if path in row.row.values]
        yield from (Finding(key_loc, why, True) for why in useless(resolver, with_path, CELL, target, value))


def _generations_in_vain(resolver: Resolver, ablation: Ablation) -> Iterator[Finding]:
    """-> where it is said how answers are generated, while no task has any generated: once for each path."""
    paths = {key_loc: path for key_loc, path, _, _ in _settings(ablation)}
    vain = [loc for loc, path in paths.items() if resolver.loc(path)[:2] == ("evaluate", "gen_kwargs")]
    if vain and not may_generate(resolver.study):
        yield from (Finding(loc, f"{paths[loc]} changes nothing: no task has answers generated", True) for loc in vain)


def _same(rows: list[Row], cells: list[Cell | None]) -> Iterator[Finding]:
    """-> rows that would show the same numbers, or have one name."""
    first_work: dict[str, Row] = {}
    first_name: dict[str, Row] = {}
    num_same = 0
    for row, cell in zip(rows, cells, strict=True):
        loc: Loc = ("references",) if cell is None else next(iter(cell.locs.values()), ())
        other = first_work.setdefault(work_key(row), row)
        namesake = first_name.setdefault(row.name.casefold(), row)
        if other is not row:
            num_same += 1
            if num_same <= MAX_SAME:
                where = " of them (references:)" if cell is None else ""
                both = f"rows {other.name!r} and {row.name!r}"
                yield Finding(loc, f"{both} are the same work and compare nothing: leave out one{where}", True)
        elif namesake is not row:
            yield Finding(loc, f"two rows are named {row.name!r}: list them under rows:, each with a label", True)
