"""The files that task files of one's own are made of: every one lies in their folder, or is lm-eval's own."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ablate.core.errors import AblateError
from ablate.study.catalog.index import tasks_folder, yaml_files
from ablate.study.catalog.task_data import why_outside
from ablate.study.catalog.taskfile import Plain, in_lists, listed, plainly_read


def files_outside(root: Path) -> Iterator[str]:
    """-> every file that a task file of a folder names and that would be in no key, with what names it.

    Raises AblateError for what cannot be read.
    """
    seen: set[Path] = set()
    for path in yaml_files(root):
        if why := why_outside(path, root):
            yield f"{path} {why}"
            continue
        yield from _of_file(path, root, seen)


def _of_file(path: Path, root: Path, seen: set[Path]) -> Iterator[str]:
    path = path.resolve()
    if path in seen:
        return
    seen.add(path)
    text = plainly_read(path)
    try:
        named = [*_functions(text, path), *_others(yaml.load(text, Loader=_WithoutCode), path)]
    except yaml.YAMLError as error:
        raise AblateError(f"{path}: not a task file that can be read: {error}") from error
    for what, file in named:
        if why := _why_no_part(file, root):
            yield f"{path}: {what} {why}"
    for what, file in named:
        if what.startswith("include") and file.is_file() and not _why_no_part(file, root):
            yield from _of_file(file, root, seen)


class _WithoutCode(Plain):
    """YAML in which functions are nothing."""


_WithoutCode.add_multi_constructor("!", lambda loader, suffix, node: None)


def _functions(text: str, path: Path) -> Iterator[tuple[str, Path]]:
    """-> the Python files that `!function` runs, as lm-eval finds them; what it imports by name is installed."""
    for event in yaml.parse(text, Loader=Plain):
        if getattr(event, "tag", None) == "!function":
            module = str(getattr(event, "value", "")).rpartition(".")[0]
            file = Path(os.path.abspath(path.parent / f"{module.replace('.', '/')}.py"))  # noqa: PTH100
            if os.path.lexists(file):
                yield f"!function {getattr(event, 'value', '')}", file


def _others(config: Any, path: Path) -> Iterator[tuple[str, Path]]:
    for name in listed(config.get("include") if isinstance(config, dict) else None):
        yield f"include: {name}", Path(os.path.abspath(path.parent / name))  # noqa: PTH100
    for one in in_lists(config):
        metric, prompt = one.get("metric"), str(one.get("use_prompt") or "")
        if isinstance(metric, str) and ("/" in metric or metric.endswith(".py")):
            yield f"metric: {metric}", Path(os.path.abspath(path.parent / metric))  # noqa: PTH100
        if ".yaml" in prompt:
            file = prompt.partition(":")[0]
            yield f"use_prompt: {prompt}", Path(file) if Path(file).is_absolute() else Path("/", file)


def _why_no_part(file: Path, root: Path) -> str | None:
    """-> why a file is none of the folder's, nor of lm-eval's, whose version is in every key."""
    if tasks_folder().resolve() in Path(os.path.realpath(file)).parents:
        return None
    if why := why_outside(file, root):
        return why
    return None if file.is_file() else f"is not there (looked for {file})"
