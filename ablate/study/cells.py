"""A study's cells: every row of every ablation, each with its complete setting."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, product
from typing import Any, Literal, NamedTuple, TypeAlias

from ablate.core.values import Json, canonical, identity
from ablate.core.yaml import Loc
from ablate.study.fields import kind_at
from ablate.study.names import cell_label, cell_name, reference_label, short_paths
from ablate.study.overlays import Overlay
from ablate.study.resolve import Resolver, Setting, Teacher, distilled_from
from ablate.study.schema import Ablation, ReferenceRow, Student, Study, TeacherOrStudent

RowModel: TypeAlias = ReferenceRow | Literal["distill"]


@dataclass(frozen=True)
class Row:
    """One row of one ablation's table, before seeds."""

    ablation: str
    name: str
    """`lr=0.0003`, `teacher=baseline,student=finetuned`, a label, or the reference row's name."""
    label: str
    """What a table shows: "Fine-tuned teacher (8B) using LoRA", "KD, lr=0.0003"."""
    model: RowModel
    """Which model the row evaluates."""
    setting: Setting
    values: dict[str, Any]
    """Dotted path -> value of the axes; empty for a reference row."""
    control: str
    """Name of the row of the same ablation that this one is compared with."""

    @property
    def is_replicate(self) -> bool:
        """Whether a plan added it: the control's recipe once more, under other seeds."""
        return self.name.endswith("/replicate")


class Cell(NamedTuple):
    """One cell of an ablation, as the file says it."""

    values: dict[str, Any]
    """Dotted path -> value."""
    locs: dict[str, Loc]
    """Dotted path -> where below the ablation the value was written."""
    label: str | None = None


def rows(study: Study) -> tuple[Row, ...]:
    """-> every row in the order of the tables: of each ablation the reference rows of each pair, then the cells."""
    return rows_of(Resolver(study))


def rows_of(resolver: Resolver) -> tuple[Row, ...]:
    """-> `rows` of a resolver's study."""
    return tuple(row for name in resolver.study.ablations for row in ablation_rows(resolver, name))


def cells_of(ablation: Ablation) -> list[Cell]:
    """-> the cells: every combination of the grid but the excluded ones, then `zip`, then `rows`."""
    if not (ablation.grid or ablation.zip or ablation.rows):
        return [Cell({}, {})]
    grid = [cell for cell in grid_cells(ablation) if not any(is_in(cell, out) for out in ablation.exclude)]
    zipped = [
        Cell(dict(zip(ablation.zip, values, strict=True)), {path: ("zip", path, index) for path in ablation.zip})
        for index, values in enumerate(zip(*ablation.zip.values(), strict=False))
    ]
    single = [
        Cell(row.settings, {path: ("rows", index, "settings", path) for path in row.settings}, row.label)
        for index, row in enumerate(ablation.rows)
    ]
    return [*grid, *zipped, *single]


def grid_cells(ablation: Ablation) -> Iterator[Cell]:
    """-> every combination of the grid, the last axis fastest."""
    axes = [[(path, index) for index in range(len(values))] for path, values in ablation.grid.items()]
    for point in product(*axes) if axes else ():
        yield Cell(
            {path: ablation.grid[path][index] for path, index in point},
            {path: ("grid", path, index) for path, index in point},
        )


def is_in(cell: Cell, exclude: Mapping[str, Any]) -> bool:
    """Whether all that an `exclude` says holds for a cell."""
    agrees = (path in cell.values and is_equal(cell.values[path], value) for path, value in exclude.items())
    return bool(exclude) and all(agrees)


def is_equal(one: Any, other: Any) -> bool:
    """Whether two values mean the same: 1 and 1.0, `jsd` and {name: jsd}."""
    return bool(_spelled(one) == _spelled(other))


def _spelled(value: Any) -> Any:
    if isinstance(value, Mapping) and value.keys() == {"name"}:
        return value["name"]
    return (type(value), value) if isinstance(value, bool) else value


def ablation_rows(resolver: Resolver, name: str) -> list[Row]:
    """-> the rows of one ablation, in order."""
    study, ablation = resolver.study, resolver.study.ablations[name]
    over = resolver.overlay(ablation.set)
    short = short_paths([*ablation.grid, *ablation.zip])
    distilled = []
    for cell in cells_of(ablation):
        values = {path: _as_field(resolver, path, value) for path, value in cell.values.items()}
        distilled.append((cell, values, resolver.setting(over, resolver.overlay(values))))
    pairs = list(dict.fromkeys(setting.pair for _, _, setting in distilled))
    table = [row for pair in pairs for row in _references(resolver, name, over, pair, is_alone=len(pairs) == 1)]
    for cell, values, setting in distilled:
        row_name = cell.label or cell_name(values, short)
        label = f"KD, {cell.label}" if cell.label else cell_label(values, short, study.pairs)
        table.append(Row(name, row_name, label, "distill", setting, values, ""))
    return _with_controls(table, ablation.control)


def _as_field(resolver: Resolver, path: str, value: Any) -> Any:
    """-> an integer as a float where the field is one, so that a cell has one name however it was written."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    return float(value) if kind_at(resolver.loc(path), resolver.file) is float else value


def _references(resolver: Resolver, ablation: str, over: Overlay, pair: str, *, is_alone: bool) -> Iterator[Row]:
    setting = resolver.setting(over, reference_overlay(pair))
    for reference in resolver.study.ablations[ablation].references:
        label = reference_label(reference, setting)
        if is_alone:
            yield Row(ablation, reference, label, reference, setting, {}, "")
        else:
            of_pair = resolver.study.pairs[pair].label or pair
            yield Row(ablation, f"{pair}/{reference}", f"{of_pair}: {label}", reference, setting, {}, "")


def reference_overlay(pair: str) -> Overlay:
    """-> what stands for a cell in a reference row: its pair alone."""
    return {"distill": {"pair": pair}}


def _with_controls(table: list[Row], control: str) -> list[Row]:
    names = {row.name for row in table}
    local = {(row.setting.pair, _without_pair(row)): row.name for row in table}
    of_pair = {pair: control if control in names else local.get((pair, control), control) for pair, _ in local}
    return [replace(row, control=of_pair[row.setting.pair]) for row in table]


def _without_pair(row: Row) -> str:
    """-> the row's name as it were in an ablation of its pair alone."""
    if row.model != "distill":
        return row.model
    parts = [part for part in row.name.split(",") if not part.startswith("pair=")]
    return ",".join(parts) or "kd"


def work(row: Row) -> dict[str, Json]:
    """-> what the row's scores are made from; two rows with equal work would show the same numbers."""
    setting, parts = row.setting, used_parts(row)
    ingredients: dict[str, Json] = {
        "evaluate": identity(setting.evaluate),
        "include": [setting.evaluate.include_path, setting.evaluate.allow_code],
        "dtype": setting.dtype,
    }
    if row.model == "distill":
        teachers = sorted(setting.teachers, key=lambda one: canonical([_teacher(one), one.weight]))
        ingredients |= {"distill": identity(distilled_from(setting.distill, teachers))}
        ingredients |= {"teachers": [_teacher(one) for one in teachers]}
        if "finetune_student" in parts:
            ingredients |= {"finetune_student": identity(setting.finetune_student)}
    else:
        ingredients["model"] = _model(setting.teacher if parts[0] == "teacher" else setting.student)
        ingredients["finetune"] = [identity(getattr(setting, part)) for part in parts if part.startswith("finetune_")]
    if "data" in parts:
        ingredients["rows"] = [identity(setting.data), setting.data.source, setting.data.config, setting.data.revision]
        ingredients["student"] = _model(setting.student)
    return ingredients


def used_parts(row: Row) -> tuple[str, ...]:
    """-> the parts of the row's setting that its scores depend on; see `other_teachers` for what is of other pairs."""
    role, _, state = row.model.partition("/")
    if state == "baseline":
        return (role, "pair", "dtype", "evaluate")
    if state == "finetuned":  # the student's tokenizer makes the rows of both
        return (role, "student", "pair", "dtype", "data", "evaluate", f"finetune_{role}")
    of_teachers = _parts_of_teachers(one for one in row.setting.teachers if one.pair == row.setting.pair)
    of_student = ("finetune_student",) if row.setting.distill.student == "finetuned" else ()
    return ("student", "pair", "dtype", "data", "evaluate", "distill", *of_teachers, *of_student)


def other_teachers(row: Row) -> Iterator[tuple[str, str]]:
    """-> (part, pair) of what a row's scores depend on in other pairs than its own: of its teachers."""
    for one in row.setting.teachers if row.model == "distill" else ():
        if one.pair != row.setting.pair:
            yield from ((part, one.pair) for part in _parts_of_teachers([one]))


def _parts_of_teachers(teachers: Iterable[Teacher]) -> tuple[str, ...]:
    parts = (("teacher", "finetune_teacher") if one.finetune else ("teacher",) for one in teachers)
    return tuple(dict.fromkeys(chain.from_iterable(parts)))


def _teacher(teacher: Teacher) -> list[Json]:
    return [_model(teacher.model), identity(teacher.finetune) if teacher.finetune else None]


def _model(model: TeacherOrStudent) -> list[Json]:
    prune = model.prune if isinstance(model, Student) else None
    named: list[Json] = [model.model, model.revision, model.trust_remote_code, *([model.base] if model.base else [])]
    further: list[Json] = [{"prune": identity(prune)}] if prune else []
    further += [{"quantize": model.quantize}] if model.quantize else []
    return [*named, *further]


def work_key(row: Row) -> str:
    """-> `work` as one text."""
    return canonical(work(row))
