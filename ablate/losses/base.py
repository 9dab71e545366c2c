"""What a loss is: frozen settings that are called on logits; and the registry of all losses."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, get_args

from pydantic import BaseModel

from ablate.core.entry_points import OURS, is_ours
from ablate.core.errors import AblateError
from ablate.core.registry import Registry
from ablate.core.values import IDENTITY, Frozen, Json, role_of

if TYPE_CHECKING:
    from torch import Tensor

# N loss-bearing tokens, V vocabulary


class Distributions(NamedTuple):
    """Student and teacher at some tokens. All may be written over, but for q."""

    logq_NV: "Tensor"
    q_NV: "Tensor"
    logp_NV: "Tensor"
    p_NV: "Tensor"


class Graded(NamedTuple):
    """A divergence and its gradient, in memory of the distributions or new."""

    loss_N: "Tensor"
    grad_NV: "Tensor"
    """In the student's logits."""


class Loss(Frozen):
    """A divergence between teacher and student; its fields are its settings.

    One convention holds for all: logits come already divided by the temperature; the value is 0 where student and
    teacher agree; p is the teacher's distribution, q the student's; a weight is the teacher's share.
    """

    needs: ClassVar[str] = "logits"
    """`vector` where the teacher enters only through the expectation of the student's logits and its entropy; `spans`
    where tokens of both that stand for the same text are compared (`SpanLoss`); `rows` where whole rows are
    (`dskd`)."""
    crosses_tokenizers: ClassVar[bool] = False
    """Whether the teacher reads each row in its own tokens, and its tokenizer may be another than the student's."""

    takes_zeros: ClassVar[bool] = False
    """Whether it is finite, and the sum of its parts, where the teacher gives some tokens no probability at all."""

    name: Annotated[str, IDENTITY]

    @abstractmethod
    def __call__(self, student_NV: "Tensor", teacher_NV: "Tensor") -> "Tensor":
        """Logits (N x V, float32 or wider, divided by the temperature) -> divergence per token (N)."""

    def graded(self, both: Distributions) -> Graded:
        """-> the same with its gradient, by a formula; where none is given, torch differentiates the call, at a price.

        Of a loss sum_v f(p, q) with the slope s = df/dq the gradient in the logits is q (s - sum_v q s).
        """
        raise NotImplementedError

    @property
    def is_graded(self) -> bool:
        """Whether `graded` is the call's: of the class that defines the call, not of one that it is made from."""
        return "graded" in vars(next(one for one in type(self).__mro__ if "__call__" in vars(one)))

    def further_identity(self) -> dict[str, Json]:
        """-> of another package's loss that package and its version: its code is no part of ours.

        Raises AblateError for one that no package offers: nothing would tell its next version from this one.
        """
        if is_ours(self):
            return {}
        origin = LOSSES.origin(self.name)
        if origin == OURS:
            raise AblateError(
                f"the loss {self.name!r} has no key: no package offers it in the entry points ablate.losses"
            )
        return {"origin": dict(origin._asdict())}


def problem_of(name: str, part: Any) -> str | None:
    """-> why an object of another package is no loss of that name; None where it is one."""
    if not (isinstance(part, type) and issubclass(part, Loss)):
        return "it is no subclass of ablate.losses.Loss"
    if part.model_fields["name"].default != name:
        return f"its `name` has the default {part.model_fields['name'].default!r}"
    unclassed = list(_unclassed(part))
    if unclassed:
        return f"no key would hold {', '.join(unclassed)}: a setting is Annotated[..., IDENTITY] or [..., RUNTIME]"
    part.model_json_schema()  # `ablate schema` has every loss in it
    return None


def _unclassed(model: type[BaseModel]) -> Iterator[str]:
    """-> dotted path of every setting that no key would hold, those of settings within settings too."""
    for name, field in model.model_fields.items():
        if role_of(model, name) is None:
            yield name
        for inner in _models_in(field.annotation):
            yield from [name] if not issubclass(inner, Frozen) else (f"{name}.{path}" for path in _unclassed(inner))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


LOSSES: Registry[type[Loss]] = Registry("loss", "ablate.losses", "ablate.losses", problem_of)


def parse(value: Any) -> Any:
    """A name, or {name: ..., settings} -> the loss.

    Raises UnknownName for a name that is not registered; ValueError where there is no name.
    """
    if isinstance(value, Loss):
        return value
    settings = {"name": value} if isinstance(value, str) else value
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        raise ValueError("a loss is a name such as forward_kl, or a mapping such as {name: jsd, beta: 0.5}")  # noqa: TRY004 (pydantic turns it into a told mistake)
    return LOSSES[settings["name"]].model_validate(settings)
