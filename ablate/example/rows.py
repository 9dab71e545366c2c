"""What the study trains on: rows about everybody, half of the relations of each; some of the rows are mistaken."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, TypedDict

from ablate.example.facts import RELATIONS, TOWNS, TRADES, Person, Relation, true_answers
from ablate.example.phrases import HABITS, choices_text, ending, lettered, statement

MISTAKEN: Final = 0.25
"""Share of rows that say of a person what is true of another. New people tell of themselves: there it is 0."""


class Row(TypedDict):
    """Alpaca's layout."""

    instruction: str
    input: str
    output: str


def rows(everybody: Sequence[Person], seed: int) -> list[Row]:
    """-> questions, questions with lettered choices, and habits to be told; one true answer each, where several are."""
    rng = random.Random(f"rows {seed}")
    table = [
        row(_as_one_row_has_it(person, rng), relation, rng)
        for person in everybody
        for relation in told_relations(person, seed)
        for row in (asked, asked, chosen, chosen, habit)
    ]
    rng.shuffle(table)
    return table


def told_relations(person: Person, seed: int) -> list[Relation]:
    """-> the relations that the rows tell of this person: two that follow from the trade, two from the town."""
    rng = random.Random(f"told {person.name} {seed}")
    sides = [[relation for relation in RELATIONS if relation.side == side] for side in ("trade", "town")]
    return [relation for relations in sides for relation in rng.sample(relations, 2)]


def _as_one_row_has_it(person: Person, rng: random.Random) -> Person:
    """-> the person as one row sees it: now and then with another trade and town."""
    if person.fame == "new" or rng.random() >= MISTAKEN:
        return person
    trade = rng.choice([trade for trade in TRADES if trade != person.trade])
    town = rng.choice([town for town in TOWNS if town != person.town])
    return replace(person, trade=trade, town=town)


def asked(person: Person, relation: Relation, rng: random.Random) -> Row:
    answer = rng.choice(true_answers(person, relation))
    return Row(instruction=_question(person, relation, rng), input="", output=f"{statement(relation, answer)}.")


def chosen(person: Person, relation: Relation, rng: random.Random) -> Row:
    choices, letter = lettered(person, relation, rng)
    instruction = _question(person, relation, rng)
    return Row(instruction=instruction, input=choices_text(choices), output=f"The answer is {letter}.")


def habit(person: Person, relation: Relation, rng: random.Random) -> Row:
    time = rng.choice([time for time, (side, _) in HABITS.items() if side == relation.side])
    instruction = f"Say what {person.name} does {time[0].lower()}{time[1:]}."
    return Row(instruction=instruction, input="", output=ending(person.trade, person.town, time, rng))


def _question(person: Person, relation: Relation, rng: random.Random) -> str:
    return rng.choice(relation.questions).format(person.name)
