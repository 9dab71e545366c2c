"""The page's chapter on how it was done: recipes, common settings, models and data, versions, shared stages."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ablate.core.values import Frozen, Role, is_unused, role_of
from ablate.report.formatting import plain, plural
from ablate.report.stage_kinds import WORDS, WORK, is_fetched
from ablate.report.words import say
from ablate.results.collect import AblationResult, Results
from ablate.results.stage_times import provenance
from ablate.store.stage import Stage
from ablate.study.local import as_said
from ablate.study.resolve import Setting
from ablate.study.training_recipes import Distill

NAMES = {
    "lora.target_modules": "LoRA targets",
    "lora.rank": "LoRA rank",
    "lora.alpha": "LoRA alpha",
    "lora.dropout": "LoRA dropout",
    "lora.use_rslora": "LoRA rank-stabilised (rsLoRA)",
    "lora.use_dora": "LoRA weight-decomposed (DoRA)",
    "lora.modules_to_save": "trained whole beside LoRA",
    "answers": "answers written by",
    "student_fraction": "share of rows that the student writes",
    "student_loss": "loss of the rows that the student writes",
}


UNSAID = ("", "none", "0")
"""Values of settings that are off: not worth a line."""
ORDER = ("model", "data", "evaluation data")


class RecipeTable(NamedTuple):
    """Settings of one pair: a column a recipe, a line a setting."""

    pair: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, tuple[str, ...]], ...]


class Source(NamedTuple):
    """Something that came from outside."""

    what: str
    name: str
    version: str


def recipes(results: Results) -> list[RecipeTable]:
    """-> one table a pair that the study uses."""
    by_pair: dict[str, list[tuple[str, Setting]]] = {}
    for cell in results.cells:
        by_pair.setdefault(cell.cell.row.setting.pair, []).append((cell.cell.row.model, cell.cell.row.setting))
    return [_recipe_table(pair, settings) for pair, settings in by_pair.items()]


def common(results: Results) -> list[tuple[str, str]]:
    """-> data and evaluation settings that are not the default's business alone: (name, value or values)."""
    settings = [cell.cell.row.setting for cell in results.cells]
    unused = _unused([setting.data for setting in settings]) | _unused([setting.evaluate for setting in settings])
    data = _merged(({"source": as_said(setting.data.source)} | _fields(setting.data) for setting in settings), unused)
    evaluation = _merged((_fields(setting.evaluate) for setting in settings), unused)
    dtypes = {"dtype": plain(sorted({setting.dtype for setting in settings}))}
    return [
        *((f"data {name}", value) for name, value in data.items() if value not in UNSAID),
        *((f"evaluation {name}", value) for name, value in evaluation.items() if value not in UNSAID),
        *dtypes.items(),
        ("seeds", plain(list(results.study.seeds))),
    ]


def unlabelled_settings(ablation: AblationResult) -> list[str]:
    """-> settings that no label of a row tells: those that all rows share, those of rows with an own label."""
    named = {row.label: row.settings for row in ablation.spec.rows}
    shared = [say("scores.all_rows", settings=_settings(ablation.spec.set))] if ablation.spec.set else []
    return shared + [
        say("scores.row", row=row.row.label, settings=_settings(named[row.row.name]))
        for row in ablation.rows
        if row.row.name in named
    ]


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} = {plain(value)}" for path, value in values.items())


def sources(results: Results) -> list[Source]:
    """-> models and data sets with their pinned revision, or the digest of a local one."""
    plan = results.plan
    unique = dict.fromkeys(
        _source(stage, provenance(plan, stage).get("notes") or {}) for stage in plan.stages if is_fetched(stage)
    )
    return sorted(unique, key=lambda source: ORDER.index(source.what))


def versions(results: Results) -> list[tuple[str, str]]:
    """-> libraries and devices that made what is done; several where they changed on the way."""
    values_by_name: dict[str, dict[str, None]] = {}
    for record in (provenance(results.plan, stage) for stage in results.plan.stages):
        machine = {name: record[name] for name in ("device", "python") if record.get(name)}
        for name, value in (machine | (record.get("versions") or {})).items():
            values_by_name.setdefault(name, {}).setdefault(str(value))
    return [(name, ", ".join(values)) for name, values in sorted(values_by_name.items())]


def sharing(results: Results) -> str:
    """What a person would have run table by table, and what was run here."""
    stages = results.plan.work
    by_hand = results.plan.num_by_hand
    kinds = {kind: sum(stage.kind == kind for stage in stages) for kind in WORK}
    counts = ", ".join(plural(count, WORDS[kind].noun) for kind, count in kinds.items() if count)
    here = say("how.stages", stages=plural(len(stages), "stage"), counts=counts)
    return f"{here} {say('how.by_hand', num=by_hand)}" if by_hand > len(stages) else here


def _source(stage: Stage, notes: Mapping[str, Any]) -> Source:
    source = _plain_source(stage)
    base = stage.inputs.get("base")
    remarks = [f"an adapter, merged on {_plain_source(base).name}"] if base else []
    remarks += [str(notes["adapter"])] if "adapter" in notes else []
    return source._replace(name=f"{source.name} ({'; '.join(remarks)})") if remarks else source


def _plain_source(stage: Stage) -> Source:
    settings: Any = stage.settings
    what = {"model": "model", "dataset": "data", "tasks": "evaluation data"}[settings.repo_type]
    if settings.source == "hub":
        config = f" ({settings.config})" if settings.config else ""
        return Source(what, f"{settings.repo}{config}", settings.revision or "not pinned yet")
    name = str(settings.path or "").rstrip("/").rpartition("/")[2]
    return Source(what, name, f"sha256 {(settings.sha256 or '')[:12]}")


def _recipe_table(pair: str, settings: Sequence[tuple[str, Setting]]) -> RecipeTable:
    used: dict[str, list[Frozen]] = {
        "Teacher's fine-tuning": [setting.finetune_teacher for _, setting in settings],
        "Student's fine-tuning": [setting.finetune_student for _, setting in settings],
        "Distillation": [setting.distill for model, setting in settings if model == "distill"],
    }
    unused = _unused([recipe for column in used.values() for recipe in column])
    columns = {name: _merged(map(_fields, recipes), unused) for name, recipes in used.items() if recipes}
    names = dict.fromkeys(name for values in columns.values() for name in values)
    lines = [(NAMES.get(name, name), tuple(values.get(name, "") for values in columns.values())) for name in names]
    return RecipeTable(pair, tuple(columns), tuple(line for line in lines if set(line[1]) - {"", "none", "false"}))


def _merged(several: Iterable[dict[str, str]], unused: frozenset[str]) -> dict[str, str]:
    """-> each field's value but the unused ones'; all its values where rows differ."""
    values_by_name: dict[str, dict[str, None]] = {}
    for fields in several:
        for name, value in fields.items():
            values_by_name.setdefault(name, {}).setdefault(value)
    return {
        name: ("varied: " if len(values) > 1 else "") + " / ".join(values)
        for name, values in values_by_name.items()
        if name not in unused
    }


def _unused(recipes: Sequence[Frozen]) -> frozenset[str]:
    """-> the fields, nested ones as lora.use_dora, that are extensions at their default in all of the recipes."""
    used: set[str] = set()
    unused: set[str] = set()
    for recipe in recipes:
        for name, is_used in _extensions(recipe):
            (used if is_used else unused).add(name)
    return frozenset(unused - used)


def _extensions(recipe: Frozen) -> Iterator[tuple[str, bool]]:
    """-> each extension's name, and whether it says anything."""
    for name in type(recipe).model_fields:
        value = getattr(recipe, name)
        if role_of(type(recipe), name) is Role.EXTENSION:
            yield name, not is_unused(recipe, name)
        if isinstance(value, Frozen):
            yield from ((f"{name}.{inner}", is_used) for inner, is_used in _extensions(value))


def _fields(recipe: Frozen) -> dict[str, str]:
    """Every field that is not a matter of how and has a say, nested ones as lora.rank."""
    silent = recipe.silent_fields if isinstance(recipe, Distill) else frozenset()
    texts: dict[str, str] = {}
    for name in type(recipe).model_fields:
        value = getattr(recipe, name)
        if role_of(type(recipe), name) is Role.RUNTIME or name in ("pair", "source", "include_path", "allow_code"):
            continue
        if isinstance(value, Frozen) and name not in ("loss", "student_loss", "features"):
            texts |= {f"{name}.{inner}": text for inner, text in _fields(value).items()}
        elif isinstance(value, tuple) and value and isinstance(value[0], Frozen):
            texts[name] = "; ".join(plain(item.model_dump(mode="json")) for item in value)
        else:
            texts[name] = plain(value.model_dump(mode="json") if isinstance(value, Frozen) else value)
    return {name: text for name, text in texts.items() if silent.isdisjoint((name, name.partition(".")[0]))}
