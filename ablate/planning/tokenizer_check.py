"""Whether teachers and students cut text alike, and have the chat templates asked for; known once they are here."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ablate.core.errors import Problem, StudyError
from ablate.data.tokenizers import compare, load_tokenizer, size
from ablate.planning.plan import Plan
from ablate.stages.distill import DISTILL, teachers_of
from ablate.store.fetched import model_path
from ablate.store.manifest import read_sound
from ablate.store.stage import Stage
from ablate.study.chat_templates import DEFAULT, chat_templates, dated, lacking, template_names, unheard
from ablate.study.training_recipes import losses_across_tokenizers


def require_equal_tokenizers(plan: Plan) -> None:
    """Raises StudyError, naming both models, when a teacher and its student cut text into other tokens.

    Where the loss compares texts it is enough that both tokenizers say what their tokens stand for.
    """
    pairs = {
        (stage.inputs[teacher], stage.inputs["student"], DISTILL.settings_of(stage).recipe.loss.crosses_tokenizers)
        for stage in (cell.trained for cell in plan.cells)
        if stage and "teacher" in stage.inputs
        for teacher in teachers_of(stage)
    }
    problems = [problem for pair in pairs for problem in _differences(plan, *pair)]
    problems += _set_apart(plan)
    if problems:
        raise StudyError(sorted(problems, key=str))


def _set_apart(plan: Plan) -> set[Problem]:
    """-> distillations whose teacher's own rows cannot be set beside their student's, the same text in both."""
    trained = [cell.trained for cell in plan.cells if cell.trained and "teacher_rows" in cell.trained.inputs]
    return {
        Problem(
            None,
            f"{plan.label(stage)}: the templates of student and teacher make {ours.num:,} and {theirs.num:,} texts of"
            " the data, not as many of each conversation, so that they cannot be set side by side: say data.answers:"
            " last, which makes one of each",
        )
        for stage in trained
        for ours, theirs in [[_texts(plan, stage.inputs[name]) for name in ("rows", "teacher_rows")]]
        if ours.num != theirs.num or (ours.each and theirs.each and ours.each != theirs.each)
    }


class _Texts(NamedTuple):
    """What a rows stage made of the data."""

    num: int
    each: str | None
    """Digest of how many of each row, where some are several."""


def _texts(plan: Plan, rows: Stage) -> _Texts:
    summary = read_sound(plan.store.folder(rows), "out/summary.json")
    return _Texts(summary["train"]["rows"] if summary else 0, summary.get("several_texts"))


def _differences(plan: Plan, teacher: Stage, student: Stage, crosses_tokenizers: bool) -> Iterator[Problem]:
    folders = [folder for stage in (teacher, student) if (folder := _model_folder(plan, stage))]
    if len(folders) < 2:
        return
    names = [plan.label(stage).removeprefix("fetch ") for stage in (teacher, student)]
    if crosses_tokenizers:
        yield from (_untold(name) for name, folder in zip(names, folders, strict=True) if size(folder) is None)
    elif differences := compare(*folders):
        yield Problem(
            None,
            f"{' and '.join(names)} have different tokenizers ({'; '.join(differences)}): token by token, one cannot"
            f" teach the other. Choose a student of the teacher's family, or a loss that compares texts: {_ways_out()}",
        )


def _ways_out() -> str:
    first, *others = losses_across_tokenizers()
    return f"`distill: {{loss: {first}}}` in the study (or {' or '.join(others)})"


def _untold(name: str) -> Problem:
    return Problem(
        None,
        f"{name} has no tokenizer.json, which says what its tokens stand for: no loss can align its tokens with another"
        " model's. Save its tokenizer as a fast one (transformers' save_pretrained), or choose another model",
    )


def require_chat_templates(plan: Plan) -> None:
    """Raises StudyError, naming the models, when one is to be asked by a chat template that it does not have.

    Also by one that would not hand on `evaluate.system_instruction`: lm-eval leaves that out then.
    """
    asked: dict[tuple[Stage, bool | str, str | None], None] = {}
    for cell in plan.cells:
        recipe = cell.row.setting.evaluate
        model = cell.evaluate.inputs["model"]
        askings = (recipe.asking(name) for name in recipe.task_names)
        asked |= dict.fromkeys((model, one.apply_chat_template, one.system_instruction) for one in askings)
    problems = [problem for one in asked for problem in _lacking(plan, *one)]
    if problems:
        raise StudyError(sorted(problems, key=str))


def _lacking(plan: Plan, model: Stage, template: bool | str, instruction: str | None) -> Iterator[Problem]:
    folder = _model_folder(plan, model) if template else None
    if folder is None:
        return
    name = plan.label(model).removeprefix("fetch ")
    if why := lacking(template_names(folder), template):
        yield Problem(None, f"evaluate.apply_chat_template: {name} {why}")
    elif instruction and (why := _unheard(folder, template, instruction)):
        yield Problem(None, f"evaluate.system_instruction: the chat template of {name} {why}")


def _unheard(folder: Path, template: bool | str, instruction: str) -> str | None:
    try:
        tokenizer = load_tokenizer(folder)
    except Exception:  # of many libraries, or of Python of its own: the evaluation tells, in its own process
        return None
    named = {name or DEFAULT: text for name, text in chat_templates(folder).items()}
    tokenizer.chat_template = dated(named[template if isinstance(template, str) else DEFAULT])
    return unheard(tokenizer, instruction)


def _model_folder(plan: Plan, fetch: Stage) -> Path | None:
    """-> where a model's tokenizer lies: an adapter's own goes before its base's."""
    folder = model_path(plan.store.folder(fetch))
    if folder and "base" in fetch.inputs and not (folder / "tokenizer_config.json").is_file():
        return _model_folder(plan, fetch.inputs["base"])
    return folder
