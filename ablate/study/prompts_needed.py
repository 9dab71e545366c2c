"""Distillations whose answers are written by a model: what they need of the rows."""

from ablate.study.resolve import Setting
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
