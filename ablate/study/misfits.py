"""Recipes whose values are each right and together wrong: another loss's setting, a training without a length."""

from collections.abc import Iterator, Mapping

from ablate.study.cells import cells_of, reference_overlay
from ablate.study.fields import inside
from ablate.study.overlays import Overlay, settings_at, tree
from ablate.study.resolve import MisfitError, Resolver, part_layers
from ablate.study.words import Finding, findings
from ablate.study.yaml import Loc


def misfit_findings(resolver: Resolver, name: str) -> Iterator[Finding]:
    """-> what is wrong with the recipes of one ablation's rows, each where the uppermost layer says it.

    Of its reference rows, which have no cell, where nothing is wrong with the others.
    """
    ablation = resolver.study.ablations[name]
    over = resolver.overlay(ablation.set)
    in_set: dict[str, Loc] = {path: ("ablations", name, "set", path) for path in ablation.set}
    pairs: dict[str, None] = {}
    num_misfits = 0
    for cell in cells_of(ablation):
        in_cell: dict[str, Loc] = {path: ("ablations", name, *loc) for path, loc in cell.locs.items()}
        overlay = resolver.overlay(cell.values)
        pairs.setdefault(resolver.pair(over, overlay))
        for finding in _misfits(resolver, over, overlay, in_set | in_cell):
            num_misfits += 1
            yield finding
    for pair in pairs if not num_misfits else ():
        yield from _misfits(resolver, over, reference_overlay(pair), in_set)


def _misfits(resolver: Resolver, over: Overlay, cell: Overlay, written: Mapping[str, Loc]) -> Iterator[Finding]:
    try:
        resolver.setting(over, cell)
    except MisfitError as misfit:
        yield from _placed(misfit, resolver, written)


def _placed(misfit: MisfitError, resolver: Resolver, written: Mapping[str, Loc]) -> Iterator[Finding]:
    layers = part_layers(misfit.part, misfit.pair)
    outer = layers[-1] if len(layers) == 1 else (misfit.part.partition("_")[0],)
    for finding in findings(misfit.error, tree([(outer, misfit.merged)]), outer):
        inner = finding.loc[len(outer) :]
        targets = [layer + inner for layer in reversed(layers)]
        where = _in_ablation(targets, written, resolver) or _in_file(targets, layers, resolver.file)
        yield finding._replace(loc=where)


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
