"""Distillations whose answers are written by a model: what they need of the rows and of the models."""

from pathlib import Path

from ablate.core import disk
from ablate.core.model_files import CONFIG
from ablate.study.named_models import with_bases
from ablate.study.resolve import Setting
from ablate.study.schema import TeacherOrStudent
from ablate.study.words import Finding


def promptless(setting: Setting) -> Finding | None:
    """-> that a distillation wants answers to prompts that its rows do not have, at the field that wants them."""
    recipe, data = setting.distill, setting.data
    if recipe.answers != "dataset":
        field, writer = "answers", "teacher" if recipe.answers == "teacher" else "student"
    elif recipe.writes_in_training:
        field, writer = "replay" if recipe.student_fraction == 0 else "student_fraction", "student"
    else:
        return None
    if data.format == "text":
        why = "data.format: text has none; say a format that has (alpaca, chat, prompt_completion)"
    elif data.train_on_prompt:
        why = "with data.train_on_prompt: true a row is one text that is learnt whole; say data.train_on_prompt: false"
    else:
        return None
    return Finding((field,), f"distill.{field}: the {writer} writes answers to the rows' prompts, and {why}")


def unwatched(setting: Setting) -> Finding | None:
    """-> that a share is to rise with the loss of held-out rows, and there are none."""
    recipe = setting.distill
    if recipe.replay is None or recipe.replay.adaptive is None or setting.data.holdout:
        return None
    where = ("method",) if recipe.method else ("replay", "adaptive")
    return Finding(where, "distill.replay.adaptive follows the held-out loss, and data.holdout is 0: say how many rows")


def too_long(setting: Setting) -> Finding | None:
    """-> that an answer may be longer than a model on this disk can read, whatever the prompt."""
    recipe = setting.distill
    writers = {
        "student": setting.student if recipe.writes_in_training else None,
        "teacher": setting.teachers[0].model if recipe.answers in ("teacher", "mixed") else None,
    }
    most = recipe.sampling.max_new_tokens
    for writer, model in writers.items():
        positions = _positions(model) if model else None
        if positions is not None and most >= positions:
            message = (
                f"distill.sampling.max_new_tokens: the {writer} has {positions} positions for a prompt and its answer,"
                f" and an answer may take {most}: say fewer"
            )
            return Finding(("sampling", "max_new_tokens"), message)
    return None


def _positions(model: TeacherOrStudent) -> int | None:
    """-> how long a text a model may read; None where it is not on this disk, or does not tell."""
    weights = Path(with_bases(model)[-1].model)
    config = disk.read_json(weights / CONFIG) if weights.is_absolute() else None
    if not isinstance(config, dict):
        return None
    positions = config.get("text_config", config).get("max_position_embeddings", config.get("n_positions"))
    return positions if isinstance(positions, int) else None
