"""What a loss on hidden states is: frozen settings that are called on states, and which layers are compared."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, Field

from ablate.core.registry import Registry
from ablate.core.values import IDENTITY, Frozen, Int, Num

if TYPE_CHECKING:
    from torch import Tensor

# N loss-bearing tokens, D hidden width of the teacher

Layer: TypeAlias = Annotated[Int, Field(ge=0)]
LayerPair: TypeAlias = tuple[Layer, Layer]


def _in_one_order(layers: Any) -> Any:
    """-> layers that are named one by one in the order of the student's. Raises ValueError for a pair named twice."""
    if isinstance(layers, str):
        return layers
    if len(set(layers)) < len(layers):
        twice = next(pair for index, pair in enumerate(layers) if pair in layers[:index])
        raise ValueError(f"layers {list(twice)} are named twice")
    return tuple(sorted(layers, key=lambda pair: (pair[1], pair[0])))


class FeatureLoss(Frozen):
    """A distance between what two models hold of a token below their heads; its fields are its settings.

    The loss of a training gets weight times its mean over the loss-bearing tokens and the pairs of layers. Layers are
    numbered as transformers' `hidden_states`: 0 is the embedding's output, k that of the k-th block, and the last one
    after the final norm. With a projection W the student's h_S enters as W h_S: one W for all pairs of layers, without
    a bias, trained with the rest and no part of the model that results (TinyBERT, Jiao et al. 2019, 1909.10351, eq. 8).
    """

    kept_tensors: ClassVar[int] = 2
    """N x D in float32 that torch keeps of it for the way back; only an estimate of memory asks."""

    name: Annotated[str, IDENTITY]
    weight: Annotated[Num, IDENTITY, Field(gt=0)] = 0.1
    """Beside class loss and KD loss, which kd_ratio weighs."""
    layers: Annotated[
        Literal["evenly", "last"] | Annotated[tuple[LayerPair, ...], Field(min_length=1)],
        AfterValidator(_in_one_order),
        IDENTITY,
    ] = "evenly"
    """Pairs [teacher's, student's]; `last`: the last of both; `evenly`: each layer k of the student's S above the
    embedding with layer k T / S of the teacher's T, rounded (TinyBERT's map, for every depth)."""
    projection: Annotated[Literal["auto", "none", "trained"], IDENTITY] = "auto"
    """auto: trained where the two widths differ."""

    @abstractmethod
    def __call__(self, student_ND: "Tensor", teacher_ND: "Tensor") -> "Tensor":
        """States (N x D, float32 or wider, the student's projected) -> distance per token (N)."""

    def pairs(self, teacher_depth: int, student_depth: int) -> tuple[LayerPair, ...]:
        """-> which layers are compared of two models with so many blocks. Raises ValueError for one that lacks."""
        if self.layers == "last":
            return ((teacher_depth, student_depth),)
        if self.layers == "evenly":
            return tuple((_evenly(k, teacher_depth, student_depth), k) for k in range(1, student_depth + 1))
        for pair in self.layers:
            for role, layer, depth in zip(("teacher", "student"), pair, (teacher_depth, student_depth), strict=True):
                if layer > depth:
                    raise ValueError(
                        f"there is no layer {layer} of the {role}: it has 0 to {depth}, of which 0 is the embedding's"
                    )
        return self.layers

    def is_projected(self, teacher_width: int, student_width: int) -> bool:
        """Whether a projection is trained. Raises ValueError where there is none to be and the widths differ."""
        if self.projection == "none" and teacher_width != student_width:
            raise ValueError(
                f"projection: none, but the teacher's states have width {teacher_width}, the student's {student_width}:"
                " say projection: auto or trained"
            )
        return self.projection == "trained" or teacher_width != student_width


def _evenly(layer: int, teacher_depth: int, student_depth: int) -> int:
    """-> layer T / S, halves rounded up; never the embedding."""
    return max(1, (2 * layer * teacher_depth + student_depth) // (2 * student_depth))


FEATURE_LOSSES: Registry[type[FeatureLoss]] = Registry("feature loss", "ablate.feature_losses")


def parse(value: Any) -> Any:
    """A name, or {name: ..., settings} -> the feature loss; None for `none`.

    Raises UnknownName for a name that is not registered; ValueError where there is no name.
    """
    if value is None or value == "none" or isinstance(value, FeatureLoss):
        return None if value == "none" else value
    settings = {"name": value} if isinstance(value, str) else value
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        raise ValueError("features are a name such as cosine, or a mapping such as {name: mse, weight: 0.1}, or none")  # noqa: TRY004 (pydantic turns it into a told mistake)
    return FEATURE_LOSSES[settings["name"]].model_validate(settings)
