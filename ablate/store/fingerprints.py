"""runs/checks/models/: what each model answered when it was first loaded under the stages that made it."""

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.core import disk, plain_files
from ablate.core.values import Json, digest

FIELDS = frozenset({
    "model", "dtype", "sum", "absolute_sum", "largest", "logits", "device", "torch", "transformers",
})  # fmt: skip
READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}


def kept_or_first(checks: Path, made_by: Sequence[str], dtype: str, answers: Mapping[str, Json]) -> dict[str, Any]:
    """-> what was kept of a model; where nothing was, `answers` are kept, and of two at once one.

    `made_by`: names of the stages that made the model. What is damaged is written anew; nothing is kept in a root that
    is there to be read alone, nor by way of a link.
    """
    path = checks / "models" / _name(made_by, dtype)
    record = {"model": list(made_by), "dtype": dtype, **answers}
    if any(plain_files.what_is(place) not in ("a folder", None) for place in (checks, path.parent)):
        return record  # the next run sets it aside
    if kept := disk.read_sealed(path, ()):
        return kept
    try:
        disk.make_folder(path.parent)
        if not disk.create_sealed(path, record):
            if kept := disk.read_sealed(path, ()):
                return kept
            disk.write_sealed(path, record)
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
    return record


def is_sound(path: Path) -> bool:
    """Whether a file is what was written."""
    record = disk.read_sealed(path, ())
    return record is not None and record.keys() == FIELDS and _name(record["model"], record["dtype"]) == path.name


def _name(made_by: Sequence[str], dtype: str) -> str:
    return f"{digest([list(made_by), dtype])[:12]}.json"
