"""How models are trained: adapters, optimizer, fine-tuning and distillation."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ablate.core.values import EXTENSION, IDENTITY, INPUT, RUNTIME, Bool, Cards, Frozen, Int, Num
from ablate.feature_losses import FeatureLoss
from ablate.feature_losses import parse as parse_features
from ablate.losses import LOSSES, Loss, parse
from ablate.study.answer_settings import (
    DISTILL_HINTS,
    PolicyGradient,
    Replay,
    Sampling,
    Writer,
    require_agreement,
    silent_of_answers,
    with_one_way,
    writes_in_training,
)
from ablate.study.distillation_methods import Method, with_preset
from ablate.study.field_types import OrNone, Positive, without_none_word
from ablate.study.module_names import ALL_LINEAR, LORA_HINTS, in_one_order, require_targets, target_items
from ablate.study.several_teachers import (
    Teachers,
    require_one_where_one_is_meant,
    silent_of_teachers,
    with_teachers_alone,
)
from ablate.study.teacher_top_k import require_meaning, silent_of_cut, with_one_rest

Beta: TypeAlias = Annotated[Num, Field(ge=0, lt=1)]


def scale_of(alpha: float, rank: int, use_rslora: bool) -> float:
    """-> alpha/rank; rank-stabilised alpha/sqrt(rank)."""
    return alpha / (math.sqrt(rank) if use_rslora else rank)


class Lora(Frozen):
    """Low-rank adapters (Hu et al. 2021, 2106.09685): W + alpha/rank B A."""

    hints: ClassVar[Mapping[str, str]] = LORA_HINTS

    rank: Annotated[Positive, IDENTITY] = 64
    alpha: Annotated[Num, IDENTITY, Field(gt=0)] = 128.0
    dropout: Annotated[Num, IDENTITY, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[
        tuple[str, ...],
        BeforeValidator(target_items, json_schema_input_type=str | list[str]),
        AfterValidator(require_targets),
        IDENTITY,
        Field(min_length=1),
    ] = (
        "down_proj",
        "gate_proj",
        "o_proj",
        "q_proj",
        "up_proj",
        "v_proj",
    )
    """Which linear modules get an adapter: a list of last parts of their names; `all-linear`, all of them but the
    output head; or regular expressions, alone or in a list, each for the modules whose full name it matches from
    beginning to end. An item with any of \\ ^ $ * + ? { } [ ] ( ) | in it is one, unless a module is called so."""
    use_rslora: Annotated[Bool, EXTENSION] = False
    """Scale B A by alpha/sqrt(rank) instead of alpha/rank (Kalajdzievski 2023, 2312.03732)."""
    use_dora: Annotated[Bool, EXTENSION] = False
    """Train the norms of the rows of W + B A apart from their directions (Liu et al. 2024, 2402.09353)."""
    modules_to_save: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], AfterValidator(in_one_order), EXTENSION
    ] = ()
    """Ends of the names of modules that are trained whole beside the adapters, as peft takes them: `norm` is every
    module whose name ends so."""

    @property
    def scale(self) -> float:
        """Of B A."""
        return scale_of(self.alpha, self.rank, self.use_rslora)

    @property
    def is_all_linear(self) -> bool:
        return self.target_modules == (ALL_LINEAR,)


class AdamW(Frozen):
    """AdamW (Loshchilov, Hutter 2019, 1711.05101)."""

    name: Annotated[Literal["adamw"], IDENTITY] = "adamw"
    weight_decay: Annotated[Num, IDENTITY, Field(ge=0)] = 0.01
    betas: Annotated[tuple[Beta, Beta], IDENTITY] = (0.9, 0.999)
    eps: Annotated[Num, IDENTITY, Field(gt=0)] = 1e-8


def is_number_of_steps(max_steps: Any) -> bool:
    """Whether max_steps says how long a training is."""
    return without_none_word(max_steps) is not None


def with_one_length(training: dict[str, Any]) -> dict[str, Any]:
    """max_steps decides alone, so that epochs beside it cannot make two keys of one training."""
    if is_number_of_steps(training.get("max_steps")):
        return training | {"epochs": None}
    if training.get("epochs", 1) is None:
        raise ValueError("a training needs epochs or max_steps, and both are none")
    return training


def with_one_scale(distillation: dict[str, Any]) -> dict[str, Any]:
    """A temperature of 1 scales nothing by its square, so that scale_by_t2 beside it cannot make two keys."""
    is_scaled = distillation.get("scale_by_t2") is True and distillation.get("temperature", 1) == 1
    return distillation | {"scale_by_t2": False} if is_scaled else distillation


class Train(Frozen):
    """What fine-tuning and distillation share."""

    epochs: Annotated[Annotated[Int, Field(gt=0)] | None, IDENTITY] = 1
    """Passes over the rows; none where max_steps is said."""
    max_steps: Annotated[Annotated[Int, Field(gt=0)] | None, OrNone(), IDENTITY] = None
    """Optimizer steps, over as many passes as they need."""
    batch_size: Annotated[Positive, IDENTITY] = 16
    """Rows an optimizer step; how they are cut into micro-batches is the engine's affair."""
    lr: Annotated[Num, IDENTITY, Field(gt=0)] = 3e-4
    """Peak learning rate."""
    schedule: Annotated[Literal["cosine", "linear", "constant"], IDENTITY] = "cosine"
    warmup_steps: Annotated[Annotated[Int, Field(ge=0)], IDENTITY] = 100
    optimizer: Annotated[AdamW, IDENTITY] = AdamW()
    max_grad_norm: Annotated[Annotated[Num, Field(gt=0)] | None, OrNone(), IDENTITY] = None
    """Clip the norm of the whole gradient to this; none: no clipping."""
    drop_last: Annotated[Bool, IDENTITY] = True
    """Leave out a last, partial batch (never the only one)."""
    lora: Annotated[Lora | None, OrNone(), IDENTITY] = Lora()
    """none trains every weight."""
    micro_batch_tokens: Annotated[Positive | None, RUNTIME] = None
    """Most tokens forwarded at once; found for the device unless said."""
    cards: Annotated[Cards, RUNTIME] = "auto"
    """So many cards of one machine share the rows of each step, to the same result; auto: as many as hold the models,
    or as shorten the study.
    Without cards, so many processes."""
    checkpoint_every_s: Annotated[Num, RUNTIME, Field(gt=0)] = 300.0
    """Seconds between two checkpoints."""
    gradient_checkpointing: Annotated[Bool, RUNTIME] = False
    """Recompute activations in the backward pass: less memory, more time, the same result."""

    @model_validator(mode="before")
    @classmethod
    def _steps_or_epochs(cls, value: Any) -> Any:
        return with_one_length(value) if isinstance(value, dict) else value


class Finetune(Train):
    """Fine-tuning: the class loss (cross-entropy) alone."""


class Distill(Train):
    """Distillation: (1 - kd_ratio) class loss + kd_ratio KD loss."""

    hints: ClassVar[Mapping[str, str]] = DISTILL_HINTS

    pair: Annotated[str | None, INPUT] = None
    """Which pair; the first one unless said."""
    teacher: Annotated[Literal["baseline", "finetuned"], INPUT] = "finetuned"
    teachers: Annotated[Teachers, EXTENSION] = ()
    """Several, each {pair: NAME, teacher: baseline, weight: 0.5}, in the place of the pair's own teacher."""
    teacher_mean: Annotated[Literal["probabilities", "losses"], EXTENSION] = "probabilities"
    """Of several teachers: the KD loss against the mean of their distributions at the temperature, or the mean of the
    KD losses against each."""
    features: Annotated[
        FeatureLoss | None, BeforeValidator(parse_features, json_schema_input_type=str | dict[str, Any]), EXTENSION
    ] = None
    """A loss on hidden states beside class loss and KD loss: a name, or {name: mse, weight: 0.1}."""
    student: Annotated[Literal["baseline", "finetuned"], INPUT] = "baseline"
    kd_ratio: Annotated[Num, IDENTITY, Field(ge=0, le=1)] = 0.5
    """0: class loss alone; 1: KD loss alone."""
    loss: Annotated[
        Loss,
        BeforeValidator(parse, json_schema_input_type=str | dict[str, Any]),
        IDENTITY,
    ] = Field(default_factory=lambda: parse("forward_kl"))
    """A name, or {name: jsd, beta: 0.5}."""
    temperature: Annotated[Num, IDENTITY, Field(gt=0)] = 1.0
    """Divides the logits of teacher and student."""
    scale_by_t2: Annotated[Bool, IDENTITY] = False
    """Multiply the KD loss by the square of the temperature."""
    teacher_cache: Annotated[Literal["auto", "vector", "hidden", "top_k", "none"], RUNTIME] = "auto"
    """How the teacher's answers are kept: how, not what."""
    teacher_top_k: Annotated[Positive | None, OrNone(), EXTENSION] = None
    """Learn from no more of the teacher than its k likeliest tokens at each place, in 16 bits where dtype has 16."""
    teacher_top_k_rest: Annotated[Literal["event", "zero"], EXTENSION] = "event"
    """What the other tokens become. `event`: one, of both models, with their summed probability (TRL's
    loss_add_tail). `zero`: the teacher gives them none, and what is kept is scaled to 1 (NeMo RL's
    zero_outside_topk)."""
    method: Annotated[Method | None, OrNone(), INPUT] = None
    """A paper's method: fills in the fields below and the loss, each where nothing is said beside it."""
    answers: Annotated[Writer, EXTENSION] = "dataset"
    """Who writes the answers that are trained on; the prompts are the data's. `teacher`: each prompt's once, before;
    `student`: at each step, as it is then; `mixed`: likewise, each token drawn from a mixture of the two."""
    student_fraction: Annotated[Num, EXTENSION, Field(ge=0, le=1)] = 0.0
    """Share of an optimizer step's rows that the student writes itself, the others' answers being the data set's or
    the teacher's; of `answers: student` and `mixed` 1. On these rows KD alone counts, whatever kd_ratio says."""
    sampling: Annotated[Sampling, EXTENSION] = Sampling()
    """How answers are written."""
    replay: Annotated[Replay | None, OrNone(), EXTENSION] = None
    """Train on answers of the student again."""
    objective: Annotated[Literal["divergence", "policy_gradient"], EXTENSION] = "divergence"
    """What is lowered on answers that the student wrote: the divergence at each of their tokens, or the reverse KL of
    whole answers, by the gradient of a policy whose reward is the teacher's."""
    policy_gradient: Annotated[PolicyGradient, EXTENSION] = PolicyGradient()
    """How that gradient is estimated."""
    student_loss: Annotated[
        Loss | None,
        BeforeValidator(
            lambda value: None if value in (None, "none") else parse(value),
            json_schema_input_type=str | dict[str, Any] | None,
        ),
        EXTENSION,
    ] = None
    """Of the rows that the student writes, where it is not `loss`."""

    @property
    def writes_in_training(self) -> bool:
        """Whether the student writes answers while it trains."""
        return writes_in_training({"student_fraction": self.student_fraction, "replay": self.replay})

    @property
    def silent_fields(self) -> frozenset[str]:
        """Those that mean nothing beside the others, nested ones as sampling.mix."""
        return silent_of_answers(self) | silent_of_teachers(self) | silent_of_cut(self)

    @model_validator(mode="before")
    @classmethod
    def _in_one_way(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return with_teachers_alone(with_one_rest(with_one_way(with_one_scale(with_preset(value)))))

    @model_validator(mode="after")
    def _agreeing(self) -> "Distill":
        require_agreement(self)
        require_one_where_one_is_meant(self)
        require_meaning(self)
        return self


def losses_across_tokenizers() -> tuple[str, ...]:
    """-> the losses of which teacher and student may have other tokenizers; gold, where it is one, first."""
    names = [name for name in LOSSES if LOSSES[name].crosses_tokenizers]
    return tuple(sorted(names, key=lambda name: (name != "gold", name)))
