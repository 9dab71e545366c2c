"""Which chat templates a model folder has, read from its files without transformers; and what they say of the date."""

import datetime
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ablate.core.errors import did_you_mean

TODAY = datetime.date(2024, 7, 26)
"""What every chat template is told when it asks for the date: the day Llama 3.1's own template falls back to."""
DEFAULT = "default"
"""What transformers calls the one that is used unless another is named."""


def chat_templates(folder: Path) -> dict[str, str]:
    """-> the chat templates of a model folder by name; one without a name under "".

    Files beside tokenizer_config.json come before what is in it, as transformers has it.
    """
    files = {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    own = folder / "chat_template.jinja"
    if own.is_file():
        files = {DEFAULT if files else "": own} | files
    if files:
        return {name: path.read_text(encoding="utf-8", errors="replace") for name, path in files.items()}
    template = _json(folder / "tokenizer_config.json").get("chat_template")
    template = template or _json(folder / "chat_template.json").get("chat_template")
    if isinstance(template, list):
        named = (one for one in template if isinstance(one, dict) and "name" in one)
        return {str(one["name"]): str(one.get("template")) for one in named}
    if isinstance(template, dict):
        return {str(name): str(text) for name, text in template.items()}
    return {"": template} if isinstance(template, str) and template else {}


def template_names(folder: Path) -> tuple[str, ...] | None:
    """-> the names of a model folder's chat templates; of a single one `default`; empty without any.

    None of an adapter without a tokenizer, whose base model has them.
    """
    if (folder / "adapter_config.json").is_file() and not (folder / "tokenizer_config.json").is_file():
        return None
    return tuple(name or DEFAULT for name in chat_templates(folder))


def lacking(names: Collection[str] | None, asked: bool | str) -> str | None:
    """-> why a model with these chat templates cannot be asked by the one that `apply_chat_template` says, or None."""
    if not asked or names is None:
        return None
    if not names:
        return "has no chat template: say apply_chat_template: false, or put a chat_template.jinja into its folder"
    if isinstance(asked, str) and asked not in names:
        return f"has no chat template {asked!r}.{did_you_mean(asked, names)}"
    if asked is True and DEFAULT not in names:
        return f"has several chat templates and none is the default: name one of {', '.join(sorted(names))}"
    return None


def unheard(tokenizer: Any, instruction: str) -> str | None:
    """-> why a tokenizer's chat template does not hand on what is said in a system's turn, or None."""
    from jinja2 import TemplateError

    turns = [{"role": "system", "content": instruction}, {"role": "user", "content": "?"}]
    today = TODAY.strftime("%d %b %Y")
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, date_string=today)
    except TemplateError as error:
        return f"refuses a system's turn: {error}"
    return None if instruction.strip() in text else "leaves a system's turn out"


def dated(chat_template: str) -> str:
    """-> the template with a `strftime_now` of ours, a jinja macro: transformers lets no function through."""
    if "strftime_now" not in chat_template:
        return chat_template
    directives = [f"%{letter}" for letter in "aAbBdmyYjHIMSpUwW"] + ["%-d", "%-m"]
    replaced = "".join(f"|replace('{part}', '{TODAY.strftime(part)}')" for part in directives)
    # the empty expression keeps the end of the macro from swallowing a first newline
    return f"{{% macro strftime_now(format) %}}{{{{ format{replaced} }}}}{{% endmacro %}}{{{{ '' }}}}{chat_template}"


def _json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
