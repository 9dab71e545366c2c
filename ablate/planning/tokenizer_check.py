"""Whether teachers and students cut text alike, and have the chat templates asked for; known once they are here."""

from collections.abc import Iterator
from pathlib import Path

from ablate.core.errors import Problem, StudyError
from ablate.data.tokenizers import compare
from ablate.planning.plan import Plan
from ablate.store.fetched import fetched_path
from ablate.store.manifest import read_sound
from ablate.store.stage import Stage
from ablate.study.chat_templates import lacking, template_names


def require_equal_tokenizers(plan: Plan) -> None:
    """Raises StudyError, naming both models, when a teacher and its student cut text into other tokens."""
    pairs = {
        (cell.trained.inputs["teacher"], cell.trained.inputs["student"])
        for cell in plan.cells
        if cell.trained and "teacher" in cell.trained.inputs
    }
    problems = [problem for pair in pairs for problem in _differences(plan, *pair)]
    if problems:
        raise StudyError(sorted(problems, key=str))


def _differences(plan: Plan, teacher: Stage, student: Stage) -> Iterator[Problem]:
    folders = [_model_folder(plan, stage) for stage in (teacher, student)]
    if None in folders:
        return
    differences = compare(*(folder for folder in folders if folder))
    if differences:
        names = " and ".join(plan.label(stage).removeprefix("fetch ") for stage in (teacher, student))
        yield Problem(
            None,
            f"{names} have different tokenizers ({'; '.join(differences)}): token by token, one cannot teach the"
            " other. Choose a student of the teacher's family",
        )


def require_chat_templates(plan: Plan) -> None:
    """Raises StudyError, naming the models, when one is to be asked by a chat template that it does not have."""
    asked: dict[tuple[Stage, bool | str], None] = {}
    for cell in plan.cells:
        recipe = cell.row.setting.evaluate
        model = cell.evaluate.inputs["model"]
        asked |= dict.fromkeys((model, recipe.asking(name).apply_chat_template) for name in recipe.task_names)
    problems = [problem for model, template in asked for problem in _lacking(plan, model, template)]
    if problems:
        raise StudyError(sorted(problems, key=str))


def _lacking(plan: Plan, model: Stage, template: bool | str) -> Iterator[Problem]:
    folder = _model_folder(plan, model) if template else None
    if folder and (why := lacking(template_names(folder), template)):
        name = plan.label(model).removeprefix("fetch ")
        yield Problem(None, f"evaluate.apply_chat_template: {name} {why}")


def _model_folder(plan: Plan, fetch: Stage) -> Path | None:
    """-> where a model's tokenizer lies: an adapter's own goes before its base's."""
    manifest = read_sound(plan.store.folder(fetch), "out/manifest.json")
    folder = fetched_path(manifest) if manifest else None
    if folder and "base" in fetch.inputs and not (folder / "tokenizer_config.json").is_file():
        return _model_folder(plan, fetch.inputs["base"])
    return folder
