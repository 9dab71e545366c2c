"""A model as a study names it: a folder or repository of weights, or an adapter and the base it is merged on."""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ablate.core.hub import is_hub_id
from ablate.core.model_faults import faults
from ablate.core.model_files import ADAPTER_CONFIG, ModelFiles, files_of
from ablate.study.local import as_said, shipped
from ablate.study.schema import TeacherOrStudent
from ablate.study.words import Finding

MAX_CHAIN = 8
"""Adapters on top of each other."""


def named(ref: TeacherOrStudent) -> tuple[str, str | None, str | None, bool]:
    """-> all that says which model it is."""
    return ref.model, ref.revision, ref.base, ref.trust_remote_code


def with_bases(ref: TeacherOrStudent) -> tuple[TeacherOrStudent, ...]:
    """-> the model, the base that it is merged on if it is an adapter, the base of that, and so on."""
    chain = [ref]
    while (base := base_of(chain[-1])) and len(chain) <= MAX_CHAIN:
        chain.append(base)
    return tuple(chain)


def base_of(ref: TeacherOrStudent) -> TeacherOrStudent | None:
    """-> what an adapter is merged on, as `base` or else its own adapter_config.json says.

    None for full weights, where no base is told, and for an adapter on the hub without `base`: what it is, is not
    known before it is fetched.
    """
    files, trusted = _files(ref), ref.trust_remote_code
    if ref.base and (files is None or files.is_adapter):
        return TeacherOrStudent(model=ref.base, trust_remote_code=trusted)
    stated, revision = _stated(files) if files and files.is_adapter else (None, None)
    name = _located(stated, Path(ref.model)) if stated else None
    if name is None:
        return None
    revision = None if os.path.isabs(name) else revision  # noqa: PTH117
    return TeacherOrStudent(model=name, revision=revision, trust_remote_code=trusted)


def model_findings(ref: TeacherOrStudent) -> Iterator[Finding]:
    """-> why a model that lies on this machine cannot be loaded; nothing of one on the hub, which is not here yet."""
    files = _files(ref)
    if ref.base and files and not files.is_adapter:
        yield Finding(
            ("base",), "base: only an adapter is merged on a base, and this model has weights of its own", True
        )
    if not Path(ref.model).is_absolute():
        return
    if ref.revision is not None:
        yield Finding(("revision",), "revision: a folder on this disk has none", True)
    if files:
        yield from (Finding(("model",), f"model: {why}") for why in _faults(ref, files))


def adapter_notes(ref: TeacherOrStudent) -> Iterator[str]:
    """-> what a reader should know of a model's folder: how an adapter is used, or that it is not."""
    files, base = _files(ref), base_of(ref)
    if base:
        at = f" at revision {base.revision}" if base.revision else ""
        yield f"{as_said(ref.model)} is an adapter: it is merged on {as_said(base.model)}{at}"
    elif files and files.has_stray_adapter:
        yield f"{as_said(ref.model)} has an adapter beside its weights, and that is not used"


def _faults(ref: TeacherOrStudent, files: ModelFiles) -> Iterator[str]:
    if reasons := _known_faults(ref):
        yield f"{ref.model} holds no model that can be loaded: {'; '.join(reasons)}"
    if not files.is_adapter:
        return
    base = base_of(ref)
    if base is None:
        yield f"{ref.model} is an adapter, and {_no_base(files)}: say `base:` beside model"
    elif len(with_bases(ref)) > MAX_CHAIN:
        yield f"{ref.model} is an adapter whose base leads back to itself"
    else:
        yield from (finding.message.removeprefix("model: ") for finding in model_findings(base))


def _no_base(files: ModelFiles) -> str:
    stated, _ = _stated(files)
    if not stated:
        return f"its {ADAPTER_CONFIG} names no base_model_name_or_path"
    return f"the base that its {ADAPTER_CONFIG} names is not here, nor the id of a repository: {stated!r}"


def _stated(files: ModelFiles) -> tuple[str | None, str | None]:
    """-> base and its revision, by an adapter's own file."""
    config = files.json(ADAPTER_CONFIG)
    config = config if isinstance(config, dict) else {}
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    return base if isinstance(base, str) else None, revision if isinstance(revision, str) else None


def _located(name: str, adapter: Path) -> str | None:
    """-> the base as a path: of what ships with ablate, relative to the adapter or to the folder that it is in."""
    if name.startswith("builtin:"):
        return str(path) if (path := shipped(name)) else None
    for above in (adapter, adapter.parent):
        path = Path(os.path.abspath(above / name))  # noqa: PTH100 (links are kept)
        if path.is_dir() and path != adapter:
            return str(path)
    return name if is_hub_id(name) else None


def _files(ref: TeacherOrStudent) -> ModelFiles | None:
    folder = Path(ref.model)
    return files_of(folder) if folder.is_absolute() and folder.is_dir() else None


def _known_faults(ref: TeacherOrStudent) -> tuple[str, ...]:
    folder = Path(ref.model)
    stamp = tuple(sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()))
    return _faults_of(folder, stamp, ref.trust_remote_code)


@cache
def _faults_of(folder: Path, stamp: tuple[tuple[str, int], ...], trust_remote_code: bool) -> tuple[str, ...]:
    """Each folder is read once as long as no file of it changes: a study names a model in many cells."""
    return tuple(faults(files_of(folder), trust_remote_code=trust_remote_code))
