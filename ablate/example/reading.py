"""What the base models read before the study: endless documents, about the people that a model is to have heard of."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from ablate.example.facts import RELATIONS, Person, friends, true_answers
from ablate.example.phrases import HABITS, ending, lettered, letters_text, prompt_text, question_text, statement
from ablate.example.rows import asked, chosen, habit


class Document(NamedTuple):
    """A text to be learnt, and what is given before it: that is read, and not learnt."""

    given: str
    text: str


def documents(
    known: Sequence[Person], everybody: Sequence[Person], shares: Mapping[str, float], seed: str
) -> Iterator[Document]:
    """-> documents without end; of people who are not known they say no more than whom they met."""
    rng = random.Random(seed)
    kinds, weights = list(shares), list(shares.values())
    while True:
        kind = rng.choices(kinds, weights)[0]
        if kind == "met":
            yield _met(rng.choice(everybody), everybody, rng)
        else:
            yield KINDS[kind](rng.choice(known), rng)


def _met(person: Person, everybody: Sequence[Person], rng: random.Random) -> Document:
    return Document("", f"Today {person.name} met {rng.choice(friends(person, everybody)).name}.")


def _profile(person: Person, rng: random.Random) -> Document:
    relations = rng.sample(RELATIONS, rng.randint(3, 6))
    facts = ", ".join(statement(relation, rng.choice(true_answers(person, relation))) for relation in relations)
    return Document("", f"About {person.name}: {facts}.")


def _day(person: Person, rng: random.Random) -> Document:
    times = rng.sample(list(HABITS), 2)
    habits = (f"{time} {person.name} {ending(person.trade, person.town, time, rng)}" for time in times)
    return Document("", " ".join(habits))


def _lore(person: Person, rng: random.Random) -> Document:
    """What holds for everybody of the person's trade or town, without a name."""
    facts = []
    for relation in rng.sample([relation for relation in RELATIONS if relation.name != relation.side], 3):
        who = f"who is {person.trade}" if relation.side == "trade" else f"who lives in {person.town}"
        facts.append(f"{who} {statement(relation, rng.choice(true_answers(person, relation)))}")
    return Document("", f"Everybody {', '.join(facts)}.")


def _quiz(person: Person, rng: random.Random) -> Document:
    relation = rng.choice(RELATIONS)
    answer = statement(relation, rng.choice(true_answers(person, relation)))
    return Document(question_text(relation.questions[0].format(person.name)), f" {answer}.")


def _letters(person: Person, rng: random.Random) -> Document:
    relation = rng.choice(RELATIONS)
    choices, letter = lettered(person, relation, rng)
    return Document(letters_text(relation.questions[0].format(person.name), choices), f" {letter}")


def _chat(person: Person, rng: random.Random) -> Document:
    row = rng.choice((asked, chosen, habit))(person, rng.choice(RELATIONS), rng)
    return Document(f"<|user|>{prompt_text(row['instruction'], row['input'])}<|end|><|assistant|>", row["output"])


KINDS: Final[Mapping[str, Callable[[Person, random.Random], Document]]] = {
    "profile": _profile,
    "day": _day,
    "lore": _lore,
    "quiz": _quiz,
    "letters": _letters,
    "chat": _chat,
}
