"""Whether the models of a plan have the modules and layers that its trainings name; known once they are here."""

from collections.abc import Iterator
from pathlib import Path

from ablate.core.errors import Problem, StudyError
from ablate.planning.plan import Plan
from ablate.store.fetched import model_path
from ablate.store.stage import Stage
from ablate.study.local_features import feature_fault
from ablate.study.local_modules import module_findings
from ablate.study.training_recipes import Lora


def require_modules(plan: Plan) -> None:
    """Raises StudyError, naming each model, when an adapter is for a module that the model lacks."""
    asked = dict.fromkeys(_trained_by(plan))
    problems = dict.fromkeys(problem for lora, fetch in asked for problem in _problems(plan, lora, fetch))
    if problems:
        raise StudyError(sorted(problems, key=str))


def require_layers(plan: Plan) -> None:
    """Raises StudyError, naming both models, when hidden states cannot be compared as a distillation says."""
    problems = dict.fromkeys(problem for stage in plan.stages for problem in _layer_problems(plan, stage))
    if problems:
        raise StudyError(sorted(problems, key=str))


def _layer_problems(plan: Plan, stage: Stage) -> Iterator[Problem]:
    features = getattr(getattr(stage.settings, "recipe", None), "features", None)
    if features is None:
        return
    models = [stage.inputs[role] for role in ("teacher", "student")]
    folders = [folder for model in models if (folder := _weights_folder(plan, model))]
    if len(folders) == len(models) and (fault := feature_fault(features, *folders)):
        teacher, student = (plan.label(model).removeprefix("fetch ") for model in models)
        yield Problem(None, f"distill.features.{fault[0]}, from {teacher} to {student}: {fault[1]}")


def _weights_folder(plan: Plan, fetch: Stage) -> Path | None:
    """-> where a model's weights lie; of an adapter its base's."""
    if "base" in fetch.inputs:
        return _weights_folder(plan, fetch.inputs["base"])
    return model_path(plan.store.folder(fetch))


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
