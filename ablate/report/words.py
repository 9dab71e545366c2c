"""The sentences of report and terminal: all of them lie in words.toml, by the situation that they are for."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


def say(situation: str, **values: Any) -> str:
    """-> the sentence for `effect.ahead`, filled in. Raises KeyError where there is none, or a value is missing."""
    section, _, name = situation.partition(".")
    sentence: str = _sentences()[section][name]
    return sentence.format(**values)


@cache
def _sentences() -> dict[str, dict[str, str]]:
    return tomllib.loads(files("ablate.report").joinpath("words.toml").read_text())
