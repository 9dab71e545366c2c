"""What `lora.target_modules` and `modules_to_save` may say, and which of a model's modules an item stands for."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ablate.core.errors import did_you_mean
from ablate.core.patterns import fullmatching, require_pattern

ALL_LINEAR: Final = "all-linear"
_METACHARACTERS = re.compile(r"[\\^$*+?{}\[\]()|]")
"""Of a regular expression; no dot, which stands in names too."""

LORA_HINTS: Final[Mapping[str, str]] = {
    "r": "Write rank.",
    "lora_alpha": "Write alpha.",
    "lora_dropout": "Write dropout.",
    "layers_to_transform": "Name the layers in target_modules, by a pattern such as '.*layers\\.(0|1)\\..*_proj'.",
    "layers_pattern": "Name the layers in target_modules, by a pattern such as '.*layers\\.(0|1)\\..*_proj'.",
    "exclude_modules": "Name the modules that do get an adapter in target_modules.",
    "rank_pattern": "One rank for all modules is what is supported.",
    "alpha_pattern": "One alpha for all modules is what is supported.",
    "bias": "Biases stay as they are (peft's bias: none), or lora: none trains every weight.",
    "lora_bias": "Adapters have no bias here.",
    "init_lora_weights": "A is drawn uniformly and B is zero, as peft's default has it; nothing else is supported.",
}
"""What to say of settings that peft has and we have not, or call otherwise."""


def is_pattern(item: str) -> bool:
    return _METACHARACTERS.search(item) is not None


def target_items(value: Any) -> Any:
    """-> a list of one for what may stand alone: `all-linear`, or a pattern."""
    if isinstance(value, str) and (value.lower() == ALL_LINEAR or is_pattern(value)):
        return (value,)
    return value


def require_targets(items: tuple[str, ...]) -> tuple[str, ...]:
    """-> the items in one order. Raises ValueError for one that cannot be meant."""
    items = in_one_order(ALL_LINEAR if item.lower() == ALL_LINEAR else item for item in items)
    if ALL_LINEAR in items and len(items) > 1:
        raise ValueError(f"{ALL_LINEAR} names every linear module but the output head, so nothing can stand beside it")
    for item in items:
        if not item.strip():
            raise ValueError("a name of a module is expected, got an empty text")
        if is_pattern(item):
            require_pattern(item)
            fullmatching(item, USUAL_NAMES)
    return items


def in_one_order(items: Any) -> tuple[str, ...]:
    """-> each once, sorted: the order and repetition of names mean the same modules, so they are one key."""
    return tuple(sorted(set(items)))


USUAL_NAMES: Final = (
    "model.layers.17.self_attn.q_proj",
    "model.layers.17.mlp.gate_up_proj",
    "transformer.h.11.attn.c_attn",
    "model.language_model.layers.3.block_sparse_moe.experts.5.w1",
    "gpt_neox.layers.11.attention.query_key_value",
)
"""A pattern that never ends is found out with these, before any model is here."""


def named_by(item: str, names: Sequence[str]) -> tuple[str, ...]:
    """-> the full names that an item stands for: those that are it or end in it, else, of a pattern, its matches.

    Raises PatternError where a pattern takes too long.
    """
    named = tuple(name for name in names if name == item or name.endswith(f".{item}"))
    return named if named or not is_pattern(item) else fullmatching(item, tuple(names))


def saved_by(item: str, names: Sequence[str]) -> tuple[str, ...]:
    """-> the full names that an item of modules_to_save stands for: as peft has it, `norm` all that end in norm."""
    return tuple(name for name in names if name.endswith(item))


def lacks_linear(model: str, items: Sequence[str], linear: Sequence[str]) -> str:
    """-> what to say of items of target_modules that fit none of a model's linear modules."""
    if patterns := [item for item in items if is_pattern(item)]:
        example = f", as {max(linear, key=len)!r}" if linear else ""
        return (
            f"the pattern {patterns[0]!r} matches none of the {len(linear)} linear modules of the model ({model}) by "
            f"its full name{example}; one that is to match the end alone begins with .*"
        )
    names = {name.rpartition(".")[2] for name in linear} | {ALL_LINEAR}
    listed = " or ".join(map(repr, items))
    return f"the model ({model}) has no linear module {listed}.{did_you_mean(items[0], names, limit=30)}"


def lacks_module(model: str, item: str, modules: Sequence[str]) -> str:
    """-> what to say of an item of modules_to_save that fits none of a model's modules."""
    names = {last for name in modules if not (last := name.rpartition(".")[2]).isdigit()}
    return f"the model ({model}) has no module {item!r}.{did_you_mean(item, names, limit=40)}"


def shares_weights(module: str, other: str) -> str:
    """-> what to say of a module to save whose weights another one has too."""
    return (
        f"{module!r} shares its weights with {other!r}. peft would train a copy of the one and leave the other, so "
        "that the two part and the model can no longer be saved as one of its kind. Leave it out, or train every "
        "weight (lora: none), which keeps them one"
    )
