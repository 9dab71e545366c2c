"""Several teachers of one student: who they are, and how much each counts."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field

from ablate.core.values import IDENTITY, INPUT, Frozen, Num
from ablate.study.field_types import Disagreement, without_none_word

ROUNDING = 1e-12
"""How far from 1 the sum of weights may be that are taken as they are."""
MOST = 1e9
"""Weight of a teacher; beside it one of 1/MOST is still a number."""


class WeightedTeacher(Frozen):
    """One of several teachers."""

    pair: Annotated[str | None, INPUT] = None
    """Whose teacher; the row's own pair's unless said."""
    teacher: Annotated[Literal["baseline", "finetuned"], INPUT] = "finetuned"
    weight: Annotated[Num, IDENTITY, Field(gt=0)] = 1.0
    """Divided by the sum of all weights; the key holds the share that comes of it."""


def _shares(teachers: tuple[WeightedTeacher, ...]) -> tuple[WeightedTeacher, ...]:
    """-> the teachers with weights that sum to 1. Raises ValueError where one is named twice."""
    first: dict[tuple[str | None, str], int] = {}
    for index, one in enumerate(teachers):
        if (other := first.setdefault((one.pair, one.teacher), index)) != index:
            whose = f"of pair {one.pair}" if one.pair else "of the row's own pair"
            raise ValueError(
                f"the {one.teacher} teacher {whose} is named twice, as numbers {other + 1} and {index + 1}:"
                " name it once, with the sum of its weights"
            )
    if beyond := [one.weight for one in teachers if not 1 / MOST <= one.weight <= MOST]:
        raise ValueError(f"a weight from {1 / MOST:g} to {MOST:g} is expected, got {beyond[0]:g}")
    total = math.fsum(one.weight for one in teachers)
    if math.isclose(total, 1, abs_tol=ROUNDING):
        return teachers
    return tuple(one.model_copy(update={"weight": one.weight / total}) for one in teachers)


def _none_as_no_teachers(value: Any) -> Any:
    return () if without_none_word(value) is None else value


Teachers: TypeAlias = Annotated[
    tuple[WeightedTeacher, ...],
    BeforeValidator(_none_as_no_teachers, json_schema_input_type=list[WeightedTeacher] | Literal["none"]),
    AfterValidator(_shares),
]


def with_teachers_alone(distillation: dict[str, Any]) -> dict[str, Any]:
    """`teachers` stand for the pair's teacher, so that `teacher` beside them cannot make two keys of one training.

    Nor can `teacher_mean` where there are not two to take the mean of. A teacher of no pair is of the row's own.
    """
    several = distillation.get("teachers")
    if not isinstance(several, list | tuple) or not several:
        return {name: value for name, value in distillation.items() if name != "teacher_mean"}
    of_others = {name: value for name, value in distillation.items() if name != "teacher"}
    if len(several) == 1:
        of_others.pop("teacher_mean", None)
    return of_others | {"teachers": [_with_pair(one, distillation.get("pair")) for one in several]}


def silent_of_teachers(recipe: Any) -> frozenset[str]:
    """-> the fields of a Distill that mean nothing beside the teachers that it names, or does not."""
    if recipe.teachers:
        return frozenset({"teacher"} if len(recipe.teachers) > 1 else {"teacher", "teacher_mean"})
    return frozenset({"teacher_mean"})


def require_one_where_one_is_meant(recipe: Any) -> None:
    """`recipe`: a Distill, its values each right. Raises Disagreement where several teachers are one too many.

    Also where the hidden states of a teacher with other tokens would be compared, position by position.
    """
    num = len(recipe.teachers)
    for is_so, what, field in (
        (recipe.answers in ("teacher", "mixed"), f"answers: {recipe.answers} are written with one teacher", "answers"),
        (
            recipe.objective == "policy_gradient" and recipe.teacher_mean == "losses",
            "policy_gradient takes its reward from one distribution, and teacher_mean: losses makes none",
            "teacher_mean",
        ),
        (recipe.teacher_top_k is not None, "teacher_top_k cuts one teacher", "teacher_top_k"),
        (recipe.loss.crosses_tokenizers, f"{recipe.loss.name} aligns the tokens of one teacher", "loss"),
        (recipe.features is not None, "features compare hidden states with one teacher's", "features"),
    ):
        if num > 1 and is_so:
            message = f"{what}, and distill.teachers names {num}: name one teacher, or say other {field}"
            raise Disagreement(message, field, "teachers", "method")
    if recipe.features and recipe.loss.crosses_tokenizers:
        raise Disagreement(
            f"features compare hidden states token by token, and {recipe.loss.name} is for models that cut text into"
            " other tokens: say features: none, or a loss of one vocabulary",
            *("features", "loss", "method"),
        )


def _with_pair(one: Any, pair: Any) -> Any:
    if isinstance(one, WeightedTeacher):
        return one if one.pair else one.model_copy(update={"pair": pair})
    return {**one, "pair": one.get("pair") or pair} if isinstance(one, Mapping) else one


def teacher_names(teachers: Any) -> list[str] | None:
    """-> what a row calls its teachers, as the file says them: `big-baseline-0.7`; None for what are no teachers.

    Weights are told where they differ.
    """
    if not isinstance(teachers, list | tuple) or not all(isinstance(one, Mapping) for one in teachers):
        return None
    weights = [repr(float(one.get("weight", 1))) for one in teachers]
    shares = [[weight] if len(set(weights)) > 1 else [] for weight in weights]
    return ["-".join([*_who(one), *share]) for one, share in zip(teachers, shares, strict=True)]


def _who(teacher: Mapping[str, Any]) -> list[str]:
    pair = teacher.get("pair")
    return [*([str(pair)] if pair else []), str(teacher.get("teacher", "finetuned"))]


def teacher_inputs(num: int) -> tuple[str, ...]:
    """-> what a stage calls its teachers: `teacher`, `teacher_2`, ...; with `_adapter` behind it what tuned one."""
    return tuple("teacher" if number == 1 else f"teacher_{number}" for number in range(1, num + 1))
