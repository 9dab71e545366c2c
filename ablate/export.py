"""Writes one cell's model as an ordinary folder, exactly as it was evaluated, with a model card."""

import shutil
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from ablate.core import disk
from ablate.core.errors import AblateError
from ablate.core.values import identity
from ablate.planning.plan import Cell, Plan
from ablate.stages.evaluate import adapters_of
from ablate.stages.inputs import fetched
from ablate.store.manifest import read_sound
from ablate.store.stage import Stage

_KEPT = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model", "*.tiktoken",
    "*.jinja", "chat_template*", "generation_config.json",
)  # fmt: skip
"""Files of the base model that go along as they are."""
_WORDS = {"model": "model", "dataset": "data", "tasks": "questions"}


def export_cell(plan: Plan, cell: Cell, dest: Path) -> None:
    """Merges what the cell trained into its base model, in the dtype of its evaluation, and writes it to `dest`.

    Raises AblateError when `dest` has something in it, or when the cell's model is not made yet or diverged.
    """
    _require_empty(dest)
    stages = [stage for name, stage in cell.evaluate.inputs.items() if name == "model" or name.startswith("adapter_")]
    for stage in stages:
        _require_made(plan, cell, stage)
    part = dest.absolute().with_name(f".{dest.name}.part")
    disk.remove_tree(part)
    try:
        part.mkdir(parents=True)
        _write_model(plan, cell, part)
        disk.write(part / "README.md", "".join(f"{line}\n" for line in _card(plan, cell)))
        disk.rename(part, dest.absolute())
    except OSError as error:
        raise AblateError(f"{dest} cannot be written: {error}") from error
    finally:
        disk.remove_tree(part)


def _require_empty(dest: Path) -> None:
    if dest.exists() and not dest.is_dir():
        raise AblateError(f"{dest} is a file: give a new or an empty folder")
    if dest.is_dir() and any(dest.iterdir()):
        raise AblateError(f"{dest} has something in it: give a new or an empty folder")


def _require_made(plan: Plan, cell: Cell, stage: Stage) -> None:
    if plan.store.done(stage) is None:
        raise AblateError(
            f"{cell.name} is not made yet: {plan.label(stage)} ({stage.folder}) lacks; run the study first"
        )
    if diverged := plan.store.diverged(stage):
        raise AblateError(f"{cell.name} has no model: {plan.label(stage)} {diverged}")


def _write_model(plan: Plan, cell: Cell, folder: Path) -> None:
    from ablate.training.models import load_merged

    inputs = {name: plan.store.folder(stage) for name, stage in cell.evaluate.inputs.items()}
    base = fetched(inputs["model"])
    merged = load_merged(base.path, adapters_of(inputs), _dtype(cell), trust_remote_code=base.trust_remote_code)
    merged.model.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.chmod((folder / "config.json").stat().st_mode)  # save_pretrained leaves them to the owner alone
    kept = (*_KEPT, "*.py") if base.trust_remote_code else _KEPT
    for path in base.path.iterdir():
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in kept):
            shutil.copyfile(path, folder / path.name)


# the model card


def _card(plan: Plan, cell: Cell) -> Iterator[str]:
    base = cell.evaluate.inputs["model"].settings
    repo = getattr(base, "repo", None)
    head = {"library_name": "transformers", "tags": ["ablate", "knowledge-distillation"]}
    yield "---\n" + yaml.safe_dump(head | ({"base_model": repo} if repo else {})) + "---"
    yield f"# {cell.row.label}"
    title = plan.study.title or plan.study.name
    yield f'\nCell `{plan.study.name}:{cell.name}` of the study "{title}", written by ablate.\n'
    yield "## How it was made\n"
    for stage in dict.fromkeys(cell.evaluate.walk()):
        if stage.kind not in ("rows", "evaluate"):
            yield f"- {_made(plan, stage)}"
    yield f"\nAdapters are merged in that order, the weights are {_dtype(cell)}: this is the model that was evaluated."
    yield "\n## Scores\n"
    yield from _scores(plan, cell)


def _made(plan: Plan, stage: Stage) -> str:
    settings = stage.settings
    if stage.kind == "fetch":
        said = settings.model_dump()
        where = f"at revision {said['revision']}" if said["repo"] else f"with content {str(said['sha256'])[:12]}"
        return f"{_WORDS[said['repo_type']]} {said['repo'] or Path(said['path']).name} {where}"
    told = ", ".join(f"{name} {value}" for name, value in _flat(identity(settings)).items() if value is not None)
    return f"{plan.label(stage)} (`{stage.folder}`): {told}"


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """{recipe: {lora: {rank: 8}}} -> {lora.rank: 8}."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        path = name if not above or above == "recipe" else f"{above}.{name}"
        found |= _flat(value, path) if isinstance(value, dict) else {path: value}
    return found


def _dtype(cell: Cell) -> str:
    return str(cell.evaluate.settings.recipe.dtype)  # type: ignore[attr-defined]


def _scores(plan: Plan, cell: Cell) -> Iterator[str]:
    results = read_sound(plan.store.folder(cell.evaluate), "out/results.json")
    if not results.get("tasks"):
        yield "Not evaluated yet."
        return
    limit = f", the first {results['limit']} questions of each task" if results["limit"] else ""
    yield f"lm-eval {results['lm_eval']}, batch size {results['batch_size']}{limit}.\n"
    yield "| task | metric | value | stderr | questions |\n|---|---|---|---|---|"
    for task, of in results["tasks"].items():
        for metric, score in of["metrics"].items():
            yield f"| {task} | {metric} | {score['value']} | {score['stderr']} | {of['n']} |"
