"""The names a study may use: what stands below each part of it, and how a dotted path finds one."""

import types
from collections.abc import Iterator, Mapping
from functools import cache, reduce
from typing import Annotated, Any, Union, get_args, get_origin

from ablate.core.errors import did_you_mean
from ablate.core.registry import Registry
from ablate.core.values import Frozen, Role, role_of
from ablate.core.yaml import Loc
from ablate.feature_losses import FEATURE_LOSSES, FeatureLoss
from ablate.losses import LOSSES, Loss
from ablate.study.data_settings import Data
from ablate.study.evaluation_settings import Evaluate
from ablate.study.layer import Layer, OfARun
from ablate.study.schema import Study
from ablate.study.training_recipes import Distill, Finetune, Train

RECIPES: Mapping[str, type[Frozen]] = {
    "train": Train,
    "finetune": Finetune,
    "distill": Distill,
    "data": Data,
    "evaluate": Evaluate,
}
"""Parts of a study whose every field can be an axis; `dtype` and what `pairs` say can be too."""


def below(kind: Any, key: str | int, data: Any = None) -> Any:
    """-> the type of what stands under `key` in a value of type `kind`, or None. `data` is the value, where known."""
    if key in (fields := fields_of(kind, data)):
        return fields[str(key)]
    if get_origin(kind) in (dict, tuple) and (arguments := get_args(kind)):
        return _bare(arguments[1] if get_origin(kind) is dict else arguments[0])
    return None


def fields_of(kind: Any, data: Any = None) -> dict[str, Any]:
    """-> name -> type of the fields of a model that a file may say; none for anything else."""
    if kind in (Loss, FeatureLoss):
        return {name: kind for loss in _named(kind, data) for name, kind in fields_of(loss).items()}
    return _fields(kind) if isinstance(kind, type) and issubclass(kind, Frozen) else {}


@cache
def _fields(kind: type[Frozen]) -> dict[str, Any]:
    return {
        name: _bare(info.annotation, info.metadata)
        for name, info in kind.model_fields.items()
        if not any(isinstance(item, OfARun) for item in info.metadata)
    }


def _named(kind: Any, data: Any) -> Iterator[type[Frozen]]:
    """-> the losses of a registry that `data` can be: the one that it names, else all."""
    name = data.get("name") if isinstance(data, Mapping) else None
    losses: Registry[Any] = LOSSES if kind is Loss else FEATURE_LOSSES
    return (losses[loss] for loss in losses if name not in losses or loss == name)


def _bare(annotation: Any, metadata: Any = ()) -> Any:
    """-> the type without `| None` and what is said beside it; a recipe for a mapping that is a layer of it."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0], get_args(annotation)[1:])
    layer = next((item for item in metadata if isinstance(item, Layer)), None)
    if layer:
        return layer.recipe
    if get_origin(annotation) in (Union, types.UnionType):
        return _bare(next(member for member in get_args(annotation) if member is not type(None)))
    return annotation


def kind_at(loc: Loc, data: Any) -> Any:
    """-> the type of what stands at a place of a study, or None where nothing can."""
    kind: Any = Study
    for key in loc:
        kind, data = below(kind, key, data), inside(data, key)
    return kind


def inside(data: Any, key: str | int) -> Any:
    """-> what `data` has under a key or index, None where it has nothing."""
    if isinstance(data, dict):
        return data.get(key)
    return data[key] if isinstance(data, list | tuple) and isinstance(key, int) and key < len(data) else None


def at(data: Any, loc: Loc) -> Any:
    """-> what `data` has at a place, None where it has nothing."""
    return reduce(inside, loc, data)


def locate(path: str, data: Any) -> Loc:
    """A dotted path -> the keys it stands for; a name with dots in it (a pair `qwen2.5`) is found in `data`.

    Raises ValueError that says which part is unknown and what is possible.
    """
    kind: Any = Study
    loc: list[str] = []
    rest = path
    while rest:
        key = _first_key(rest, kind, data)
        if key is None:
            raise ValueError(_unknown(path, loc, rest, kind, data))
        loc.append(key)
        kind, data, rest = below(kind, key, data), inside(data, key), rest[len(key) + 1 :]
    if not loc:
        raise ValueError("a path is missing: write it as in distill.lr=1e-4")
    return tuple(loc)


def _first_key(rest: str, kind: Any, data: Any) -> str | None:
    names = _names(kind, data)
    value = _bare(get_args(kind)[1]) if get_origin(kind) is dict else None
    if value in (Any, str) or get_origin(value) is tuple:
        return rest  # `grid`, `set`, `columns`: free keys, so the rest of the path is one
    return max((name for name in names if rest == name or rest.startswith(f"{name}.")), key=len, default=None)


def _names(kind: Any, data: Any) -> list[str]:
    if get_origin(kind) is dict:
        return list(data) if isinstance(data, dict) else []
    return list(fields_of(kind, data))


def _unknown(path: str, loc: list[str], rest: str, kind: Any, data: Any) -> str:
    if not loc and (whole := [f"{name}.{rest}" for name, recipe in RECIPES.items() if rest in fields_of(recipe)]):
        return f"{path!r} needs to say whose it is: {' or '.join(whole)}"
    key = rest.split(".")[0]
    names = _names(kind, data)
    if not names:
        return f"{path!r}: {'.'.join(loc)} has nothing below it, so no {rest!r}"
    where = ".".join(loc) or "a study"
    return f"{path!r}: {where} has no {key!r}.{did_you_mean(key, names, limit=20)}"


def axis_loc(path: str, study: Any) -> Loc:
    """-> where a dotted path of an axis or `set` points. Raises ValueError where no row is made of what is there."""
    loc = locate(path, study)
    head, last = loc[0], loc[-1]
    if head not in (*RECIPES, "dtype", "pairs"):
        possible = ", ".join([*(f"{name}.*" for name in RECIPES), "dtype", "pairs.*"])
        raise ValueError(f"{path!r} is no setting of a row. Possible: {possible}")
    if last == "label" or (head != "dtype" and len(loc) < 2) or (head == "pairs" and len(loc) < 4):
        raise ValueError(f"{path!r} is no setting of a row: name one field of a recipe or of a pair's model")
    return loc


def role_at(loc: Loc) -> Role | None:
    """-> how the field at a place is classed; None for one that is not a recipe's."""
    kind: Any = Study
    role = None
    for key in loc:
        is_field = isinstance(kind, type) and issubclass(kind, Frozen) and key in kind.model_fields
        role = role_of(kind, str(key)) if is_field else None
        kind = below(kind, key)
    return role
