"""Does a setting change any row, and if not, what overrides it? Read off where each value of a recipe was said."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ablate.core.yaml import Loc
from ablate.study.answer_settings import ANSWER_FIELDS, why_silent
from ablate.study.cells import Row, other_teachers, reference_overlay, used_parts
from ablate.study.overlays import CELL, FILE, SET, Leaf, Origin, Overlay, is_said, origins, stacked, traced, value_of
from ablate.study.resolve import Overlays, RecipeLayer, Resolver, part_layers
from ablate.study.training_recipes import is_number_of_steps


@dataclass(frozen=True)
class Layered:
    """A row with the overlays it was made from."""

    row: Row
    overlays: Overlays


def layered(resolver: Resolver, rows: Iterable[Row]) -> Iterator[Layered]:
    for row in rows:
        over = resolver.overlay(resolver.study.ablations[row.ablation].set)
        cell = resolver.overlay(row.values) if row.model == "distill" else reference_overlay(row.setting.pair)
        yield Layered(row, (resolver.file, over, cell))


class _Reason(NamedTuple):
    """Why a row is not made with a setting."""

    words: str
    is_override: bool
    """Something else was said over it; else it means nothing beside the rest."""


def useless(resolver: Resolver, rows: Sequence[Layered], level: int, loc: Loc, value: Any) -> Iterator[str]:
    """-> for every part of a value that no row is made with: why. Judged by the rows in which it is said."""
    for leaf, reasons in _unused(resolver, rows, level, loc, value):
        yield f"{_dotted(leaf)} changes nothing: {_why({reason.words for reason in reasons})}"


def meaningless(resolver: Resolver, rows: Sequence[Layered], loc: Loc, value: Any) -> Iterator[str]:
    """-> likewise of what the file says for all rows, but for what every row says otherwise, as defaults may be."""
    for leaf, reasons in _unused(resolver, rows, FILE, loc, value):
        if not all(reason.is_override for reason in reasons):
            yield f"{_dotted(leaf)} changes nothing: {_why({reason.words for reason in reasons})}"


def _unused(
    resolver: Resolver, rows: Sequence[Layered], level: int, loc: Loc, value: Any
) -> Iterator[tuple[Loc, set[_Reason]]]:
    for leaf in leaves(value, loc):
        reasons: set[_Reason] = set()
        saying = [row for row in rows if is_said(row.overlays[level], leaf)]
        for row in saying:
            reasons_here = _reasons(resolver, row, Origin(level, leaf))
            if reasons_here is None:
                break
            reasons |= reasons_here
        else:
            if saying:
                yield leaf, reasons


def _why(overriders: set[str]) -> str:
    verb = "overrides" if len(overriders) == 1 else "override"
    return f"{' and '.join(sorted(overriders))} {verb} it" if overriders else "no row is made with it"


def leaves(value: Any, loc: Loc = ()) -> Iterator[Loc]:
    """-> the place of everything in nested mappings that is no mapping with something in it."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*loc, key))
    else:
        yield loc


def _reasons(resolver: Resolver, row: Layered, origin: Origin) -> set[_Reason] | None:
    """-> why a row is not made with a setting; nothing where no part of the row has such a setting.

    None where the row is made with it.
    """
    reasons: set[_Reason] = set()
    for part, pair in _parts_about(row.row, origin.loc):
        layers = resolver.layers(part, pair, row.overlays)
        recipe = _standing(layers)
        if not _holds(recipe, origin):
            reasons |= {_Reason(words, True) for words in _overrider(layers, origin, row)}
        elif words := _silencer(row.row, part, recipe, origin):
            reasons.add(_Reason(words, False))
        else:
            return None
    return reasons


def _parts_about(row: Row, loc: Loc) -> Iterator[tuple[str, str]]:
    """-> (part, pair) of a row's setting that a place in the file can be about."""
    own = ((part, row.setting.pair) for part in used_parts(row))
    for part, pair in (*own, *other_teachers(row)):
        is_about = any(loc[: len(layer)] == layer for layer in part_layers(part, pair))
        is_recipe = part in ("teacher", "student") and "finetune" in loc[3:]
        is_pair = part == "distill" and loc == ("distill", "pair")
        if is_about and not is_recipe and not is_pair:
            yield part, pair


def _standing(layers: Sequence[RecipeLayer]) -> Overlay:
    """-> what the layers come to, traced, without epochs that max_steps makes void."""
    recipe = stacked(_with_own_leaf(layer) for layer in layers)
    if is_number_of_steps(value_of(recipe.get("max_steps"))) and value_of(recipe.get("epochs")) is not None:
        del recipe["epochs"]
    return recipe


def _with_own_leaf(layer: RecipeLayer) -> Overlay:
    """-> the layer, traced, with a leaf that nothing overrides: one that says nothing is there all the same."""
    origin, settings = layer
    return {**traced(settings, origin), origin: Leaf({}, origin)}


def _holds(recipe: Overlay, origin: Origin) -> bool:
    """Whether anything in a recipe was said at this place or within it."""
    level, loc = origin
    return any(other.level == level and other.loc[: len(loc)] == loc for other in origins(recipe))


def _silencer(row: Row, part: str, recipe: Overlay, origin: Origin) -> str | None:
    """-> beside what a distillation's setting, though nothing overrides it, means nothing; None where it means some."""
    if part != "distill":
        return None
    teachers = row.setting.distill.teachers
    for name, is_silent, silencer in (
        ("scale_by_t2", value_of(recipe.get("temperature", 1)) == 1, "a temperature of 1"),
        ("teacher", bool(teachers), "distill.teachers"),
        ("teacher_mean", len(teachers) < 2, "having one teacher"),
        (
            "teacher_top_k_rest",
            value_of(recipe.get("teacher_top_k")) in (None, "none"),
            "a teacher of whom all is kept (teacher_top_k: none)",
        ),
    ):
        if is_silent and getattr(recipe.get(name), "origin", None) == origin:
            return silencer
    field = _reset_field(row, recipe, origin)
    return why_silent(row.setting.distill, field) if field else None


def _reset_field(row: Row, recipe: Overlay, origin: Origin) -> str | None:
    """-> `sampling.mix`, where what was said of a distillation's answers means nothing beside the rest.

    The recipe is without it then. Where the student writes every row, student_loss stands in it as the loss.
    """
    name = next((name for name in ANSWER_FIELDS if name in origin.loc), None)
    resolved: Any = row.setting.distill
    if name is None or (name == "student_loss" and resolved.student_fraction == 1):
        return None
    path = origin.loc[origin.loc.index(name) :]
    written: Any = recipe
    for key in path:
        written = written.get(key) if isinstance(written, dict) else None
        resolved = getattr(resolved, str(key), None)
    is_plain = isinstance(written, Leaf) and isinstance(written.value, int | float | str)
    is_reset = is_plain and written.value not in (resolved, getattr(resolved, "name", None), "none")
    return _dotted(path) if is_reset else None


def _overrider(layers: Sequence[RecipeLayer], origin: Origin, row: Layered) -> Iterator[str]:
    """-> the uppermost thing said that alone would override what was said at a place; the method that filled it in."""
    own = next(index for index, layer in enumerate(layers) if _is_of(layer, origin))
    inner = origin.loc[len(layers[own].origin.loc) :]
    for other in [own, *range(len(layers) - 1, own, -1)]:
        if not _holds(_standing([layers[index] for index in dict.fromkeys((own, other))]), origin):
            level, loc = layers[other].origin
            place = (*loc, *_as_far_as_said(layers[other].settings, inner))
            path = _dotted(place if is_said(row.overlays[level], place) else (*loc, "method"))
            yield {FILE: path, SET: f"ablations.{row.row.ablation}.set.{path}", CELL: f"the cell's {path}"}[level]
            return


def _is_of(layer: RecipeLayer, origin: Origin) -> bool:
    level, loc = layer.origin
    return level == origin.level and origin.loc[: len(loc)] == loc


def _as_far_as_said(settings: Any, path: Loc) -> Loc:
    """-> as much of a path as the settings say; `max_steps` where it stands in for `epochs`."""
    if not isinstance(settings, dict) or not path:
        return ()
    twin = {"epochs": "max_steps", "max_steps": "epochs"}.get(str(path[0]), path[0])
    key = twin if twin in settings else path[0]
    return (key, *_as_far_as_said(settings[key], path[1:])) if key in settings else ()


def _dotted(loc: Loc) -> str:
    return ".".join(map(str, loc))
