"""One name, one study: whether a study's file is the one that was run under its name in this root, or another."""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ablate.core.errors import AblateError, NameTakenError
from ablate.core.values import digest
from ablate.store import study_records
from ablate.store.store import Store
from ablate.study.extend import extended
from ablate.study.rehearsal import rehearsal_name


def text_of(path: Path) -> str | None:
    """-> a digest of what a study file says, with what it extends, however it is written; None where it is no study."""
    try:
        return digest(extended(path).data)
    except (AblateError, OSError, TypeError, ValueError):
        return None


def require_own_name(store: Store, name: str, path: Path, text: str | None) -> None:
    """Raises NameTakenError where a study of that name was run here from another file than `path`, which says `text`.

    A file that was edited is the same study. So is one that moved: what was run lies there no more, calls itself
    otherwise now, or says the same.
    """
    record = store.study_record(name)
    if record is None or text is None or record.get("text") == text:
        return
    for other in known_files(store, record):
        if other != path and _is_there(other) and _bears_the_name(other, name, record) and text_of(other) != text:
            raise NameTakenError(_refusal(store, name, path, other))


def known_files(store: Store, record: Mapping[str, Any]) -> list[Path]:
    """-> the files that a study was run from, where they lie now if the root was copied or moved with them."""
    listed = [*record.get("files", []), record.get("source")]
    return list(dict.fromkeys(where_now(Path(file), record, store.root) for file in listed if file))


def files_from_now(store: Store, name: str, path: Path, *, is_take_over: bool) -> list[str]:
    """-> the files that count as one study once it is run from `path`."""
    record = {} if is_take_over else store.study_record(name) or {}
    known = (file for file in known_files(store, record) if _is_there(file) and _bears_the_name(file, name, record))
    return [str(file) for file in dict.fromkeys([*known, path])]


def where_now(file: Path, record: Mapping[str, Any], root: Path) -> Path:
    """-> where a file of a record lies now: beside the root, where that was copied or moved with it."""
    then = record.get("root")
    if not then or then == str(root):
        return file
    now = Path(os.path.normpath(root / os.path.relpath(file, then)))
    return now if _is_there(now) else file


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError:  # another user's: it may well be
        return True


def _bears_the_name(path: Path, name: str, record: Mapping[str, Any]) -> bool:
    """Whether a file still calls itself by the name; one that cannot be read now may."""
    if any(override.partition("=")[0].strip() == "name" for override in record.get("overrides", [])):
        return True
    try:
        data = extended(path).data
    except (AblateError, OSError):
        return True
    own = data.get("name") if isinstance(data, dict) else None
    return not isinstance(own, str) or name in (own, rehearsal_name(own))


def _refusal(store: Store, name: str, path: Path, other: Path) -> str:
    run_at = study_records.last(store.study_folder(name)).stat().st_mtime
    when = f"{datetime.fromtimestamp(run_at):%Y-%m-%d %H:%M}"
    return (
        f"{path} has the name of another study: {name!r} was run here from {other}, last at {when}. Give this one"
        f" another `name:` (or --set name=...); or `ablate run --take-over` lets it have the name: what the other has"
        f" done stays, its report is replaced"
    )
