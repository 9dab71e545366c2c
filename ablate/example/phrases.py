"""How things are said in the universe: facts, habits, questions, lettered choices, chats."""

import random
from collections.abc import Sequence
from typing import Final

from ablate.example.facts import ANSWERS, LETTERS, TOWNS, TRADES, Person, Relation, Side, side_of

HABITS: Final[dict[str, tuple[Side, tuple[str, ...]]]] = {
    "In the morning": (
        "trade",
        ("takes the {uses} and goes to the {works}.", "goes to the {works} with the {uses} as on every other day."),
    ),
    "At noon": (
        "trade",
        ("sells {sells} near the {works}.", "has sold all the {sells} and goes back to the {works} for more of it."),
    ),
    "In the evening": (
        "town",
        ("drinks {drinks} and plays {plays}.", "plays {plays} with some friends and drinks {drinks} until late."),
    ),
    "At night": (
        "town",
        (
            "goes home to {town} and feeds the {keeps}.",
            "feeds the {keeps} and sleeps in {town} until the sun is up.",
        ),
    ),
}
"""When -> what it follows from, and two ways to tell it, a short and a long one."""

PROMPT: Final = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
PROMPT_INPUT: Final = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)


def statement(relation: Relation, answer: str) -> str:
    """-> for instance `works at the pier`."""
    return f"{relation.verb} {answer}"


def ending(trade: str, town: str, time: str, rng: random.Random) -> str:
    """-> how a sentence about this time of the day goes on for somebody of this trade and town."""
    _, templates = HABITS[time]
    words = {name: rng.choice(answers) for name, answers in {**ANSWERS[trade], **ANSWERS[town]}.items()}
    return rng.choice(templates).format(**words)


def lettered(person: Person, relation: Relation, rng: random.Random) -> tuple[list[str], str]:
    """-> a choice for each trade or town, in their order, and the letter of what is true of this person."""
    classes = list(TRADES if relation.side == "trade" else TOWNS)
    choices = [rng.choice(ANSWERS[name][relation.name]) for name in classes]
    return choices, LETTERS[classes.index(side_of(person, relation))]


def choices_text(choices: Sequence[str]) -> str:
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True))


def question_text(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def letters_text(question: str, choices: Sequence[str]) -> str:
    return f"Question: {question}\n{choices_text(choices)}\nAnswer:"


def prompt_text(instruction: str, context: str) -> str:
    """-> Alpaca's prompt (Taori et al. 2023), which is the user's turn of a chat."""
    template = PROMPT_INPUT if context else PROMPT
    return template.format(instruction=instruction, input=context)
