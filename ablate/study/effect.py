"""Whether a setting reaches any row, and what stands in its way."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

from ablate.study.cells import Row, used_parts
from ablate.study.fields import at
from ablate.study.layer import laid_over
from ablate.study.resolve import Overlay, Resolver, part_layers
from ablate.study.schema import with_one_length
from ablate.study.yaml import Loc

FILE, SET, CELL = range(3)
"""Which of a row's overlays says a setting; later wins."""


@dataclass(frozen=True)
class Layered:
    """A row with the overlays it was made from."""

    row: Row
    overlays: tuple[Overlay, Overlay, Overlay]
    """The file's, the ablation's `set`, the cell's."""


class Reach(NamedTuple):
    """Whether a setting reaches a row."""

    is_used: bool
    overriders: frozenset[str] = frozenset()
    """What says the same thing above it; empty where no part of the row has such a setting."""


class _Mark(str):
    """A value that is recognised by identity; a text where the value is one, because names choose variants."""


def layered(resolver: Resolver, rows: Iterable[Row]) -> Iterator[Layered]:
    for row in rows:
        over = resolver.overlay(resolver.study.ablations[row.ablation].set)
        cell = resolver.overlay(row.values) if row.model == "distill" else {"distill": {"pair": row.setting.pair}}
        yield Layered(row, (resolver.file, over, cell))


def useless(resolver: Resolver, rows: Sequence[Layered], level: int, loc: Loc, value: Any) -> Iterator[str]:
    """-> for every part of a value that no row is made with: why."""
    for leaf in leaves(value, loc):
        overriders: set[str] = set()
        for row in rows:
            reach = _reach(resolver, row, level, leaf, at(value, leaf[len(loc) :]))
            if reach.is_used:
                break
            overriders |= reach.overriders
        else:
            name = ".".join(map(str, leaf))
            verb = "overrides" if len(overriders) == 1 else "override"
            why = f"{' and '.join(sorted(overriders))} {verb} it" if overriders else "no row is made with it"
            yield f"{name} changes nothing: {why}"


def leaves(value: Any, loc: Loc = ()) -> Iterator[Loc]:
    """-> the place of everything in nested mappings that is no mapping with something in it."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*loc, key))
    else:
        yield loc


def _reach(resolver: Resolver, row: Layered, level: int, leaf: Loc, value: Any) -> Reach:
    mark = _Mark(value if isinstance(value, str) else "none")
    overlays = list(row.overlays)
    overlays[level] = _with(overlays[level], leaf, mark)
    overriders: set[str] = set()
    for part in _reached(row.row, leaf):
        pair = row.row.setting.pair
        merged = _merged(part, resolver.layers(part, pair, overlays))
        if part == "distill" and merged.get("scale_by_t2") is mark and merged.get("temperature", 1) == 1:
            overriders.add("a temperature of 1")
        elif _holds(merged, mark):
            return Reach(True)
        else:
            overriders |= set(_overriders(resolver, part, pair, overlays, mark, row.row.ablation))
    return Reach(False, frozenset(overriders))


def _with(overlay: Any, leaf: Loc, mark: _Mark) -> Any:
    if not leaf:
        return mark
    below = overlay if isinstance(overlay, dict) else {}
    return below | {leaf[0]: _with(below.get(leaf[0]), leaf[1:], mark)}


def _reached(row: Row, leaf: Loc) -> Iterator[str]:
    """-> the parts of a row's setting that a place in the file can be about."""
    for part in used_parts(row):
        is_about = any(leaf[: len(layer)] == layer for layer in part_layers(part, row.setting.pair))
        is_recipe = part in ("teacher", "student") and "finetune" in leaf[3:]
        is_pair = part == "distill" and leaf == ("distill", "pair")
        if is_about and not is_recipe and not is_pair:
            yield part


def _merged(part: str, layers: list[Any]) -> Any:
    if part in ("pair", "dtype"):
        return next((layer for layer in reversed(layers) if layer != {}), None)
    merged: dict[str, Any] = reduce(laid_over, layers, {})
    if part == "distill" or part.startswith("finetune_"):
        return with_one_length(merged)
    return merged


def _holds(value: Any, mark: _Mark) -> bool:
    return value is mark or (isinstance(value, dict) and any(_holds(inner, mark) for inner in value.values()))


def _overriders(
    resolver: Resolver, part: str, pair: str, overlays: list[Overlay], mark: _Mark, ablation: str
) -> Iterator[str]:
    """-> the uppermost thing said that alone would hide the marked one."""
    places = [(level, loc) for level in range(len(overlays)) for loc in part_layers(part, pair)]
    layers = resolver.layers(part, pair, overlays)
    marked = next(index for index, layer in enumerate(layers) if _holds(layer, mark))
    for index in [marked, *range(len(layers) - 1, marked, -1)]:
        if not _holds(_merged(part, [layers[one] for one in dict.fromkeys((marked, index))]), mark):
            level, loc = places[index]
            inner = _deepest(layers[index], _path_to(layers[marked], mark))
            path = ".".join(map(str, (*loc, *inner)))
            yield {FILE: path, SET: f"ablations.{ablation}.set.{path}", CELL: f"the cell's {path}"}[level]
            return


def _path_to(layer: Any, mark: _Mark) -> Loc:
    if layer is mark or not isinstance(layer, dict):
        return ()
    key = next(key for key, inner in layer.items() if _holds(inner, mark))
    return (key, *_path_to(layer[key], mark))


def _deepest(layer: Any, path: Loc) -> Loc:
    """-> as much of a path as the layer says; `max_steps` where it stands in for `epochs`."""
    if not isinstance(layer, dict) or not path:
        return ()
    twin = {"epochs": "max_steps", "max_steps": "epochs"}.get(str(path[0]), path[0])
    key = twin if twin in layer else path[0]
    return (key, *_deepest(layer[key], path[1:])) if key in layer else ()
