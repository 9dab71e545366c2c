"""How one task is put to the models where it is asked otherwise than the rest: what a study may say beside its name."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
)

from ablate.core.errors import did_you_mean
from ablate.core.values import EXTENSION, IDENTITY, Bool, Frozen, Int
from ablate.study.chat_templates import DEFAULT

FEWSHOT_SEED: Final = 1234
"""lm-eval's."""
GENERATION: Final = (
    "until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p",
    "epsilon_cutoff", "eta_cutoff", "repetition_penalty", "no_repeat_ngram_size", "encoder_repetition_penalty",
    "encoder_no_repeat_ngram_size", "num_beams", "length_penalty", "early_stopping", "min_length", "min_new_tokens",
    "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "forced_bos_token_id",
    "forced_eos_token_id", "eos_token_id", "exponential_decay_length_penalty", "renormalize_logits",
    "remove_invalid_values", "guidance_scale",
)  # fmt: skip
"""What decides a generated text: lm-eval's `until` and `max_gen_toks`, the rest transformers'."""

COUNTS: Final = {
    **{"max_gen_toks": 1, "num_beams": 1, "top_k": 0, "min_length": 0, "min_new_tokens": 0},
    **{"no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0},
}
"""Of these, whole numbers, the least."""
NUMBERS: Final = {
    **{"temperature": math.inf, "repetition_penalty": math.inf, "encoder_repetition_penalty": math.inf},
    **{"top_p": 1, "min_p": 1, "top_h": 1, "typical_p": 1, "epsilon_cutoff": 1, "eta_cutoff": 1},
}
"""Of these, from 0 up, the most."""
SWITCHES: Final = ("do_sample", "renormalize_logits", "remove_invalid_values")


def _require(is_right: bool, expected: str, value: Any) -> None:
    """Raises ValueError that says what is expected."""
    if not is_right:
        raise ValueError(f"{expected}, got {value!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _limit(value: Any) -> Any:
    """Raises ValueError for what is neither a number of questions nor a part of them."""
    _require(_is_number(value), "a whole number of questions, or a part of them such as 0.1, is expected", value)
    _require(value > 0, "must be greater than 0 (none asks all questions)", value)
    if isinstance(value, float) and value >= 1:
        whole = f"say {int(value)} for {'one question' if value < 2 else f'the first {int(value)} questions'}"
        _require(False, f"a part of the questions is less than 1: {whole}, none for all", value)
    return value


def _generation(value: Any) -> Any:
    """Raises ValueError for what no generation has, or not so."""
    _require(isinstance(value, Mapping), "a mapping such as {temperature: 0.5, do_sample: true} is expected", value)
    for name in value:
        if name not in GENERATION:
            raise ValueError(f"no generation has {name!r}.{did_you_mean(str(name), GENERATION, limit=40)}")
    is_zero = value.get("temperature") == 0 and value.get("do_sample") is True
    _require(not is_zero, "temperature: to sample (do_sample: true) it must be greater than 0", value)
    return {name: _generation_setting(name, one) for name, one in value.items()}


def _generation_setting(name: str, value: Any) -> Any:
    """-> one setting, in the one way to write it: 1 and 1.0 are one temperature. Raises ValueError."""
    if name == "until":
        until = [value] if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else [value]
        are_texts = all(isinstance(text, str) and text for text in until)
        _require(are_texts, "until: texts that end an answer are expected", value)
        return until
    if name in SWITCHES:
        _require(isinstance(value, bool), f"{name}: true or false is expected", value)
    if name in COUNTS:
        is_right = _is_count(value) and value >= COUNTS[name]
        _require(is_right, f"{name}: a whole number from {COUNTS[name]} up is expected", value)
    if name in NUMBERS:
        most = NUMBERS[name]
        words = "from 0 up" if math.isinf(most) else f"from 0 to {most}"
        _require(_is_number(value) and 0 <= value <= most, f"{name}: a number {words} is expected", value)
        return float(value)
    return value


def _template(value: Any) -> Any:
    """Raises ValueError for what is neither true nor false nor a name."""
    is_name = isinstance(value, str) and bool(value.strip())
    _require(is_name or isinstance(value, bool), "true, false or the name of a chat template is expected", value)
    return True if value == DEFAULT else value


def _shots(value: Any) -> Any:
    """Raises ValueError for what is no number of examples."""
    _require(_is_count(value), "a whole number of examples from 0 up is expected", value)
    return value


def _or_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What one task says may be `none` too, which is not the same as to say nothing."""
    return lambda value: "none" if value is None or value == "none" else check(value)


def _metric(value: Any) -> Any:
    return {"metric": value} if isinstance(value, str) else value


def _instruction(value: Any) -> Any:
    return "" if value is None or value == "none" else value


Limit: TypeAlias = Annotated[int | float, BeforeValidator(_limit)]
ChatTemplate: TypeAlias = Annotated[bool | str, BeforeValidator(_template)]
Generation: TypeAlias = Annotated[dict[str, Any], BeforeValidator(_generation)]
Shots: TypeAlias = Annotated[int, BeforeValidator(_shots)]
Seed: TypeAlias = Annotated[Int, Field(ge=0, lt=2**63)]


class _Sparse(Frozen):
    """Written with what it says alone."""

    @model_serializer(mode="wrap")
    def _only_what_is_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}


class Metric(_Sparse):
    """One metric that lm-eval works out, and how."""

    metric: Annotated[str, IDENTITY]
    aggregation: Annotated[str | None, EXTENSION] = None
    """As lm-eval does of this metric unless said."""
    higher_is_better: Annotated[Bool | None, EXTENSION] = None
    ignore_case: Annotated[Bool | None, EXTENSION] = None
    """Of exact_match, as the three below."""
    ignore_punctuation: Annotated[Bool | None, EXTENSION] = None
    ignore_numbers: Annotated[Bool | None, EXTENSION] = None
    regexes_to_ignore: Annotated[tuple[str, ...] | None, EXTENSION] = None


NamedMetric: TypeAlias = Annotated[Metric, BeforeValidator(_metric, json_schema_input_type=str | Metric)]


class AskedTask(_Sparse):
    """One task, and what holds for it alone; the rest is as `evaluate` says."""

    task: Annotated[str, IDENTITY]
    """Name of a task, group or tag; what is said here of a group or tag is said of all its tasks."""
    num_fewshot: Annotated[int | Literal["none"] | None, EXTENSION, BeforeValidator(_or_none(_shots))] = None
    """Examples before each question, also where the task's file says 0; none: the file's own number."""
    limit: Annotated[int | float | Literal["none"] | None, EXTENSION, BeforeValidator(_or_none(_limit))] = None
    """The first questions, or a part of them such as 0.1; none: all."""
    metric_list: Annotated[Annotated[tuple[NamedMetric, ...], Field(min_length=1)] | None, EXTENSION] = None
    """Metrics in place of the task's own."""
    gen_kwargs: Annotated[Generation | None, EXTENSION] = None
    """Laid over evaluate.gen_kwargs."""
    fewshot_seed: Annotated[Seed | None, EXTENSION] = None
    apply_chat_template: Annotated[ChatTemplate | None, EXTENSION] = None
    fewshot_as_multiturn: Annotated[Bool | None, EXTENSION] = None
    system_instruction: Annotated[str | None, EXTENSION, BeforeValidator(_instruction)] = None
    """none: no instruction, whatever evaluate says."""


def task_name(task: Any) -> Any:
    """-> the name of a task that stands in a list of tasks, as parsed or as written."""
    if isinstance(task, AskedTask):
        return task.task
    return task.get("task") if isinstance(task, Mapping) else task


def _sort(value: Any) -> str:
    return "name" if isinstance(value, str) else "mapping"


def shortest(value: AskedTask | str) -> AskedTask | str:
    """A mapping that says no more than the name is the name."""
    return value.task if isinstance(value, AskedTask) and value == AskedTask(task=value.task) else value


def _name_or_mapping(value: Any) -> Any:
    """Raises ValueError for neither."""
    is_either = isinstance(value, str | Mapping | AskedTask)
    _require(is_either, "the name of a task is expected, or a mapping such as {task: piqa, num_fewshot: 5}", value)
    return value


def some(tasks: Any) -> Any:
    """Raises ValueError for no task at all."""
    if isinstance(tasks, list | tuple) and not tasks:
        raise ValueError("at least 1 is needed, got none")
    return tasks


Task: TypeAlias = Annotated[
    Annotated[AskedTask, Tag("mapping")] | Annotated[str, Tag("name")],
    Discriminator(_sort),
    AfterValidator(shortest),
    BeforeValidator(_name_or_mapping),
]
"""A name, or a mapping with the name and what holds for this task alone."""
