"""Who writes the answers that a student is distilled on, and what is learnt from the student's own."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from ablate.core.errors import AblateError
from ablate.core.values import EXTENSION, IDENTITY, Bool, Frozen, Int, Num
from ablate.losses import parse
from ablate.study.field_types import Disagreement, OrNone, Positive
from ablate.study.vllm_words import INSTEAD

Writer: TypeAlias = Literal["dataset", "teacher", "student", "mixed"]
MIX, CLIP = 0.2, 2.0
"""Unless said."""
DISTILL_HINTS: Mapping[str, str] = {
    **dict.fromkeys(("top_p", "top_k", "max_new_tokens", "num_answers", "mix"), "Write it below sampling."),
    **dict.fromkeys(("discount", "single_step", "normalize_length", "clip"), "Write it below policy_gradient."),
    **dict.fromkeys(("capacity", "reuse", "adaptive"), "Write it below replay."),
    **dict.fromkeys(("beta", "alpha"), "It is a loss's own: write loss: {name: jsd, beta: 0.5}."),
    **dict.fromkeys(("lmbda", "lambda"), "Write student_fraction."),
    "gamma": "Write policy_gradient: {discount: 1.0}.",
    "seq_kd": "Write answers: teacher.",
    "prune": "Write it below pairs.NAME.student.",
}
"""What is meant by names that stand one level too high in a distillation, or are TRL's."""


class Sampling(Frozen):
    """How answers are written, by whomever."""

    temperature: Annotated[Num, IDENTITY, Field(ge=0)] = 1.0
    """Divides the logits; 0: always the likeliest token."""
    top_p: Annotated[Num, IDENTITY, Field(gt=0, le=1)] = 1.0
    """Only the likeliest tokens that together have this probability (Holtzman et al. 2019, 1904.09751)."""
    top_k: Annotated[Int, IDENTITY, Field(ge=0)] = 0
    """Only so many of the likeliest tokens; 0: all."""
    max_new_tokens: Annotated[Positive, IDENTITY] = 256
    """An answer that has not ended by then is cut, and counted."""
    num_answers: Annotated[Positive, IDENTITY] = 1
    """Answers to each prompt."""
    mix: Annotated[Num, IDENTITY, Field(gt=0, lt=1)] = MIX
    """Of `answers: mixed`: each token is drawn from mix p + (1 - mix) q, p the teacher's distribution, q the student's
    (MiniLLM, Gu et al. 2023, 2306.08543, section 2.2)."""
    writer: Annotated[Literal["transformers", "vllm"], EXTENSION] = "transformers"
    """Of `answers: teacher`: what runs the teacher. `vllm` is faster, on a card, once `ablate[vllm]` is installed; it
    rounds otherwise and has random numbers of its own, so that its answers are others."""


class AdaptiveShare(Frozen):
    """DistiLLM's share of rows that the student writes: it rises when the held-out loss does.

    Ko et al. 2024, 2402.03898, algorithm 1.
    """

    every: Annotated[Positive, IDENTITY] = 50
    """Optimizer steps from one look at the held-out rows to the next."""
    step: Annotated[Num, IDENTITY, Field(gt=0, le=1)] = 0.1
    """Added to the share at each look where the held-out loss is higher than at the one before."""
    tolerance: Annotated[Num, IDENTITY, Field(ge=0)] = 0.0
    """So much higher does not count."""


class Replay(Frozen):
    """Answers of the student that are kept and trained on again (DistiLLM, Ko et al. 2024, 2402.03898)."""

    capacity: Annotated[Positive, IDENTITY] = 1000
    """Answers kept; the oldest go first."""
    reuse: Annotated[Positive, IDENTITY] = 4
    """Of so many answers trained on, one is new: the others are drawn from those kept."""
    adaptive: Annotated[AdaptiveShare | None, OrNone(), IDENTITY] = None
    """Let student_fraction rise from where it is set."""


class PolicyGradient(Frozen):
    """The gradient of the reverse KL of whole answers, estimated from answers that were sampled.

    With p the teacher's distribution, q the student's and rewards r_t = log p(y_t) - log q(y_t), it is the sum over
    tokens of w_t (grad KL(q || p)_t - R_t grad log q(y_t)), over the step's number of tokens: R_t is what counts of the
    rewards of later tokens, w_t a weight where it was not the student alone that was sampled from (MiniLLM, Gu et al.
    2023, 2306.08543, section 2.2).
    """

    discount: Annotated[Num, IDENTITY, Field(ge=0, le=1)] = 1.0
    """R_t is r_(t+1) discount + r_(t+2) discount^2 ...; 0: each token for itself, as on-policy distillation (opd)."""
    single_step: Annotated[Literal["exact", "sampled"], IDENTITY] = "exact"
    """A token's own reward: its expectation over the vocabulary, or that of the token sampled, where
    - r_t grad log q(y_t) stands for grad KL."""
    normalize_length: Annotated[Bool, IDENTITY] = True
    """Divide R_t by the number of later tokens."""
    clip: Annotated[Annotated[Num, Field(gt=1)] | None, OrNone(), IDENTITY] = CLIP
    """Of `answers: mixed`: most that w_t = q / (mix p + (1 - mix) q) of a token may be, which is below 1 / (1 - mix)
    anyway; none: w_t is the answer's whole product of weights, which makes the estimate exact on average."""


ANSWER_FIELDS = ("kd_ratio", "student_fraction", "sampling", "replay", "objective", "policy_gradient", "student_loss")
"""Of a distillation: those that mean nothing beside some of the others, and are then as if unsaid."""


def with_one_way(distillation: dict[str, Any]) -> dict[str, Any]:
    """What means nothing beside the rest is as if unsaid, so that one training has one key.

    Raises ValueError for settings that contradict each other.
    """
    settings = _with_one_replay(_with_one_fraction(dict(distillation)))
    if not writes_in_training(settings):
        settings.pop("student_loss", None)
        if settings.get("answers", "dataset") == "dataset":
            settings.pop("sampling", None)
    if settings.get("objective", "divergence") == "divergence":
        settings.pop("policy_gradient", None)
    return _with_one_loss(_with_one_estimate(_with_one_sampling(settings)))


def _with_one_sampling(settings: dict[str, Any]) -> dict[str, Any]:
    """Nothing is mixed but in mixed answers, the likeliest token is among the likeliest, however few, and vLLM writes
    no answers but a teacher's.
    """
    sampling = settings.get("sampling")
    if not isinstance(sampling, dict):
        return settings
    unused = {"mix"} if settings.get("answers") != "mixed" else set()
    unused |= {"writer"} if settings.get("answers") != "teacher" else set()
    unused |= {"top_p", "top_k"} if sampling.get("temperature", 1) == 0 else set()
    return settings | {"sampling": _without(sampling, unused)}


def _with_one_estimate(settings: dict[str, Any]) -> dict[str, Any]:
    """Lengths divide later rewards alone; a weight is 1 but in mixed answers, and no weight is above 1 / (1 - mix)."""
    how = settings.get("policy_gradient")
    if not isinstance(how, dict):
        return settings
    unused = {"normalize_length"} if how.get("discount", 1) == 0 else set()
    sampling = settings.get("sampling")
    mix = sampling.get("mix", MIX) if isinstance(sampling, dict) else MIX
    clip = how.get("clip", CLIP)
    if settings.get("answers") != "mixed":
        unused.add("clip")
    elif all(isinstance(value, int | float) for value in (mix, clip)) and mix < 1 and clip * (1 - mix) >= 1:
        return settings | {"policy_gradient": _without(how, unused) | {"clip": max(CLIP, 1 / (1 - mix))}}
    return settings | {"policy_gradient": _without(how, unused)}


def _without(settings: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def writes_in_training(settings: Mapping[str, Any]) -> bool:
    """Whether the student writes answers while it trains; `settings`: of a distillation, as in a file."""
    has_replay = settings.get("replay") not in (None, "none")
    return has_replay or bool(settings.get("student_fraction")) or settings.get("answers") in ("student", "mixed")


def _with_one_fraction(settings: dict[str, Any]) -> dict[str, Any]:
    """All rows of `answers: student` and `mixed` are written in the training; an own answer is no label."""
    if settings.get("answers") in ("student", "mixed"):
        settings["student_fraction"] = 1.0
    if settings.get("student_fraction") == 1:
        if settings.get("kd_ratio") == 0:
            raise Disagreement(
                "kd_ratio 0 is class loss alone, and the student's own answers are no labels: say a kd_ratio above 0,"
                " or answers: dataset",
                *("kd_ratio", "answers", "student_fraction", "method"),
            )
        settings["kd_ratio"] = 1.0
        if settings.get("answers", "dataset") in ("dataset", "teacher"):  # of which no row is left
            settings["answers"] = "student"
    return settings


def _with_one_replay(settings: dict[str, Any]) -> dict[str, Any]:
    """Where each answer is trained on once, none is kept: what remains of a replay is the share that adapts."""
    replay = settings.get("replay")
    if not isinstance(replay, dict) or replay.get("reuse") != 1:
        return settings
    if replay.get("adaptive") not in (None, "none"):
        return settings | {"replay": _without(replay, {"capacity"})}
    return settings | {"replay": None} if settings.get("student_fraction") else settings


def _with_one_loss(settings: dict[str, Any]) -> dict[str, Any]:
    """Where the student writes every row, its loss is the loss."""
    if settings.get("student_fraction") == 1 and settings.get("student_loss") not in (None, "none"):
        return settings | {"loss": settings["student_loss"], "student_loss": None}
    return settings | {"student_loss": None} if _is_one_loss(settings) else settings


def _is_one_loss(settings: dict[str, Any]) -> bool:
    """Whether student_loss is the loss, however either is spelled; a wrong one is told of where the field is read."""
    try:
        return bool(parse(settings.get("student_loss")) == parse(settings.get("loss", "forward_kl")))
    except (ValueError, AblateError):
        return False


def silent_of_answers(recipe: Any) -> frozenset[str]:
    """-> the fields of a Distill that mean nothing beside its others, nested ones as sampling.mix."""
    silent = set() if recipe.answers == "mixed" else {"sampling.mix", "policy_gradient.clip"}
    if recipe.answers == "dataset" and not recipe.writes_in_training:
        silent.add("sampling")
    if recipe.objective == "divergence":
        silent.add("policy_gradient")
    return frozenset(silent)


def why_silent(recipe: Any, path: str) -> str:
    """-> what of a Distill makes one of its ANSWER_FIELDS, or one within them, mean nothing."""
    name, _, inner = path.partition(".")
    if name == "sampling" and recipe.answers == "dataset" and not recipe.writes_in_training:
        return "having no answers of a model (answers: dataset)"
    if inner in ("mix", "clip") and recipe.answers != "mixed":
        return f"having no mixed answers (answers: {recipe.answers})"
    if inner in ("top_p", "top_k"):
        return "a sampling.temperature of 0"
    if name == "policy_gradient":
        return "objective: divergence" if recipe.objective == "divergence" else "a discount of 0"
    if name == "student_loss":
        return "having no answers of the student"
    return "having all answers of the student" if recipe.student_fraction == 1 else "what else is said of the answers"


def require_agreement(recipe: Any) -> None:
    """`recipe`: a Distill, its values each right. Raises Disagreement where they contradict each other."""
    if recipe.replay and recipe.replay.adaptive and recipe.student_fraction == 1:
        raise Disagreement(
            "replay.adaptive lets student_fraction rise, and it is 1: say a lower student_fraction",
            *("student_fraction", "answers", "replay.adaptive", "replay", "method"),
        )
    if recipe.replay and not recipe.replay.adaptive and recipe.student_fraction == 0:
        raise Disagreement(
            "replay keeps answers of the student, and it writes none: say a student_fraction above 0",
            *("student_fraction", "answers", "replay", "method"),
        )
    if recipe.sampling.temperature == 0 and recipe.sampling.num_answers > 1:
        raise Disagreement(
            f"sampling: at temperature 0 all {recipe.sampling.num_answers} answers to a prompt are the same: say a"
            " temperature above 0, or num_answers: 1",
            *("sampling.num_answers", "sampling.temperature", "method"),
        )
    if recipe.sampling.writer == "vllm":
        _require_for_vllm(recipe)
    if recipe.objective == "policy_gradient":
        _require_policy_gradient(recipe)
    _require_known_text(recipe)


def _require_for_vllm(recipe: Any) -> None:
    if recipe.writes_in_training:
        raise Disagreement(
            "sampling.writer: vllm writes a teacher's answers, before the training; the student's own are written by"
            f" transformers: say {INSTEAD}, or no student_fraction and replay",
            *("sampling.writer", "student_fraction", "replay", "method"),
        )
    if not (recipe.sampling.temperature == 0 or 0.01 <= recipe.sampling.temperature <= 2):
        raise Disagreement(
            f"sampling.writer: vllm samples at temperatures from 0.01 to 2, or at 0, and not at"
            f" {recipe.sampling.temperature:g}: say such a one, or {INSTEAD}",
            *("sampling.temperature", "sampling.writer", "method"),
        )


def _require_known_text(recipe: Any) -> None:
    """Losses across tokenizers align the data's rows, read by both models before the training."""
    if recipe.student_loss is not None and recipe.student_loss.crosses_tokenizers:
        message = f"student_loss: {recipe.student_loss.name} compares texts of the data, not the student's own"
        raise Disagreement(message, "student_loss")
    if recipe.loss.crosses_tokenizers and (recipe.answers != "dataset" or recipe.writes_in_training):
        raise Disagreement(
            f"loss: {recipe.loss.name} aligns the tokens of teacher and student in the answers of the data: say"
            " answers: dataset, and no student_fraction and replay",
            *("answers", "student_fraction", "replay", "loss", "method"),
        )


def _require_policy_gradient(recipe: Any) -> None:
    by = ("objective", "method")
    if recipe.student_fraction != 1 or recipe.replay:
        raise Disagreement(
            "objective: policy_gradient learns from answers that are sampled at each step: say answers: student or"
            " mixed, and no replay",
            *("answers", "student_fraction", "replay", *by),
        )
    if recipe.loss.name != "reverse_kl":
        raise Disagreement(
            f"objective: policy_gradient lowers the reverse KL of whole answers, and the loss is {recipe.loss.name}:"
            " say loss: reverse_kl, or objective: divergence",
            *("loss", "student_loss", *by),
        )
    if recipe.temperature != 1:
        raise Disagreement(
            "objective: policy_gradient lowers the reverse KL of whole answers as the models give them, and the"
            f" temperature is {recipe.temperature:g}: say temperature: 1",
            *("temperature", *by),
        )
    for name, plain in (("temperature", 1), ("top_p", 1), ("top_k", 0)):
        if getattr(recipe.sampling, name) != plain:
            raise Disagreement(
                "objective: policy_gradient needs answers sampled from the models as they are, and sampling."
                f"{name} is {getattr(recipe.sampling, name):g}: say sampling.{name}: {plain}",
                *(f"sampling.{name}", *by),
            )
