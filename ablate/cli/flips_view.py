"""What `compare --flips` prints: questions that one of two rows has right and the other wrong."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console

from ablate.cli.console import print_plainly, printable
from ablate.report.formatting import number, short
from ablate.report.metric_names import metric_name
from ablate.report.model_text import one_line
from ablate.report.words import say
from ablate.results.flips import Flip, Option, TaskFlips, task_flips
from ablate.results.question_scores import NotComparable
from ablate.results.shown_pairs import Pair
from ablate.results.two_rows import NamedRow, Pairing

LONGEST_QUESTION, LONGEST_CHOICE = 200, 80


def flips_between(one: NamedRow, other: NamedRow, shared: Sequence[Pairing]) -> Iterator[TaskFlips]:
    """-> of each task whose answers are right or wrong, under the first seed that both have."""
    for task in dict.fromkeys(pairing.metric.task for pairing in shared if pairing.contrast):
        try:
            yield task_flips(one.ablation, Pair(one.row, other.row, is_own=False), task)
        except NotComparable:
            continue  # its scores are shares: there is nothing to flip


def flip_records(flips: Sequence[TaskFlips], most: int) -> list[dict[str, Any]]:
    """-> for --json."""
    return [
        {"task": one.metric.task, "metric": one.metric.name, "won": flip.is_won}
        | flip._asdict()
        | {"options": [option._asdict() for option in flip.options]}
        for one in flips
        for flip in chosen(one, most)
    ]


def print_flips(console: Console, one: NamedRow, flips: Sequence[TaskFlips], most: int) -> None:
    for task in flips:
        name = metric_name(task.metric, one.ablation.columns)
        print_plainly(console, "\n" + say("terminal.flips", metric=name, won=task.num_won, lost=task.num_lost))
        for flip in chosen(task, most):
            print_plainly(console, printable("\n".join(_lines(flip))))
    if not flips:
        print_plainly(console, "\n" + say("terminal.no_flips"))


def chosen(task: TaskFlips, most: int) -> list[Flip]:
    """-> won and lost ones in turn, those first whose right answer's log-probability differs the most."""
    sides = [[flip for flip in task.shown if flip.is_won is is_won] for is_won in (True, False)]
    places = range(max(map(len, sides)))
    return [side[place] for place in places for side in sides if place < len(side)][:most]


def _lines(flip: Flip) -> Iterator[str]:
    question = flip.question or ""
    end = question if len(question) <= LONGEST_QUESTION else f"… {question[-LONGEST_QUESTION:]}"
    text = f": {one_line(end)}" if end else ""
    yield say("terminal.flip_won" if flip.is_won else "terminal.flip_lost", id=flip.doc_id, question=text)
    yield from (f"    {_option(option)}" for option in flip.options)


def _option(option: Option) -> str:
    text = say("samples.choice", number=option.number + 1) if option.text is None else one_line(option.text.strip())
    plus, minus = (number(value, 2) for value in option.logprobs)
    sentence = "terminal.right" if option.is_right else "terminal.wrong"
    return say(sentence, text=short(text, LONGEST_CHOICE), plus=plus, minus=minus)
