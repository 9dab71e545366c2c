"""A student cut from its model in depth and width: what a study says of it, and what a model's config allows."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final, NamedTuple, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ablate.core.values import IDENTITY, Frozen, Int
from ablate.study.field_types import OrNone, without_none_word

DEEP: Final = (
    "gemma2", "gemma3_text", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"
)  # fmt: skip
"""Model types that can be cut in depth: their layers differ in nothing but weights and what `PER_LAYER` lists."""
WIDE: Final = ("llama", "mistral", "qwen2", "qwen3")
"""Model types that can be cut in width, too."""
WHOLE_HEADS: Final = ("llama",)
"""Of those, the ones that transformers loads only where the width is a multiple of the number of heads."""
PER_LAYER: Final = ("layer_types", "no_rope_layers")
"""Fields of a config with one value a layer."""


def _amount(value: Any) -> Any:
    """-> a share as float, a number as int. Raises ValueError for what is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, int) and value >= 2:
            return value
        if 0 < value <= 1:
            return float(value)
    raise ValueError(f"a share above 0 and at most 1, or a whole number from 2 on, is expected, got {value!r}")


def _in_order(layers: tuple[int, ...]) -> tuple[int, ...]:
    if list(layers) != sorted(set(layers)):
        rising = ", ".join(map(str, sorted(set(layers))))
        raise ValueError(f"each layer once, in their order: write [{rising}]")
    return layers


Amount: TypeAlias = Annotated[int | float, BeforeValidator(_amount, json_schema_input_type=int | float)]
"""A share of what there is, rounded to the nearest whole number (0.5 up), or a number."""


class Width(Frozen):
    """How wide a model stays. What matters most is kept, as `training.pruning_importance` says."""

    hidden: Annotated[Amount | None, OrNone(), IDENTITY] = None
    """Channels between the layers."""
    intermediate: Annotated[Amount | None, OrNone(), IDENTITY] = None
    """Neurons of every layer's MLP."""
    heads: Annotated[Amount | None, OrNone(), IDENTITY] = None
    """Heads of every layer's attention, in whole groups that share a key and a value."""

    @property
    def given(self) -> Mapping[str, int | float]:
        """-> what is cut."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


class Prune(Frozen):
    """What stays of a model (Minitron, Muralidharan et al. 2024, 2407.14679); only training brings back the rest."""

    hints: ClassVar[Mapping[str, str]] = {
        "num_layers": "Write depth.",
        "num_hidden_layers": "Write depth.",
        "hidden": "Write it below width.",
        "intermediate": "Write it below width.",
        "heads": "Write it below width.",
    }

    layers: Annotated[
        Annotated[tuple[Annotated[Int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(_in_order)] | None,
        OrNone(),
        IDENTITY,
    ] = None
    """Which layers stay, the first one is 0."""
    depth: Annotated[Amount | None, OrNone(), IDENTITY] = None
    """How many layers stay: as far from each other as can be, the first and the last among them (Shleifer and Rush
    2020, 2010.13002; "alternate" of Sajjad et al. 2020, 2004.03844)."""
    width: Annotated[Width | None, OrNone(), IDENTITY] = None

    @model_validator(mode="before")
    @classmethod
    def _without_what_cuts_nothing(cls, value: Any) -> Any:
        """A share of 1 leaves all as it is, so that it beside nothing cannot make two keys of one model."""
        if not isinstance(value, dict):
            return value
        width = value.get("width")
        if isinstance(width, dict):
            width = {name: part for name, part in width.items() if not _is_all(part)}
        return {name: part for name, part in value.items() if name == "width" or not _is_all(part)} | (
            {"width": width or None} if "width" in value else {}
        )

    @model_validator(mode="after")
    def _one_way(self) -> "Prune":
        if self.layers is not None and self.depth is not None:
            raise ValueError("layers says which layers stay, and depth says how many: leave one out")
        return self

    @property
    def is_nothing(self) -> bool:
        return self.layers is None and self.depth is None and self.width is None

    @property
    def words(self) -> str:
        """-> `layers 0 2 4`, `depth 0.5, hidden 448, heads 0.5`."""
        layers = f"layers {' '.join(map(str, self.layers))}" if self.layers is not None else None
        depth = f"depth {self.depth}" if self.depth is not None else None
        width = (f"{name} {value}" for name, value in (self.width.given if self.width else {}).items())
        return ", ".join(filter(None, (layers, depth, *width)))


def _is_all(part: Any) -> bool:
    part = without_none_word(part)
    return part is None or (isinstance(part, int | float) and not isinstance(part, bool) and part == 1)


def cut_or_none(prune: Any) -> Any:
    """-> None for a cut that leaves everything: the model is then the one that was fetched."""
    return None if getattr(prune, "is_nothing", False) else prune


# of a model's config.json


class Shape(NamedTuple):
    """What a config says of a model's size."""

    kind: str
    """Its model_type."""
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def group(self) -> int:
        """Heads that share a key and a value."""
        return self.heads // self.kv_heads


class Cut(NamedTuple):
    """What stays of a model of some shape."""

    whole: Shape
    layers: tuple[int, ...]
    hidden: int
    intermediate: int
    heads: int

    @property
    def kv_heads(self) -> int:
        return self.heads // self.whole.group

    @property
    def is_wide(self) -> bool:
        """Whether anything but layers is cut."""
        return (self.hidden, self.intermediate, self.heads) != (
            self.whole.hidden, self.whole.intermediate, self.whole.heads
        )  # fmt: skip


def shape_of(config: Mapping[str, Any]) -> Shape | None:
    """-> None for a model that cannot be cut here at all."""
    if config.get("model_type") not in DEEP:
        return None
    layers, hidden, inner, heads = (
        config.get(name) for name in ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
    )
    if not (layers and hidden and inner and heads):
        return None
    kv_heads, head_dim = config.get("num_key_value_heads") or heads, config.get("head_dim") or hidden // heads
    return Shape(str(config["model_type"]), layers, hidden, inner, heads, kv_heads, head_dim)


def cut_of(prune: Prune, shape: Shape) -> Cut:
    """-> in numbers; whether the model can be cut so, `pruning_problems` says."""
    width, depth = prune.width or Width(), prune.depth
    layers = prune.layers
    if layers is None:
        layers = evenly(shape.layers, shape.layers if depth is None else number_of(depth, shape.layers))
    return Cut(
        shape,
        layers,
        shape.hidden if width.hidden is None else number_of(width.hidden, shape.hidden),
        shape.intermediate if width.intermediate is None else number_of(width.intermediate, shape.intermediate),
        shape.heads if width.heads is None else number_of(width.heads, shape.heads),
    )


def number_of(amount: float, whole: int) -> int:
    """-> how many a share is, rounded to the nearest (0.5 up), one at least; a number as it is."""
    return amount if isinstance(amount, int) else max(1, int(amount * whole + 0.5))


def evenly(whole: int, num: int) -> tuple[int, ...]:
    """-> `num` of the layers from 0 on: the i-th is i (whole - 1)/(num - 1), rounded (0.5 up); of one the first."""
    if num == 1 or num > whole:
        return tuple(range(num))
    steps = num - 1
    return tuple((2 * i * (whole - 1) + steps) // (2 * steps) for i in range(num))


def pruning_problems(prune: Prune, config: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """-> (field below prune, why a model with this config.json cannot be cut so)."""
    shape = shape_of(config)
    if shape is None:
        kind = config.get("model_type")
        yield (), f"a model of type {kind!r} cannot be cut here. Possible: {', '.join(DEEP)}"
        return
    cut = cut_of(prune, shape)
    if beyond := [layer for layer in cut.layers if layer >= shape.layers]:
        field = "layers" if prune.layers is not None else "depth"
        yield (field,), _too_many_layers(prune, shape, beyond[0])
    if prune.width is None:
        return
    if shape.kind not in WIDE:
        yield ("width",), f"a model of type {shape.kind!r} can be cut in depth alone. In width: {', '.join(WIDE)}"
        return
    for name in prune.width.given:
        num, whole = getattr(cut, name), getattr(shape, name)
        if num > whole:
            yield ("width", name), f"{num} are more than the {whole} that the model has"
            return
    if cut.heads % shape.group:
        yield ("width", "heads"), _no_whole_groups(cut)
    elif shape.kind in WHOLE_HEADS and cut.hidden % cut.heads:
        field = "hidden" if prune.width.hidden is not None else "heads"
        near = _near(cut.hidden, cut.heads, shape.hidden) if field == "hidden" else _fitting_heads(cut)
        message = (
            f"a width of {cut.hidden} is no multiple of {cut.heads} heads, as transformers wants of a {shape.kind}:"
            f" {near} would be"
        )
        yield ("width", field), message


def _too_many_layers(prune: Prune, shape: Shape, beyond: int) -> str:
    if prune.layers is None:
        return f"{prune.depth} are more than the {shape.layers} layers that the model has"
    return f"there is no layer {beyond}: the model has {shape.layers}, 0 to {shape.layers - 1}"


def _no_whole_groups(cut: Cut) -> str:
    group, near = cut.whole.group, _near(cut.heads, cut.whole.group, cut.whole.heads)
    return f"{cut.heads} heads are no whole groups of {group}, which share one key and one value: {near} would be"


def _fitting_heads(cut: Cut) -> str:
    """-> numbers of heads that the width is a multiple of, in whole groups."""
    fitting = range(cut.whole.group, cut.whole.heads + 1, cut.whole.group)
    return " or ".join(str(num) for num in fitting if cut.hidden % num == 0)


def _near(number: int, multiple: int, most: int) -> str:
    below = number // multiple * multiple
    return " or ".join(str(near) for near in (below, below + multiple) if 0 < near <= most)
