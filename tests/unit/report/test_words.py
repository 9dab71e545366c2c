"""The one file of words: each entry is spoken somewhere, filled in whole, and can be read aloud."""

import ast
import re
import string
import tomllib
from collections.abc import Iterator

import pytest
import yaml
from support.paths import GOLDEN, PACKAGE
from support.readable import MOST_WORDS, faults, num_words, sentences

from ablate.losses.base import LOSSES
from ablate.report.words import say, words_of
from ablate.study.distillation_methods import PRESETS
from ablate.study.schema import Study
from ablate.study.training_recipes import Distill

WORDS = tomllib.loads((PACKAGE / "report" / "words.toml").read_text())
ENTRIES = [f"{section}.{name}" for section, entries in WORDS.items() for name in entries]
NAMES = ("axis", "subject", "value", "step", "row", "control_name", "others", "kind", "shipped")
"""Sections that are dictionaries of a study's own names."""
SOURCES = {path: ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
TEMPLATES = "".join(path.read_text() for path in PACKAGE.rglob("templates/*.*"))


def strings() -> Iterator[str]:
    for tree in SOURCES.values():
        yield from (
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )


def patterns() -> Iterator[str]:
    """-> of f-strings that may name an entry: what lies between their words is anything."""
    for tree in SOURCES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                parts = (re.escape(str(one.value)) if isinstance(one, ast.Constant) else ".+" for one in node.values)
                yield "".join(parts)


def calls() -> Iterator[tuple[str, ast.Call]]:
    """-> each call of `say` that names its entry as it stands."""
    for tree in SOURCES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say" and node.args:
                yield from ((one.value, node) for one in ast.walk(node.args[0]) if _is_text(one))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value


def placeholders(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


def test_every_entry_is_spoken_somewhere():
    known = set(strings()) | set(re.findall(r"[\"']([a-z_]+\.[\w-]+)[\"']", TEMPLATES))
    made = [re.compile(pattern) for pattern in patterns() if re.match(r"[a-z_]+\\\.", pattern)]
    unspoken = [
        entry
        for entry in ENTRIES
        if entry not in known
        and entry.partition(".")[0] not in NAMES
        and not any(pattern.fullmatch(entry) for pattern in made)
    ]
    assert unspoken == []


def test_whatever_is_spoken_has_an_entry():
    missing = [entry for entry, node in calls() if entry not in ENTRIES and not _is_pattern(node)]
    assert missing == []


def _is_pattern(node: ast.Call) -> bool:
    return any(isinstance(one, ast.JoinedStr) for one in ast.walk(node.args[0]))


def test_a_sentence_is_given_all_that_it_asks_for_and_nothing_else():
    wrong = []
    for entry, node in calls():
        if _is_pattern(node) or any(keyword.arg is None for keyword in node.keywords):
            continue
        given = {keyword.arg for keyword in node.keywords}
        asked = placeholders(say_raw(entry))
        is_choice = isinstance(node.args[0], ast.IfExp)
        if not asked <= given or (not is_choice and given - asked):
            wrong.append((entry, asked ^ given))
    assert wrong == []


def say_raw(entry: str) -> str:
    section, _, name = entry.partition(".")
    return words_of(section)[name]


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.partition(".")[0] not in NAMES])
def test_an_entry_can_be_read_aloud(entry):
    text = say_raw(entry)
    filled = text.format(**dict.fromkeys(placeholders(text), "x"))
    assert [fault for sentence in sentences(filled) for fault in faults(sentence)] == []


def test_every_sentence_of_every_situation_can_be_read_aloud():
    spoken = yaml.safe_load((GOLDEN / "words.yaml").read_text())
    wrong = {
        sentence: found_faults
        for situation in spoken.values()
        for text in (situation["headline"], *situation["answers"])
        for sentence in sentences(text)
        if (found_faults := faults(sentence))
    }
    assert wrong == {}


def test_what_is_hard_to_read_is_noticed():
    good = "Fine-tuning the teacher first adds 16 points on tiny_letters (6 to 26)"
    assert faults(f"{good} and recovers 93 % of the gap to the teacher.") == []
    assert faults("The other 5 comparisons of 8 cannot be told from no difference.") != []
    assert faults("It adds 16 points (6 to 26) and 5 points (1 to 9) on the others.") != []
    assert faults(" ".join(["word"] * (MOST_WORDS + 1))) != []
    assert num_words("It adds 16 points on tiny_letters (6 to 26).") == 6


def test_settings_losses_and_methods_with_words_of_their_own_are_ones_that_a_study_can_say():
    losses = {name for name in words_of("value") if name.startswith("distill.loss ")}
    assert losses == {f"distill.loss {name}" for name in LOSSES}
    methods = {name for name in words_of("value") if name.startswith("distill.method ")}
    assert methods == {f"distill.method {name}" for name in (*PRESETS, "none")}
    for path in words_of("axis"):
        part, _, field = path.partition(".")
        assert part in Study.model_fields
        assert part != "distill" or field.partition(".")[0] in Distill.model_fields


def test_a_sentence_that_lacks_a_value_is_refused():
    with pytest.raises(KeyError):
        say("effect.adds", subject="it")
