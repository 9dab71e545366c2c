"""Settings laid over settings: the file's, an ablation's, a cell's; each can carry along where it was said."""

from collections.abc import Iterable
from functools import reduce
from typing import Any, NamedTuple, TypeAlias

from ablate.core.yaml import Loc

Overlay: TypeAlias = dict[str, Any]
"""Some of a study's settings, nested as in the file. Its values are plain, or all of them are a `Leaf`."""

FILE, SET, CELL = range(3)
"""Who can say a setting of a row: the file, its ablation's `set`, its cell. Later wins."""


class Origin(NamedTuple):
    """Where a value was said."""

    level: int
    """FILE, SET or CELL."""
    loc: Loc
    """In the tree of a study, also for what an ablation or a cell says."""


class Leaf(NamedTuple):
    """A value, and where it was said."""

    value: Any
    origin: Origin


def value_of(value: Any) -> Any:
    """-> the value of a leaf; any other value as it is."""
    return value.value if isinstance(value, Leaf) else value


def traced(value: Any, origin: Origin) -> Any:
    """-> the value with a leaf at the end of every path; in each mapping one more, without a name, of the mapping."""
    if not isinstance(value, dict):
        return Leaf(value, origin)
    level, loc = origin
    inner: dict[Any, Any] = {key: traced(item, Origin(level, (*loc, key))) for key, item in value.items()}
    return inner | {None: Leaf({}, origin)}


def origins(value: Any) -> Iterable[Origin]:
    """-> where everything was said that is still in a traced value."""
    if isinstance(value, Leaf):
        yield value.origin
    else:
        for inner in value.values():
            yield from origins(inner)


def laid_over(below: Overlay, above: Overlay) -> Overlay:
    """-> `below` with `above` on top: mappings are merged, all else replaced.

    A mapping that names another variant (`{name: jsd}` over `{name: top_k, k: 8}`) replaces the one below whole.
    A bare name below stands for its mapping (`{beta: 0.3}` over `jsd`). How long a training is, is said by the
    uppermost of epochs and max_steps; which layers stay of a student, by that of layers and depth.
    """
    merged = dict(below)
    if value_of(above.get("epochs")) is not None and "max_steps" not in above:
        merged.pop("max_steps", None)
    for name, other in (("layers", "depth"), ("depth", "layers")):
        if value_of(above.get(name)) is not None and value_of(above.get(other)) is None:
            merged.pop(other, None)
    for name, value in above.items():
        under: Any = _spelled_out(merged.get(name)) if isinstance(value, dict) else None
        merged[name] = laid_over(under, value) if _is_same_variant(under, value) else value
    return merged


def stacked(overlays: Iterable[Overlay]) -> Overlay:
    """-> the overlays, each laid over those before it."""
    return reduce(laid_over, overlays, {})


def _spelled_out(value: Any) -> Any:
    name = value_of(value)
    return {"name": value} if isinstance(name, str) and name != "none" else value


def _is_same_variant(under: Any, value: Any) -> bool:
    if not isinstance(under, dict):
        return False
    names = (value_of(under.get("name")), value_of(value.get("name")))
    return len({name for name in names if isinstance(name, str)}) < 2


def tree(values: Iterable[tuple[Loc, Any]]) -> Overlay:
    """-> an overlay that says each value at its place; what is said of a part lies over what is said of the whole."""
    return stacked(_nested(loc, value) for loc, value in sorted(values, key=lambda item: (len(item[0]), item[0])))


def _nested(loc: Loc, value: Any) -> Any:
    for key in reversed(loc):
        value = {key: value}
    return value


def settings_at(overlay: Overlay, loc: Loc) -> Any:
    """-> what an overlay says at a place, {} where it says nothing."""
    settings: Any = overlay
    for key in loc:
        settings = settings.get(key, {}) if isinstance(settings, dict) else {}
    return settings


def is_said(overlay: Overlay, loc: Loc) -> bool:
    """Whether an overlay says anything at a place."""
    settings: Any = overlay
    for key in loc:
        if not isinstance(settings, dict) or key not in settings:
            return False
        settings = settings[key]
    return True
