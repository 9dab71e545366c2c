"""The sentences of report and terminal: all of them lie in words.toml, by the situation that they are for."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


def say(situation: str, **values: Any) -> str:
    """-> the sentence for `effect.adds`, filled in. Raises KeyError where there is none, or a value is missing."""
    section, _, name = situation.partition(".")
    return words_of(section)[name].format(**values)


def words_of(section: str) -> Mapping[str, str]:
    """-> the sentences of a section, not filled in: of one that is a dictionary of names, `axis` or `value`."""
    return _sections()[section]


def capitalised(text: str) -> str:
    """-> the text as a sentence begins."""
    return text[:1].upper() + text[1:]


def uncapitalised(text: str) -> str:
    """-> a sentence after its first words: `a learning rate`; names in capitals stay, `KD`."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


@cache
def _sections() -> dict[str, dict[str, str]]:
    return tomllib.loads(files("ablate.report").joinpath("words.toml").read_text())
