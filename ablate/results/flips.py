"""Questions that one row answers rightly and another wrongly: which, and how sure each model was of both answers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ablate.results.choice_answers import (
    CUT,
    UNKNOWN,
    ChoiceAnswers,
    QuestionInWords,
    answers_of,
    read_questions,
    read_record,
)
from ablate.results.chosen_rows import MOST_ANSWERS
from ablate.results.collect import AblationResult, CellResult, Metric, Results
from ablate.results.paired import Floats
from ablate.results.question_scores import NotComparable, check_alike
from ablate.results.shown_pairs import Pair, shown_pairs
from ablate.results.verdicts import sign_of

# N questions, K choices

SHOWN = 12
"""Of a task and a contrast: half of them won, half lost."""


class Option(NamedTuple):
    """One of the two answers of a flipped question."""

    number: int
    """Of the choice, from 0; UNKNOWN of a written text."""
    text: str | None
    """None where the evaluation did not keep it."""
    is_right: bool
    is_own: tuple[bool, bool]
    """Whether it counted as the answer of the plus row, of the minus row."""
    logprobs: tuple[float, float]
    """That either gives it, in nats; NaN of a written text."""


class Flip(NamedTuple):
    """One question."""

    task: str
    doc_id: int
    """Of the task's questions."""
    is_won: bool
    """By the plus row; else by the minus row."""
    change: float
    """Of the right answer's log-probability, plus less minus; NaN where it is not known."""
    question: str | None
    """None where no evaluation kept it."""
    options: tuple[Option, ...]
    """The right one first."""


class TaskFlips(NamedTuple):
    """Two rows on one task, under one seed each."""

    pair: Pair
    cells: tuple[CellResult, CellResult]
    metric: Metric
    """That says which answers are right."""
    num: int
    """Questions."""
    num_won: int
    num_lost: int
    shown: tuple[Flip, ...]
    """Won ones first."""

    @property
    def has_words(self) -> bool:
        """Whether some evaluation kept what was asked."""
        return all(flip.question is not None for flip in self.shown)


class FlipsRefused(NamedTuple):
    """Two rows and a task of which no question can be shown, and why."""

    pair: Pair
    task: str
    why: str


def flips_of(results: Results, ablation: AblationResult) -> tuple[TaskFlips | FlipsRefused, ...]:
    """-> pair by pair, task by task; of a large study as many pairs as are read in time."""
    left = MOST_ANSWERS // len(results.ablations)
    known: list[TaskFlips | FlipsRefused] = []
    for pair in shown_pairs(results, ablation):
        if left <= 0:
            break
        for task in dict.fromkeys(metric.task for metric in ablation.columns):
            one = _compared(ablation, pair, task)
            known.append(one)
            left -= one.num if isinstance(one, TaskFlips) else 0
    return tuple(known)


def _compared(ablation: AblationResult, pair: Pair, task: str) -> TaskFlips | FlipsRefused:
    try:
        return task_flips(ablation, pair, task)
    except NotComparable as reason:
        return FlipsRefused(pair, task, str(reason))


def task_flips(ablation: AblationResult, pair: Pair, task: str) -> TaskFlips:
    """-> of the first seed that both rows have. Raises NotComparable, saying why there is none.

    Shown are half a dozen questions that the plus row wins, whose right answer gained the most log-probability, and as
    many that it loses, whose right answer lost the most; ties go by the order of the questions.
    """
    cells = _same_seed(pair)
    check_alike(cells[0].evaluation, cells[1].evaluation, task)
    plus, minus = (answers_of(cell, task) for cell in cells)
    if plus.questions != minus.questions:
        raise NotComparable("other questions")
    metric = _metric(ablation, pair, task, plus, minus)
    won_N = plus.scores[metric.name] - minus.scores[metric.name]
    (won,), (lost,) = np.nonzero(won_N > 0), np.nonzero(won_N < 0)
    shown = _Shown(metric, (plus, minus), cells, _words(ablation, plus, cells))
    wanted = [*shown.largest(won, 1), *shown.largest(lost, -1)]
    return TaskFlips(pair, cells, metric, plus.num, len(won), len(lost), tuple(shown.flips(wanted)))


def _same_seed(pair: Pair) -> tuple[CellResult, CellResult]:
    """-> a cell of each, of one seed where there is one that both have."""
    by_seed = {cell.cell.seed: cell for cell in reversed(pair.minus.done)}
    shared = [(cell, by_seed[cell.cell.seed]) for cell in pair.plus.done if cell.cell.seed in by_seed]
    return shared[0] if shared else (pair.plus.done[0], pair.minus.done[0])


def _metric(ablation: AblationResult, pair: Pair, task: str, *arms: ChoiceAnswers) -> Metric:
    """-> the first of a task's columns by which every answer is right or wrong."""
    for metric in ablation.columns:
        is_right_or_wrong = all(arm.is_binary(metric.name) for arm in arms)
        if metric.task == task and is_right_or_wrong and sign_of(pair.plus, metric) > 0:
            return metric
    raise NotComparable("its scores are shares, not right or wrong")


Words: TypeAlias = Mapping[tuple[str, int], QuestionInWords]
"""Of a task's question, by its id."""


def _words(ablation: AblationResult, arm: ChoiceAnswers, cells: Sequence[CellResult]) -> Words:
    """-> what was asked, of each task from these evaluations or another that asked the same; {} where none kept it."""
    words: dict[tuple[str, int], QuestionInWords] = {}
    for task in arm.tasks:
        for cell in (*cells, *(cell for cell in ablation.cells if cell.is_done)):
            if (known := read_questions(cell.samples(task))) and _asks_the_same(cell, cells[0], task):
                words |= {(task, doc_id): question for doc_id, question in known.items()}
                break
    return words


def _asks_the_same(cell: CellResult, other: CellResult, task: str) -> bool:
    one, two = (each.evaluation["tasks"].get(task, {}).get("questions") for each in (cell, other))
    return cell is other or (one is not None and one == two)


class _Shown:
    """Makes what is shown of single questions of two models, plus and minus."""

    def __init__(
        self,
        metric: Metric,
        arms: tuple[ChoiceAnswers, ChoiceAnswers],
        cells: tuple[CellResult, CellResult],
        words: Words,
    ) -> None:
        self._arms, self._cells, self._words, self._metric = arms, cells, words, metric
        self._picks = [picks(arm, metric, words) for arm in arms]
        plus_N, minus_N = (arm.scores[metric.name] for arm in arms)
        winner_N = np.where(plus_N > minus_N, *self._picks)
        self._right_N = np.where(winner_N != UNKNOWN, winner_N, arms[0].right_N)
        self._change_N = _changes(arms, self._right_N)

    def largest(self, places: NDArray[np.int64], sign: int) -> list[int]:
        """-> half a dozen places by the change, the largest first; those without one last."""
        change = sign * self._change_N[places]
        by_change = [-value if math.isfinite(value) else math.inf for value in change.tolist()]
        return [place for _, place in sorted(zip(by_change, places.tolist(), strict=True))][: SHOWN // 2]

    def flips(self, places: Sequence[int]) -> Iterator[Flip]:
        is_written = self._arms[0].logprobs_NK.shape[1] == 0
        for place in places:
            task, in_task = self._arms[0].place_in_task(place)
            doc_id, change = int(self._arms[0].doc_ids[place]), float(self._change_N[place])
            is_won = self._arms[0].scores[self._metric.name][place] > self._arms[1].scores[self._metric.name][place]
            if is_written:
                texts = [read_record(cell.samples(task), in_task) for cell in self._cells]
                yield Flip(
                    task, doc_id, bool(is_won), change, texts[0].get("asked"), _written(texts, is_won=bool(is_won))
                )
            else:
                known = self._words.get((task, doc_id))
                yield Flip(task, doc_id, bool(is_won), change, known and known.question, self._options(place, known))

    def _options(self, place: int, known: QuestionInWords | None) -> tuple[Option, ...]:
        """-> the right choice and the wrong one that was taken; one alone where the other is not known."""
        taken = [int(picks_N[place]) for picks_N in self._picks]
        right = int(self._right_N[place])
        return tuple(
            Option(
                number,
                known.choices[number] if known and number < len(known.choices) else None,
                number == right,
                (taken[0] == number, taken[1] == number),
                (float(self._arms[0].logprobs_NK[place, number]), float(self._arms[1].logprobs_NK[place, number])),
            )
            for number in dict.fromkeys((right, *taken))
            if number != UNKNOWN
        )


def _changes(arms: Sequence[ChoiceAnswers], right_N: NDArray[np.int64]) -> Floats:
    """-> N: of the right answer's log-probability; NaN where it is not known which that is."""
    changes = np.full(len(right_N), math.nan)
    (known,) = np.nonzero(right_N != UNKNOWN)
    if arms[0].logprobs_NK.shape == arms[1].logprobs_NK.shape and len(known):
        places = known, right_N[known]
        with np.errstate(invalid="ignore"):  # both -inf
            changes[known] = arms[0].logprobs_NK[places] - arms[1].logprobs_NK[places]
    return changes


def picks(arm: ChoiceAnswers, metric: Metric, words: Words) -> NDArray[np.int64]:
    """-> N: the choice that counted as the model's answer; UNKNOWN of all where that is not how the metric counts.

    By acc the likeliest one; by acc_norm the one with the highest log-probability a character, as lm-eval has it.
    """
    unknown_N = np.full(arm.num, UNKNOWN)
    divisor_NK = _lengths(arm, words) if metric.name == "acc_norm" else np.ones(arm.logprobs_NK.shape)
    if metric.name not in ("acc", "acc_norm") or divisor_NK is None or arm.logprobs_NK.shape[1] < 2:
        return unknown_N
    if np.isnan(arm.logprobs_NK).all(1).any():
        return unknown_N
    picks_N: NDArray[np.int64] = np.nanargmax(arm.logprobs_NK / divisor_NK, 1)
    known_N = arm.right_N != UNKNOWN
    is_as_scored_N = (picks_N == arm.right_N) == (arm.scores[metric.name] == 1)
    return picks_N if is_as_scored_N[known_N].all() else unknown_N


def _lengths(arm: ChoiceAnswers, words: Words) -> Floats | None:
    """-> N x K: characters of each choice, without the space before it; None where the whole of one is not known."""
    lengths_NK = np.full(arm.logprobs_NK.shape, math.nan)
    for place, (doc_id, num) in enumerate(zip(arm.doc_ids.tolist(), arm.num_choices.tolist(), strict=True)):
        known = words.get((arm.place_in_task(place)[0], doc_id))
        lengths = [len(choice.lstrip()) for choice in known.choices if not choice.endswith(CUT)] if known else []
        if len(lengths) != num or 0 in lengths:
            return None
        lengths_NK[place, :num] = lengths
    return lengths_NK


def _written(records: Sequence[Mapping[str, Any]], *, is_won: bool) -> tuple[Option, ...]:
    """-> both rows' texts, the right one first; none where they were not kept."""
    texts = [str(record["written"][0]["text"]) for record in records if record.get("written")]
    if len(texts) < 2:
        return ()
    of_plus = Option(UNKNOWN, texts[0], is_won, (True, False), (math.nan, math.nan))
    of_minus = Option(UNKNOWN, texts[1], not is_won, (False, True), (math.nan, math.nan))
    return (of_plus, of_minus) if is_won else (of_minus, of_plus)
