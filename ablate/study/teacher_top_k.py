"""A teacher cut to its likeliest tokens: what a distillation says of it, and what cannot be meant."""

from typing import Any, Final

from ablate.study.field_types import BYTES, Disagreement, without_none_word

FIELD: Final = "teacher_top_k"


def with_one_rest(distillation: dict[str, Any]) -> dict[str, Any]:
    """Of a whole teacher there is no rest, so that what becomes of it cannot make two keys of one training."""
    is_whole = without_none_word(distillation.get(FIELD)) is None
    return {k: v for k, v in distillation.items() if k != f"{FIELD}_rest"} if is_whole else distillation


def silent_of_cut(recipe: Any) -> frozenset[str]:
    """-> the fields of a Distill that mean nothing where its teacher is not cut."""
    return frozenset({f"{FIELD}_rest"} if recipe.teacher_top_k is None else ())


def require_meaning(recipe: Any) -> None:
    """`recipe`: a Distill, its values each right. Raises Disagreement where a cut teacher cannot be learnt from so."""
    if recipe.teacher_top_k is None:
        return
    for field in ("loss", "student_loss"):
        _require_takes_cut(getattr(recipe, field), field, recipe.teacher_top_k_rest)
    if recipe.objective == "policy_gradient":
        raise Disagreement(
            f"objective: policy_gradient asks the teacher of each sampled token, which {FIELD} may leave out: leave"
            f" {FIELD} out",
            *(FIELD, "objective", "method"),
        )


def _require_takes_cut(loss: Any, field: str, rest: str) -> None:
    """`field`: where the loss is said."""
    by = (field, FIELD, "method")
    if loss is None:
        return
    if loss.name == "top_k":
        message = f"the loss top_k keeps {loss.k} tokens by itself: leave {FIELD} out, or say forward_kl"
        raise Disagreement(message, *by)
    if loss.crosses_tokenizers:
        message = f"{loss.name} compares whole distributions, token by token: leave {FIELD} out"
        raise Disagreement(message, *by)
    if rest == "zero" and not loss.takes_zeros:
        raise Disagreement(
            f"{FIELD}_rest: zero leaves tokens without probability, of which {loss.name} makes nothing finite:"
            f" say {FIELD}_rest: event, or another loss, such as forward_kl or jsd",
            *(field, f"{FIELD}_rest", FIELD, "method"),
        )


def kept_dtype(dtype: str) -> str:
    """-> of log-probabilities in a study of some dtype, as `training.teacher_top_k` has it."""
    return "float16" if dtype == "bfloat16" else dtype


def bytes_a_token(k: int, dtype: str) -> int:
    """-> that a teacher's k likeliest tokens take: numbers in int32, log-probabilities, and three float32 of the whole.

    `dtype`: of the study.
    """
    return k * (4 + BYTES[kept_dtype(dtype)]) + 3 * 4
