"""Which chat templates a model's folder has, by its files alone, and whether a study says which one it means."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ablate.core import disk
from ablate.core.errors import did_you_mean
from ablate.study.cells import cells_of
from ablate.study.data_settings import Data
from ablate.study.resolve import MisfitError, Resolver
from ablate.study.words import Finding

NAMED_DEFAULT, NAMED_FOR_TOOLS = "default", "tool_use"
"""Of several templates, the one that is used unless the study names another, and the one for rows with tools."""


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
    if (name or NAMED_DEFAULT) in names:
        return None
    there = f"data.chat_template: the student's tokenizer has {len(names)} chat templates ({', '.join(names)})"
    if name is None:
        return f"{there} and none of them is the default: say which one, such as data: {{chat_template: {names[0]}}}"
    return f"{there} and none is called {name!r}.{did_you_mean(name, names)}"


def template_names(folder: Path) -> list[str] | None:
    """-> the names of a model folder's chat templates; empty for one without a name, None for none that is known."""
    further = sorted(path.stem for path in (folder / "additional_chat_templates").glob("*.jinja"))
    has_own_file = (folder / "chat_template.jinja").is_file()
    if further or has_own_file:  # which go before what the configuration says
        return sorted([*further, NAMED_DEFAULT] if has_own_file else further) if further else []
    settings = disk.read_json(folder / "tokenizer_config.json")
    templates: Any = settings.get("chat_template") if isinstance(settings, dict) else None
    if isinstance(templates, list):
        return sorted(str(entry["name"]) for entry in templates if isinstance(entry, dict) and "name" in entry)
    return [] if isinstance(templates, str) else None


def template_findings(resolver: Resolver, name: str) -> Iterator[Finding]:
    """-> where the rows of an ablation do not say which template of a student on this disk they mean, once each."""
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
        student = resolver.study.pairs[pair].student.model
        if (data.model_dump_json(), student) in asked:
            continue
        asked.add((data.model_dump_json(), student))
        if (message := _message(data, Path(student))) is not None:
            yield Finding(("data", "chat_template") if data.chat_template else ("data",), message)


def _message(data: Data, student: Path) -> str | None:
    if data.template != "model" or data.format not in ("alpaca", "chat") or not student.is_absolute():
        return None
    names = template_names(student)
    return None if names is None else no_such_template(names, data.chat_template)
