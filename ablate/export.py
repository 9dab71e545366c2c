"""Writes one cell's model as an ordinary folder, exactly as it was evaluated, with a model card."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ablate.core import disk
from ablate.core.errors import AblateError
from ablate.core.model_files import beside_weights
from ablate.core.values import identity
from ablate.planning.plan import Cell, Plan
from ablate.results.asking_text import SAID, questions_text, ways
from ablate.stages.evaluate import trainings_of
from ablate.stages.inputs import FetchedModel, fetched_model, model_source
from ablate.store.kind import KINDS
from ablate.store.manifest import read_sound
from ablate.store.stage import Stage
from ablate.study.quantize import Quantize

QUANTIZED: Mapping[Quantize, str] = {
    "nf4": "4 bits a weight, a scale for each 64",
    "int8": "8 bits a weight, a scale for each output",
}
_WORDS = {"model": "model", "dataset": "data", "tasks": "questions"}


def export_cell(plan: Plan, cell: Cell, dest: Path) -> None:
    """Merges what the cell trained into its base model, in the dtype of its evaluation, and writes it to `dest`.

    Raises AblateError when `dest` has something in it, or when the cell's model is not made yet or diverged.
    """
    _require_empty(dest)
    _require_model(plan, cell)
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


def _require_model(plan: Plan, cell: Cell) -> None:
    for name, stage in cell.evaluate.inputs.items():
        if name == "model" or name.startswith("adapter_"):
            _require_done(plan, cell, stage)


def _require_done(plan: Plan, cell: Cell, stage: Stage) -> None:
    label = plan.label(stage)
    if plan.store.done(stage) is None:
        raise AblateError(f"{cell.name} is not made yet: {label} ({stage.folder}) lacks; run the study first")
    if diverged := plan.store.diverged(stage):
        raise AblateError(f"{cell.name} has no model: {label} {diverged}")


def _write_model(plan: Plan, cell: Cell, folder: Path) -> None:
    from ablate.training.quantized import dequantize
    from ablate.training.tensor_checks import require_saved

    inputs = {name: plan.store.folder(stage) for name, stage in cell.evaluate.inputs.items()}
    base = fetched_model(inputs["model"])
    source = model_source(inputs["model"], trainings_of(inputs), _quantize(cell))
    model = source.load(_dtype(cell), "cpu", plan.store.checks).model
    dequantize(model)
    model.save_pretrained(folder)
    require_saved(model, folder)
    for path in folder.glob("*.safetensors"):
        path.chmod((folder / "config.json").stat().st_mode)  # save_pretrained leaves them to the owner alone
    _copy_beside(base, folder)


def _copy_beside(base: FetchedModel, folder: Path) -> None:
    """A model's files that are no weights: its tokenizer, its templates, its code where that is trusted."""
    code = ("*.py",) if base.weights.trust_remote_code else ()
    for path in beside_weights(base.weights.path, base.tokenizer, *code):
        shutil.copyfile(path, folder / path.name)


# the model card


def _card(plan: Plan, cell: Cell) -> Iterator[str]:
    """-> lines."""
    title = plan.study.title or plan.study.name
    yield _front_matter(cell)
    yield f"# {cell.row.label}"
    yield f'\nCell `{plan.study.name}:{cell.name}` of the study "{title}", written by ablate.\n'
    yield "## How it was made\n"
    for stage in dict.fromkeys(cell.evaluate.walk()):
        if _is_of_the_model(stage):
            yield f"- {_lineage_line(plan, stage)}"
    yield f"\nAdapters are merged in that order, the weights are {_dtype(cell)}: this is the model that was evaluated."
    if quantize := _quantize(cell):
        yield (
            f"\nThe weights that it was made from were kept in {quantize} ({QUANTIZED[quantize]}): here they are the"
            f" numbers that these stand for, in {_dtype(cell)}, with all that was trained on top of them."
        )
    yield "\n## Scores\n"
    yield from _scores(plan, cell)


def _front_matter(cell: Cell) -> str:
    """-> what the hub reads at the top of a model card, as YAML between two rules."""
    model = cell.evaluate.inputs["model"]
    repo = getattr(model.inputs.get("model", model).settings, "repo", None)  # what it was cut from, if it was
    head = {"library_name": "transformers", "tags": ["ablate", "knowledge-distillation"]}
    return "---\n" + yaml.safe_dump(head | ({"base_model": repo} if repo else {})) + "---"


def _is_of_the_model(stage: Stage) -> bool:
    """Whether a stage brought the model, cut it or trained it: not one that prepared rows, or asked questions."""
    kind = KINDS[stage.kind]
    return not (kind.is_named_by_content or kind.is_verdict)


def _lineage_line(plan: Plan, stage: Stage) -> str:
    if KINDS[stage.kind].is_online:
        return _source(stage.settings.model_dump())
    settings = _flat(identity(stage.settings)).items()
    listed = ", ".join(f"{name} {value}" for name, value in settings if value is not None)
    return f"{plan.label(stage)} (`{stage.folder}`): {listed}"


def _source(fetch: Mapping[str, Any]) -> str:
    """-> which model or data a fetch stage brought here, and which version of it."""
    version = f"at revision {fetch['revision']}" if fetch["repo"] else f"with content {str(fetch['sha256'])[:12]}"
    return f"{_WORDS[fetch['repo_type']]} {fetch['repo'] or Path(fetch['path']).name} {version}"


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """{recipe: {lora: {rank: 8}}} -> {lora.rank: 8}."""
    leaves: dict[str, Any] = {}
    for name, value in settings.items():
        path = name if not above or above == "recipe" else f"{above}.{name}"
        leaves |= _flat(value, path) if isinstance(value, dict) else {path: value}
    return leaves


def _dtype(cell: Cell) -> str:
    return str(cell.evaluate.settings.recipe.dtype)  # type: ignore[attr-defined]


def _quantize(cell: Cell) -> Quantize | None:
    return cell.evaluate.settings.quantize  # type: ignore[attr-defined, no-any-return]


def _scores(plan: Plan, cell: Cell) -> Iterator[str]:
    results = read_sound(plan.store.folder(cell.evaluate), "out/results.json")
    if not results.get("tasks"):
        yield "Not evaluated yet."
        return
    limit = [questions_text(results["limit"])] if results["limit"] else []
    how = "".join(f", {way}" for way in [*limit, *ways({name: results[name] for name in SAID if name in results})])
    yield f"lm-eval {results['lm_eval']}, batch size {results['batch_size']}{how}.\n"
    yield "| task | metric | value | stderr | questions |\n|---|---|---|---|---|"
    for name, task in results["tasks"].items():
        for metric, score in task["metrics"].items():
            yield f"| {name}{_asked(task)} | {metric} | {score['value']} | {score['stderr']} | {task['n']} |"


def _asked(task: Mapping[str, Any]) -> str:
    words = ", ".join(ways(task.get("asked", {})))
    return f" ({words})" if words else ""
