"""Which chat templates a model's folder has, by its files alone, and whether a study says which one it means."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ablate.core.errors import did_you_mean
from ablate.study.cells import cells_of
from ablate.study.chat_templates import DEFAULT, chat_templates
from ablate.study.data_settings import Data
from ablate.study.resolve import MisfitError, Resolver
from ablate.study.words import Finding

NAMED_FOR_TOOLS = "tool_use"
"""Of several templates, the one for rows with tools."""
OURS_TO_SAY = ("messages", "tools", "documents", "add_generation_prompt", "date_string", "strftime_now")
"""What every template is told."""


def no_such_template(names: Sequence[str], name: str | None) -> str | None:
    """-> what is wrong with the name that a study says, or that it says none, for a tokenizer with these templates.

    `names`: of its chat templates; none for a tokenizer that has one without a name.
    """
    if not names:
        return (
            f"data.chat_template: {name}: the student's tokenizer has no chat templates with names; leave this out to "
            "use the one it has"
            if name
            else None
        )
    if (name or DEFAULT) in names:
        return None
    there = f"data.chat_template: the student's tokenizer has {len(names)} chat templates ({', '.join(names)})"
    if name is None:
        return f"{there} and none of them is the default: say which one, such as data: {{chat_template: {names[0]}}}"
    return f"{there} and none is called {name!r}.{did_you_mean(name, names)}"


def unused_setting(name: str, templates: Iterable[str]) -> str | None:
    """-> what is wrong with one of `data.chat_template_kwargs`, by the texts of the templates that may be used."""
    texts = list(templates)
    if name in OURS_TO_SAY:
        return f"data.chat_template_kwargs: {name} is said by ablate to every template, not by a study"
    if any(re.search(rf"\b{re.escape(name)}\b", text) for text in texts):
        return None
    words = {word for text in texts for word in re.findall(r"\b[a-z]\w+_\w+\b", text)}
    hint = did_you_mean(name, words)
    return f"data.chat_template_kwargs: the student's chat template has no use for {name!r}.{hint}"


def chat_template_findings(resolver: Resolver, name: str) -> Iterator[Finding]:
    """-> what the data of an ablation's rows say of chat templates, and is of no use; once each."""
    ablation = resolver.study.ablations[name]
    over = resolver.overlay(ablation.set)
    asked: set[tuple[str, str]] = set()
    for cell in cells_of(ablation):
        overlay = resolver.overlay(cell.values)
        pair = resolver.pair(over, overlay)
        try:
            data = resolver.setting(over, overlay).data if "data" in over or "data" in overlay else resolver.study.data
        except MisfitError:
            continue
        one = (data.model_dump_json(), resolver.study.pairs[pair].student.model)
        if one not in asked:
            asked.add(one)
            yield from (finding._replace(loc=("data", *finding.loc)) for finding in _findings(data, Path(one[1])))


def _findings(data: Data, student: Path) -> Iterator[Finding]:
    uses_chat_template = data.template == "model" and data.format in ("alpaca", "chat")
    if data.answers != "all" and data.train_on_prompt:
        yield Finding(("answers",), "data.answers: last has no effect: with train_on_prompt: true all tokens count")
    if not uses_chat_template:
        for field in ("chat_template", "chat_template_kwargs"):
            if getattr(data, field):
                no_effect = f"has no effect with format {data.format} and a template of {_sort(data.template)}"
                yield Finding((field,), f"data.{field}: {no_effect}")
        return
    templates = chat_templates(student) if student.is_absolute() else {}
    if not templates:
        return
    if message := no_such_template([name for name in templates if name], data.chat_template):
        yield Finding(("chat_template",) if data.chat_template else (), message)
        return
    own = [templates[data.chat_template]] if data.chat_template else list(templates.values())
    for name in data.chat_template_kwargs:
        if message := unused_setting(name, own):
            yield Finding(("chat_template_kwargs", name), message)


def _sort(template: str) -> str:
    return template if template in ("model", "plain") else "the study's own"
