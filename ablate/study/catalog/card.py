"""The card of a folder of rows (README.md), by which `datasets` chooses the files that it reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ablate.study.catalog.taskfile import Plain, in_lists, plainly_read, texts_in

HIDDEN_CARD = ".huggingface.yaml"
"""Read beside the card, and in no key."""


def files_in_card(folder: Path) -> Iterator[str]:
    """-> the files that a card names, relative to its folder or as they are; none where there is no card.

    Raises AblateError for what cannot be read.
    """
    card = folder / "README.md"
    text = plainly_read(card) if card.exists() else ""
    for entry in in_lists(_front_matter(text).get("configs")):
        for name in ("data_files", "data_dir", "path"):
            yield from texts_in(entry.get(name))


def _front_matter(text: str) -> dict[str, Any]:
    head = text.split("\n---", 1)[0].removeprefix("---") if text.startswith("---") else ""
    try:
        values = yaml.load(head, Loader=Plain)
    except yaml.YAMLError:  # for `datasets` to complain about
        return {}
    return values if isinstance(values, dict) else {}
