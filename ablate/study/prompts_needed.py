"""Distillations whose answers are written by a model: they need rows that say what is a prompt."""

from ablate.study.resolve import Setting
from ablate.study.words import Finding


def promptless(setting: Setting) -> Finding | None:
    """-> that a distillation wants answers to prompts that its rows lack, at the field that asks for them."""
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
