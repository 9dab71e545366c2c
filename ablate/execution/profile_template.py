"""Profiles to start from, and their schema for editors: what `ablate new` and `ablate schema --executors` give."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from ablate.core import disk
from ablate.core.new_file import write_new
from ablate.execution.executors.base import EXECUTORS, LOCAL
from ablate.execution.profile_file import SLUG_PATTERN
from ablate.execution.profile_options import options_model

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def write_template(path: Path) -> None:
    """Writes commented profiles, into a folder that is made. Raises AblateError rather than write over a file."""
    disk.make_folder(path.parent)
    text = files(__package__).joinpath("executors.yaml").read_text()
    write_new(path, text, "ablate new --executors ~/.config/ablate/executors.yaml")


def json_schema() -> dict[str, Any]:
    """-> the JSON schema of executors.yaml (draft 2020-12), with the options of every executor installed here."""
    kinds = {kind: _schema(kind) for kind in EXECUTORS}
    definitions: dict[str, Any] = {}
    for schema in kinds.values():
        definitions |= schema.pop("$defs", {})
    return {
        "$schema": DRAFT,
        "title": "Profiles: where stages may run, by name",
        "type": ["object", "null"],
        "propertyNames": {"pattern": f"^{SLUG_PATTERN}$", "not": {"const": LOCAL}},
        "additionalProperties": {"oneOf": list(kinds.values())},
        "$defs": definitions,
    }


def _schema(kind: str) -> dict[str, Any]:
    """-> what a profile of a kind is."""
    model = options_model(kind)
    nothing = {"type": "object", "additionalProperties": False}
    schema: dict[str, Any] = model.model_json_schema() if model else nothing
    properties = {"kind": {"const": kind}, **schema.get("properties", {})}
    return schema | {"title": kind, "properties": properties, "required": ["kind", *schema.get("required", [])]}
