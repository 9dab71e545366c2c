"""In what words, with how many examples and to which questions models were asked, as results.json keeps it."""

from collections.abc import Iterator, Mapping
from typing import Any

SAID = ("apply_chat_template", "fewshot_as_multiturn", "system_instruction", "gen_kwargs", "fewshot_seed")
"""Kept where it is not as lm-eval has it unless told."""


def questions_text(limit: float | None, whose: str = " of each task") -> str:
    """`all questions`, `the first 8 questions of each task`, `the first 10 % of the questions of each task`."""
    if limit is None:
        return "all questions"
    return (
        f"the first {100 * limit:g} % of the questions{whose}" if limit < 1 else f"the first {limit} questions{whose}"
    )


def ways(asked: Mapping[str, Any]) -> Iterator[str]:
    """-> what is said of the asking, each in a few words."""
    if asked.get("num_fewshot") is not None:
        yield f"num_fewshot {asked['num_fewshot']}"
    if "limit" in asked:
        yield questions_text(None if asked["limit"] == "none" else asked["limit"], "")
    for name in SAID:
        if name in asked:
            yield f"{name} {_plain(asked[name])}"
    if "metric_list" in asked:
        yield f"metrics {', '.join(metric['metric'] for metric in asked['metric_list'])}"


def condition(evaluation: Mapping[str, Any], task: str, name: str) -> Any:
    """-> `limit` or `num_fewshot` of one task: what was said of it alone, else of all."""
    own = evaluation["tasks"].get(task, {}).get("asked", {}).get(name)
    return evaluation.get(name) if own is None else None if own == "none" else own


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_plain(item)}" for name, item in value.items()) + "}"
    return repr(value) if isinstance(value, str) else str(value)
