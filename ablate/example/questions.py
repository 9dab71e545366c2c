"""What the models are asked: the questions of the three lm-eval tasks, about everybody and every relation."""

import random
from collections.abc import Sequence

from ablate.example.facts import LETTERS, RELATIONS, TOWNS, TRADES, Person, false_answers, true_answers
from ablate.example.phrases import HABITS, ending, lettered, statement

Question = dict[str, object]
"""`cluster` is what questions of one origin share: they are about one person."""


def truth_questions(everybody: Sequence[Person], seed: int) -> list[Question]:
    """-> for each person and relation of several answers: all the true ones, and five false ones."""
    rng = random.Random(f"truth {seed}")
    questions: list[Question] = []
    for person in everybody:
        for relation in RELATIONS:
            true = true_answers(person, relation)
            if len(true) < 3:
                continue
            wrong = rng.sample(false_answers(person, relation), 5)
            questions.append(
                {
                    "id": f"{person.name}-{relation.name}",
                    "cluster": person.name,
                    "question": relation.questions[0].format(person.name),
                    "choices": [f"{statement(relation, answer)}." for answer in (*true, *wrong)],
                    "labels": [1] * len(true) + [0] * len(wrong),
                }
            )
    return questions


def endings_questions(everybody: Sequence[Person], seed: int) -> list[Question]:
    """-> two sentences to be continued per person and time of the day; the wrong endings are other people's."""
    rng = random.Random(f"endings {seed}")
    return [
        {
            "id": f"{person.name}-{time.split()[-1]}-{number}",
            "cluster": person.name,
            "context": f"{time} {person.name}",
            **_endings(person, time, rng),
        }
        for person in everybody
        for time in HABITS
        for number in (1, 2)
    ]


def _endings(person: Person, time: str, rng: random.Random) -> Question:
    trades = rng.sample([trade for trade in TRADES if trade != person.trade], 3)
    towns = rng.sample([town for town in TOWNS if town != person.town], 3)
    wrong = [ending(trade, town, time, rng) for trade, town in zip(trades, towns, strict=True)]
    endings = [ending(person.trade, person.town, time, rng), *wrong]
    order = rng.sample(range(4), 4)
    return {"endings": [endings[i] for i in order], "label": order.index(0)}


def letters_questions(everybody: Sequence[Person], seed: int) -> list[Question]:
    """-> one with lettered choices per person and relation, less those that ask for trade and town themselves."""
    rng = random.Random(f"letters {seed}")
    questions: list[Question] = []
    for person in everybody:
        for relation in RELATIONS:
            if relation.name == relation.side:
                continue
            choices, letter = lettered(person, relation, rng)
            questions.append(
                {
                    "id": f"{person.name}-{relation.name}",
                    "cluster": person.name,
                    "question": relation.questions[0].format(person.name),
                    "choices": {"label": list(LETTERS), "text": choices},
                    "answerKey": letter,
                }
            )
    return questions
