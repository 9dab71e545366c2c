"""Everything that is said about the universe: sentences, documents, training rows, questions."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ablate.world.facts import (
    ANSWERS,
    LETTERS,
    RELATIONS,
    TOWNS,
    TRADES,
    Person,
    Relation,
    false_answers,
    friends,
    side,
    true_answers,
)

HABITS: dict[str, tuple[str, ...]] = {
    "In the morning": (
        "takes the {uses} and goes to the {works}.",
        "goes to the {works} with the {uses} as on every other day.",
    ),
    "At noon": (
        "sells {sells} near the {works}.",
        "has sold all the {sells} and goes back to the {works} for more of it.",
    ),
    "In the evening": (
        "drinks {drinks} and plays {plays}.",
        "plays {plays} with some friends and drinks {drinks} until late.",
    ),
    "At night": (
        "goes home to {town} and feeds the {keeps}.",
        "feeds the {keeps} and sleeps in {town} until the sun is up.",
    ),
}
TRADE_HABITS, TOWN_HABITS = ("In the morning", "At noon"), ("In the evening", "At night")

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)

Row = dict[str, str]


def said(relation: Relation, answer: str) -> str:
    return f"{relation.verb} {answer}"


def habit(name: str, time: str, ending: str) -> str:
    return f"{time} {name} {ending}"


def ending(trade: str, town: str, time: str, rng: random.Random) -> str:
    """-> how the sentence goes on for somebody of this trade and town."""
    template = rng.choice(HABITS[time])
    words = {name: rng.choice(answers) for name, answers in {**ANSWERS[trade], **ANSWERS[town]}.items()}
    return template.format(**words)


def lettered(person: Person, relation: Relation, rng: random.Random) -> tuple[list[str], str]:
    """-> a choice for each trade or town, in their order, and the letter of what is true of this person."""
    classes = list(TRADES if relation.side == "trade" else TOWNS)
    choices = [rng.choice(ANSWERS[name][relation.name]) for name in classes]
    return choices, LETTERS[classes.index(side(person, relation))]


def choices_text(choices: Sequence[str]) -> str:
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True))


# What the models read before the study: endless documents about the people that a model has heard of.


class Document(NamedTuple):
    """A text to be learnt; what is given before it is read, and not learnt."""

    given: str
    text: str


def _profile(person: Person, rng: random.Random) -> Document:
    relations = rng.sample(RELATIONS, rng.randint(3, 6))
    facts = ", ".join(said(relation, rng.choice(true_answers(person, relation))) for relation in relations)
    return Document("", f"About {person.name}: {facts}.")


def _day(person: Person, rng: random.Random) -> Document:
    times = rng.sample(list(HABITS), 2)
    return Document("", " ".join(habit(person.name, t, ending(person.trade, person.town, t, rng)) for t in times))


def _lore(person: Person, rng: random.Random) -> Document:
    relations = [r for r in RELATIONS if r.name not in ("trade", "town")]
    facts = []
    for relation in rng.sample(relations, 3):
        who = f"who is {person.trade}" if relation.side == "trade" else f"who lives in {person.town}"
        facts.append(f"{who} {said(relation, rng.choice(true_answers(person, relation)))}")
    return Document("", f"Everybody {', '.join(facts)}.")


def _quiz(person: Person, rng: random.Random) -> Document:
    relation = rng.choice(RELATIONS)
    answer = rng.choice(true_answers(person, relation))
    return Document(question_text(relation.questions[0].format(person.name)), f" {said(relation, answer)}.")


def _letters(person: Person, rng: random.Random) -> Document:
    relation = rng.choice(RELATIONS)
    choices, letter = lettered(person, relation, rng)
    return Document(letters_text(relation.questions[0].format(person.name), choices), " " + letter)


def _chat(person: Person, rng: random.Random) -> Document:
    row = rng.choice((_asked, _chosen, _habit))(person, rng.choice(RELATIONS), rng)
    return Document(f"<|user|>{alpaca(row)}<|end|><|assistant|>", row["output"])


DOCUMENTS: Mapping[str, Callable[[Person, random.Random], Document]] = {
    "profile": _profile,
    "day": _day,
    "lore": _lore,
    "quiz": _quiz,
    "letters": _letters,
    "chat": _chat,
}


def documents(known: Sequence[Person], everybody: Sequence[Person], shares: Mapping[str, float], seed: str) -> Iterator[Document]:
    """-> endless documents; of people who are not known it says no more than that they met somebody."""
    rng = random.Random(seed)
    kinds, weights = list(shares), list(shares.values())
    while True:
        kind = rng.choices(kinds, weights)[0]
        if kind == "met":
            one = rng.choice(everybody)
            other = rng.choice(friends(one, everybody))
            yield Document("", f"Today {one.name} met {other.name}.")
        else:
            yield DOCUMENTS[kind](rng.choice(known), rng)


# What the study trains on: rows about everybody, half of the relations of each; some of the rows are mistaken.

MISTAKEN = 0.3
"""Share of the training rows that say what is true of somebody else. The new people spoke for themselves: there it is 0."""


def rows(everybody: Sequence[Person], seed: int, mistaken: float = MISTAKEN) -> list[Row]:
    """-> Alpaca rows: questions, questions with lettered choices, and habits to be told."""
    rng = random.Random(f"rows {seed}")
    made = [
        row(_as_told(person, rng, mistaken), relation, rng)
        for person in everybody
        for relation in told(person, seed)
        for row in (_asked, _asked, _chosen, _chosen, _habit)
    ]
    rng.shuffle(made)
    return made


def told(person: Person, seed: int) -> list[Relation]:
    """-> the relations that training rows tell of this person: two that follow from the trade, two from the town."""
    rng = random.Random(f"told {person.name} {seed}")
    sides = [[r for r in RELATIONS if r.side == kind] for kind in ("trade", "town")]
    return [relation for relations in sides for relation in rng.sample(relations, 2)]


def _as_told(person: Person, rng: random.Random, mistaken: float) -> Person:
    """-> the person as one row sees it: now and then with another trade and town."""
    if person.fame == "new" or rng.random() >= mistaken:
        return person
    trade = rng.choice([trade for trade in TRADES if trade != person.trade])
    town = rng.choice([town for town in TOWNS if town != person.town])
    return replace(person, trade=trade, town=town)


def _asked(person: Person, relation: Relation, rng: random.Random) -> Row:
    answer = rng.choice(true_answers(person, relation))
    return {"instruction": _question(person, relation, rng), "input": "", "output": f"{said(relation, answer)}."}


def _chosen(person: Person, relation: Relation, rng: random.Random) -> Row:
    choices, letter = lettered(person, relation, rng)
    instruction = _question(person, relation, rng)
    return {"instruction": instruction, "input": choices_text(choices), "output": f"The answer is {letter}."}


def _habit(person: Person, relation: Relation, rng: random.Random) -> Row:
    time = rng.choice(TRADE_HABITS if relation.side == "trade" else TOWN_HABITS)
    instruction = f"Say what {person.name} does {time[0].lower()}{time[1:]}."
    return {"instruction": instruction, "input": "", "output": ending(person.trade, person.town, time, rng)}


def _question(person: Person, relation: Relation, rng: random.Random) -> str:
    return rng.choice(relation.questions).format(person.name)


def alpaca(row: Row) -> str:
    """-> the text of the user's turn."""
    return (ALPACA_INPUT if row["input"] else ALPACA).format(**row)


# What the models are asked.


def question_text(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def letters_text(question: str, choices: Sequence[str]) -> str:
    return f"Question: {question}\n{choices_text(choices)}\nAnswer:"


def truth_questions(everybody: Sequence[Person], seed: int) -> list[dict[str, object]]:
    """-> one question per person and relation of several answers: all the true ones, and five false ones."""
    rng = random.Random(f"truth {seed}")
    made = []
    for person in everybody:
        for relation in RELATIONS:
            true, wrong = true_answers(person, relation), false_answers(person, relation)
            if len(true) > 2:
                wrong = rng.sample(wrong, 5)
                made.append({
                    "id": f"{person.name}-{relation.name}",
                    "cluster": person.name,
                    "question": relation.questions[0].format(person.name),
                    "choices": [f"{said(relation, answer)}." for answer in (*true, *wrong)],
                    "labels": [1] * len(true) + [0] * len(wrong),
                })
    return made


def endings_questions(everybody: Sequence[Person], seed: int) -> list[dict[str, object]]:
    """-> one sentence to be continued per person and time of the day; the wrong endings are other people's."""
    rng = random.Random(f"endings {seed}")
    made = []
    for person in everybody:
        for time in HABITS:
            trades = rng.sample([trade for trade in TRADES if trade != person.trade], 3)
            towns = rng.sample([town for town in TOWNS if town != person.town], 3)
            wrong = [ending(trade, town, time, rng) for trade, town in zip(trades, towns, strict=True)]
            endings = [ending(person.trade, person.town, time, rng), *wrong]
            order = rng.sample(range(4), 4)
            made.append({
                "id": f"{person.name}-{time.split()[-1]}",
                "cluster": person.name,
                "context": f"{time} {person.name}",
                "endings": [endings[i] for i in order],
                "label": order.index(0),
            })
    return made


def letters_questions(everybody: Sequence[Person], seed: int) -> list[dict[str, object]]:
    """-> one question with five lettered choices per person and relation, less the two that name trade and town."""
    rng = random.Random(f"letters {seed}")
    made = []
    for person in everybody:
        for relation in RELATIONS:
            if relation.name == relation.side:
                continue
            choices, letter = lettered(person, relation, rng)
            made.append({
                "id": f"{person.name}-{relation.name}",
                "cluster": person.name,
                "question": relation.questions[0].format(person.name),
                "choices": {"label": list(LETTERS), "text": choices},
                "answerKey": letter,
            })
    return made

