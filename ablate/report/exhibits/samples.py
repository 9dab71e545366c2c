"""What models wrote: each row's answers to the same prompts, and how a row's answers changed over its training."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ablate.report.exhibits.base import EXHIBITS, Piece
from ablate.report.formatting import listed, number, plural, recipe_label
from ablate.report.markup import render
from ablate.report.model_text import Part, one_line, parts, shortened, shortened_prompt, visible
from ablate.report.spreadsheet import to_csv
from ablate.report.words import say
from ablate.results.collect import AblationResult, CellResult, Results, RowResult
from ablate.results.kept_answers import (
    AskedPrompt,
    Course,
    TeachersAnswers,
    WrittenAnswer,
    courses,
    side_by_side,
    teachers_answers,
)
from ablate.results.task_texts import AskedQuestion, QuestionText, asked_questions

MOST_PROMPTS = 6
MOST_OF_TEACHERS = 3
PLACES = 3


class Text(NamedTuple):
    """What a model was asked, or wrote."""

    parts: list[Part]
    line: str
    """The same on one line."""


class Line(NamedTuple):
    """One answer, as shown."""

    label: str
    prompt: Text | None
    """Where the card's lines have none in common."""
    answer: Text
    more: str
    """How much of it is not shown."""
    num_tokens: str
    tokens: str
    """`1,500 tokens`."""
    is_cut: bool
    """It had not ended when its tokens were used up."""
    logprob: str
    scores: str = ""
    """`arrives 1`: of a task's question."""


class Card(NamedTuple):
    """Answers that belong together."""

    title: str
    head: str
    """Of the column of labels."""
    prompt: Text | None
    lines: list[Line]

    @property
    def has_logprobs(self) -> bool:
        """Whether a teacher was asked of some answer."""
        return any(line.logprob for line in self.lines)

    @property
    def has_scores(self) -> bool:
        """Whether the answers are a task's."""
        return any(line.scores for line in self.lines)


@EXHIBITS.register("samples", order=125)
def samples(results: Results, ablation: AblationResult) -> Piece | None:
    """-> cards folded up in the page, and tables/<ablation>-samples.csv with whole texts; None where none was kept."""
    store = results.plan.store
    asked = side_by_side(store, ablation, MOST_PROMPTS)
    changes = courses(store, ablation)
    beforehand = teachers_answers(store, ablation, MOST_OF_TEACHERS)
    questions = list(asked_questions(ablation, MOST_PROMPTS))
    prompts = [_asked_card(one, _title(one, at, len(asked))) for at, one in enumerate(asked, 1)]
    folds = [
        *_fold(say("answers_kept.questions"), [_question_card(one) for one in questions]),
        *_fold(say("answers_kept.prompts", prompts=plural(len(asked), "prompt")), prompts),
        *_fold(say("answers_kept.changes"), [_course_card(course) for course in changes]),
        *_fold(say("answers_kept.beforehand"), [_teachers_card(one) for one in beforehand]),
    ]
    if not folds:
        return None
    file = f"tables/{ablation.name}-samples.csv"
    note = " ".join([say("answers_kept.note"), *_without(ablation, asked)])
    html, markdown = (
        render(template, title=ablation.title, folds=folds, file=file, note=note)
        for template in ("samples.html", "samples.md")
    )
    return Piece(html, markdown, {file: to_csv([*_csv(asked, changes, beforehand), *_of_tasks(questions)]).encode()})


def _without(ablation: AblationResult, asked: Sequence[AskedPrompt]) -> Iterator[str]:
    """-> which rows are not beside the others, where some are."""
    known = {id(one.row) for prompt in asked for one in prompt.answers}
    labels = [row.row.label for row in ablation.rows if row.row.model == "distill" and id(row) not in known]
    if asked and labels:
        yield say("answers_kept.without", rows=listed(labels))


def _fold(summary: str, cards: list[Card]) -> Iterator[tuple[str, list[Card]]]:
    if cards:
        yield summary, cards


def _title(asked: AskedPrompt, number: int, total: int) -> str:
    is_held_out = asked.answers[0].answer.split == "holdout"
    return say("answers_kept.held_out" if is_held_out else "answers_kept.prompt", num=number, all=total)


def _asked_card(asked: AskedPrompt, title: str) -> Card:
    lines = [_line(f"{one.row.row.label}{_seed(one.row, one.cell)}", one.answer) for one in asked.answers]
    return Card(title, "Model", _prompt(asked.prompt), lines)


def _question_card(question: AskedQuestion) -> Card:
    lines = [
        _line(f"{one.row.row.label}{_seed(one.row, one.cell)}", _answer_of(question, one))._replace(
            scores=", ".join(f"{name} {number(value, 2)}" for name, value in one.scores.items())
        )
        for one in question.texts
    ]
    return Card(f"{question.task}, right: {visible(question.target)}", "Model", _prompt(question.asked), lines)


def _answer_of(question: AskedQuestion, one: QuestionText) -> WrittenAnswer:
    text = {"answer": one.text, "num_tokens": one.num_tokens, "ended": one.has_ended}
    return WrittenAnswer(row=0, split=question.task, prompt=question.asked, **text)


def _course_card(course: Course) -> Card:
    title = f"{recipe_label(course.row.row.label)}{_seed(course.row, course.cell)}"
    return _steps_card(title, course.answers)


def _teachers_card(beforehand: TeachersAnswers) -> Card:
    return _steps_card(f"For {listed(recipe_label(row.row.label) for row in beforehand.rows)}", beforehand.answers)


def _steps_card(title: str, answers: Sequence[WrittenAnswer]) -> Card:
    """A line a step; each with its prompt, where they have none in common."""
    is_shared = len({answer.prompt for answer in answers}) == 1
    lines = [_line(_step(answer), answer, has_prompt=not is_shared) for answer in answers]
    return Card(title, "Step", _prompt(answers[0].prompt) if is_shared else None, lines)


def _step(answer: WrittenAnswer) -> str:
    """`step 40`, `step 40, mixed`: who wrote it, where that was not the student alone."""
    writer = "" if answer.writer == "student" else f", {visible(answer.writer)}"
    return f"step {answer.step:,}{writer}" if answer.step else "beforehand"


def _seed(row: RowResult, cell: CellResult) -> str:
    return f", seed {cell.cell.seed}" if len(row.cells) > 1 else ""


def _line(label: str, answer: WrittenAnswer, *, has_prompt: bool = False) -> Line:
    text, more = shortened(answer.answer)
    return Line(
        label,
        _prompt(answer.prompt) if has_prompt else None,
        _text(text),
        more,
        f"{answer.num_tokens:,}",
        "1 token" if answer.num_tokens == 1 else f"{answer.num_tokens:,} tokens",
        not answer.ended,
        "" if answer.teacher_logprob is None else number(answer.teacher_logprob, PLACES),
    )


def _prompt(text: str) -> Text:
    return _text(shortened_prompt(text))


def _text(text: str) -> Text:
    return Text(parts(text), one_line(text))


def _csv(
    asked: Sequence[AskedPrompt], changes: Sequence[Course], beforehand: Sequence[TeachersAnswers]
) -> Iterator[list[object]]:
    fields = ("data row" if name == "row" else name for name in WrittenAnswer.model_fields)
    yield ["kept", "row", "seed", *fields]
    for prompt in asked:
        for one in prompt.answers:
            yield ["at the end", one.row.row.name, one.cell.cell.seed, *_fields(one.answer)]
    for course in changes:
        for answer in course.answers:
            yield ["on the way", course.row.row.name, course.cell.cell.seed, *_fields(answer)]
    for one_teacher in beforehand:
        for answer in one_teacher.answers:
            yield ["beforehand", listed(row.row.name for row in one_teacher.rows), None, *_fields(answer)]


def _of_tasks(questions: Sequence[AskedQuestion]) -> Iterator[list[object]]:
    for question in questions:
        for one in question.texts:
            yield ["of a task", one.row.row.name, one.cell.cell.seed, *_fields(_answer_of(question, one))]


def _fields(answer: WrittenAnswer) -> Iterator[object]:
    for value in answer.model_dump().values():
        yield visible(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else value
