"""What pydantic finds wrong with a value, in the words of a file's reader."""

from collections.abc import Callable, Mapping
from typing import Any

SLUG = "letters, digits, '.', '_' and '-', at most 64, the first a letter or digit"

EXPECTED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "int_type": lambda _: "a whole number is expected",
    "float_type": lambda _: "a number is expected",
    "bool_type": lambda _: "true or false is expected",
    "string_type": lambda _: "text is expected",
    "dict_type": lambda _: "a mapping is expected",
    "model_type": lambda _: "a mapping is expected",
    "tuple_type": lambda _: "a list is expected",
    "literal_error": lambda context: f"{context['expected']} is expected",
    "greater_than": lambda context: f"must be greater than {context['gt']:g}",
    "greater_than_equal": lambda context: f"must be at least {context['ge']:g}",
    "less_than": lambda context: f"must be less than {context['lt']:g}",
    "less_than_equal": lambda context: f"must be at most {context['le']:g}",
    "finite_number": lambda _: "a finite number is expected",
    "too_short": lambda context: f"at least {context['min_length']} is needed",
    "string_pattern_mismatch": lambda _: f"this cannot be a name: {SLUG}",
}
"""By pydantic's name of the error, of its context."""


def shown(value: Any) -> str:
    """-> a value as it may stand in a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value) if isinstance(value, str) else f"{value}"
    return text if len(text) <= 60 else f"{text[:57]}..."
