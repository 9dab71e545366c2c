"""Settings and their values as people say them: `a learning rate of 0.004`, `fine-tuning the teacher first`."""

import re

from ablate.report.words import say, words_of

NAMED = re.compile(r"(?P<name>[\w.-]+) \((?P<rest>.+)\)")
"""A value with a name and more: `jsd (beta: 0.5)`."""


def axis_words(path: str) -> str:
    """`learning rate`; a setting without a name of its own: `distill.warmup`."""
    return words_of("axis").get(path, path)


def value_words(path: str, value: str) -> str:
    """-> one value as the subject of a sentence: `a learning rate of 0.004`, `reverse KL`."""
    if name := _name(path, value):
        return name
    if path in words_of("subject"):
        return say(f"subject.{path}", value=value)
    if path in words_of("axis"):
        return say("setting.value", axis=axis_words(path), value=value)
    return say("setting.unknown", path=path, value=value)


def bare_value(path: str, value: str) -> str:
    """-> the same where the setting was named before: `0.004`, `reverse KL`."""
    return _name(path, value) or value


def contrast_words(path: str, plus: str, minus: str) -> str:
    """-> what one does who takes `plus` and not `minus`: `fine-tuning the teacher first`, `0.75 instead of 0.5`."""
    step = words_of("step").get(f"{path} {plus}")
    if step and f"{path} {minus}" in words_of("step"):
        return step
    return say("setting.instead", plus=value_words(path, plus), minus=bare_value(path, minus))


def _name(path: str, value: str) -> str:
    """-> of a value with a name of its own; empty of a number."""
    whole = words_of("value").get(f"{path} {value}")
    if whole:
        return whole
    match = NAMED.fullmatch(value)
    name = words_of("value").get(f"{path} {match['name']}") if match else None
    return f"{name} ({match['rest']})" if match and name else ""
