"""Whether teachers and students of a plan cut text into the same tokens; known once their models are here."""

from collections.abc import Iterator
from pathlib import Path

from ablate.core.errors import Problem, StudyError
from ablate.data.tokenizers import compare
from ablate.planning.plan import Plan
from ablate.store.fetched import fetched_path
from ablate.store.manifest import read_sound
from ablate.store.stage import Stage


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


def _model_folder(plan: Plan, fetch: Stage) -> Path | None:
    """-> where a model's tokenizer lies: an adapter's own goes before its base's."""
    manifest = read_sound(plan.store.folder(fetch), "out/manifest.json")
    folder = fetched_path(manifest) if manifest else None
    if folder and "base" in fetch.inputs and not (folder / "tokenizer_config.json").is_file():
        return _model_folder(plan, fetch.inputs["base"])
    return folder
