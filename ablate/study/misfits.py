"""Recipes whose values are each right and together wrong: another loss's setting, a training without a length."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from ablate.core.yaml import Loc
from ablate.study.cells import cells_of, reference_overlay
from ablate.study.fields import inside
from ablate.study.local_features import unfit_features
from ablate.study.local_modules import module_findings
from ablate.study.local_pruning import pruning_findings
from ablate.study.overlays import Overlay, is_said, settings_at, tree
from ablate.study.prompts_needed import promptless, too_long, unwatched
from ablate.study.quantize import Quantize
from ablate.study.resolve import MisfitError, Resolver, Setting, part_layers
from ablate.study.training_recipes import Lora
from ablate.study.words import Finding, findings


class _Cut(NamedTuple):
    """A student on this disk that is cut."""

    model: str
    base: str | None
    words: str


class _Trained(NamedTuple):
    """A recipe by which a model is trained."""

    part: str
    pair: str
    model: str
    lora: Lora | None
    quantize: Quantize | None


def misfit_findings(resolver: Resolver, name: str) -> Iterator[Finding]:
    """-> what is wrong with the recipes of one ablation's rows, each where the uppermost layer says it.

    Of its reference rows, which have no cell, where nothing is wrong with the others.
    """
    ablation = resolver.study.ablations[name]
    over = resolver.overlay(ablation.set)
    in_set: dict[str, Loc] = {path: ("ablations", name, "set", path) for path in ablation.set}
    pairs: dict[str, None] = {}
    asked: set[_Trained | _Cut] = set()
    num_misfits = 0
    for cell in cells_of(ablation):
        in_cell: dict[str, Loc] = {path: ("ablations", name, *loc) for path, loc in cell.locs.items()}
        overlay = resolver.overlay(cell.values)
        pairs.setdefault(resolver.pair(over, overlay))
        for finding in _misfits(resolver, over, overlay, in_set | in_cell, ("distill",), asked):
            num_misfits += 1
            yield finding
    references = tuple(f"finetune_{row.partition('/')[0]}" for row in ablation.references if row.endswith("/finetuned"))
    for pair in pairs if not num_misfits else ():
        yield from _misfits(resolver, over, reference_overlay(pair), in_set, references, asked)


def _misfits(
    resolver: Resolver,
    over: Overlay,
    cell: Overlay,
    written: Mapping[str, Loc],
    trained: tuple[str, ...],
    asked: set[_Trained | _Cut],
) -> Iterator[Finding]:
    """`trained`: the parts of the row's setting that are trainings, but for those that a distillation begins with."""
    try:
        setting = resolver.setting(over, cell)
    except MisfitError as misfit:
        yield from _placed(misfit, resolver, written)
        return
    if "distill" in trained:
        yield from _distillation_findings(setting, resolver, written)
    yield from _cut_amiss(setting, resolver, written, asked)
    for one in (*_trained(setting, trained), *(_finetuned_for(setting) if "distill" in trained else ())):
        if one not in asked:
            asked.add(one)
            for field, message in _amiss(one):
                loc = _said_at(one.part, one.pair, (field,), resolver, written)
                yield Finding(loc, f"{'.'.join(map(str, loc))}: {message}")


def _amiss(one: _Trained) -> Iterator[tuple[Loc, str]]:
    """-> (field of the recipe, why a model cannot be trained so)."""
    if one.quantize:
        yield from _untrainable(one)
    if one.lora is not None and Path(one.model).is_absolute():
        yield from ((("lora", field), message) for field, message in module_findings(one.lora, Path(one.model)))


def _distillation_findings(setting: Setting, resolver: Resolver, written: Mapping[str, Loc]) -> Iterator[Finding]:
    """-> prompts, rows or layers that a distillation needs and that are not there, as far as this disk knows."""
    for finding in filter(None, (promptless(setting), unwatched(setting), too_long(setting))):
        yield finding._replace(loc=_said_at("distill", setting.pair, (finding.loc, ("method",)), resolver, written))
    if unfit := unfit_features(setting):
        yield unfit._replace(loc=_said_at("distill", setting.pair, (unfit.loc,), resolver, written))


def _trained(setting: Setting, parts: Iterable[str]) -> Iterator[_Trained]:
    for part in parts:
        model = setting.teacher if part == "finetune_teacher" else setting.student
        yield _Trained(part, setting.pair, model.model, getattr(setting, part).lora, model.quantize)


def _cut_amiss(
    setting: Setting, resolver: Resolver, written: Mapping[str, Loc], asked: set[_Trained | _Cut]
) -> Iterator[Finding]:
    """-> why a student cannot be cut as its row says."""
    student = setting.student
    one = _Cut(student.model, student.base, student.prune.words if student.prune else "")
    if student.prune is None or one in asked:
        return
    asked.add(one)
    for field, message in pruning_findings(student, student.prune):
        loc = _said_at("student", setting.pair, (("prune", *field),), resolver, written)
        yield Finding(loc, f"student.{'.'.join(('prune', *field))}: {message}")


def _finetuned_for(setting: Setting) -> Iterator[_Trained]:
    """-> the fine-tunings that a distillation begins with."""
    for one in setting.teachers:
        if one.finetune:
            yield _Trained("finetune_teacher", one.pair, one.model.model, one.finetune.lora, one.model.quantize)
    if setting.distill.student == "finetuned":
        yield from _trained(setting, ("finetune_student",))


def _untrainable(one: _Trained) -> Iterator[tuple[Loc, str]]:
    """-> (field of the recipe, why a quantised model cannot be trained so)."""
    role = "teacher" if one.part == "finetune_teacher" else "student"
    whose = f"pairs.{one.pair}.{role}.quantize: {one.quantize}"
    if one.lora is None:
        yield ("lora",), f"none trains every weight, and {whose} keeps them as they are: train an adapter"
    elif one.lora.use_dora:
        yield ("lora", "use_dora"), f"DoRA scales weights that {whose} keeps as they are: train plain LoRA"


def _said_at(part: str, pair: str, inners: tuple[Loc, ...], resolver: Resolver, written: Mapping[str, Loc]) -> Loc:
    """-> where the uppermost layer of a recipe says any of some fields; where it could say the first, if none does."""
    layers = part_layers(part, pair)
    by_field = [[layer + inner for layer in reversed(layers)] for inner in inners]
    where = _in_ablation([*chain(*by_field)], written, resolver)
    in_file = (target for target in chain(*by_field) if all(inners) and is_said(resolver.file, target))
    return where or next(in_file, None) or _in_file(by_field[0], layers, resolver.file)


def _placed(misfit: MisfitError, resolver: Resolver, written: Mapping[str, Loc]) -> Iterator[Finding]:
    layers = part_layers(misfit.part, misfit.pair)
    outer = layers[-1] if len(layers) == 1 else (misfit.part.partition("_")[0],)
    for finding in findings(misfit.error, tree([(outer, misfit.merged)]), outer):
        inners = finding.fields or (finding.loc[len(outer) :],)
        yield finding._replace(loc=_said_at(misfit.part, misfit.pair, inners, resolver, written), fields=())


def _in_ablation(targets: list[Loc], written: Mapping[str, Loc], resolver: Resolver) -> Loc | None:
    """-> where the cell, or else the `set`, says something at one of the places or around it."""
    for path, loc in reversed(list(written.items())):
        at = resolver.loc(path)
        for target in targets:
            if target[: len(at)] == at or at[: len(target)] == target:
                return (*loc, *target[len(at) :])
    return None


def _in_file(targets: list[Loc], layers: tuple[Loc, ...], file: Overlay) -> Loc:
    """-> the uppermost layer of the file that says anything there; the lowest where none does."""
    for target, layer in zip(targets, reversed(layers), strict=True):
        field = target[len(layer) : len(layer) + 1]
        if field and inside(settings_at(file, layer), field[0]) is not None:
            return target
    return targets[-1]
