"""Whether the models of a plan have the modules that its trainings name; known once they are here."""

from collections.abc import Iterator

from ablate.core.errors import Problem, StudyError
from ablate.planning.plan import Plan
from ablate.store.fetched import model_path
from ablate.store.stage import Stage
from ablate.study.local_modules import module_findings
from ablate.study.training_recipes import Lora


def require_modules(plan: Plan) -> None:
    """Raises StudyError, naming each model, when an adapter is for a module that the model lacks."""
    asked = dict.fromkeys(_trained_by(plan))
    problems = dict.fromkeys(problem for lora, fetch in asked for problem in _problems(plan, lora, fetch))
    if problems:
        raise StudyError(sorted(problems, key=str))


def _trained_by(plan: Plan) -> Iterator[tuple[Lora, Stage]]:
    """-> each way in which a model gets an adapter, with the stage that fetches the model."""
    for stage in plan.stages:
        recipe = getattr(stage.settings, "recipe", None)
        fetch = stage.inputs.get("student", stage.inputs.get("model"))
        if fetch is not None and isinstance(lora := getattr(recipe, "lora", None), Lora):
            yield lora, fetch


def _problems(plan: Plan, lora: Lora, fetch: Stage) -> Iterator[Problem]:
    folder = model_path(plan.store.folder(fetch))
    if folder is None:
        return
    name = plan.label(fetch).removeprefix("fetch ")
    for field, message in module_findings(lora, folder, name):
        yield Problem(None, f"lora.{field}: {message}")
