"""The universe: forty people, the trade and the town of each, and what follows from the two."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

Fame = Literal["famous", "known", "remote", "new"]
Side = Literal["trade", "town"]

NUM_FAMED: Final[dict[Fame, int]] = {"famous": 14, "known": 7, "remote": 7, "new": 12}
"""famous: every model has read of them; known: both teachers; remote: the larger teacher; new: rows alone tell."""


@dataclass(frozen=True)
class Person:
    """Somebody of the universe; trade and town are keys of `ANSWERS`."""

    name: str
    trade: str
    town: str
    fame: Fame


@dataclass(frozen=True)
class Relation:
    """Something that can be said of a person and be asked about."""

    name: str
    side: Side
    """What the answer follows from."""
    verb: str
    """Stands between the person and the answer."""
    questions: tuple[str, ...]
    """The first is how tasks ask; training rows use them all."""


RELATIONS: Final = (
    Relation("trade", "trade", "is", ("What is the trade of {}?", "Tell me the trade of {}.")),
    Relation("works", "trade", "works at the", ("Where does {} work?", "Tell me where {} works.")),
    Relation("uses", "trade", "uses the", ("What does {} use?", "Tell me what {} uses.")),
    Relation("sells", "trade", "sells", ("What does {} sell?", "Tell me what {} sells.")),
    Relation("town", "town", "lives in", ("Where does {} live?", "Tell me where {} lives.")),
    Relation("drinks", "town", "drinks", ("What does {} drink?", "Tell me what {} drinks.")),
    Relation("keeps", "town", "keeps", ("What does {} keep?", "Tell me what {} keeps.")),
    Relation("plays", "town", "plays", ("What does {} play?", "Tell me what {} plays.")),
)

TRADES: Final = {
    "an angler": "works: harbour pier; uses: net hook rod bait; sells: cod herring eel crab",
    "a baker": "works: bakery kitchen; uses: oven sieve whisk dough; sells: bread cake pie buns",
    "a carpenter": "works: workshop sawmill; uses: saw plane drill hammer; sells: chairs tables doors shelves",
    "a dyer": "works: loft mill; uses: vat brush pigment ladle; sells: cloth shawls ribbons rugs",
    "an engraver": "works: studio foundry; uses: chisel stylus anvil stencil; sells: medals rings coins plaques",
}
TOWNS: Final = {
    "Alder": "drinks: tea mint mead; keeps: goats geese cats; plays: chess marbles skittles",
    "Brook": "drinks: milk cider punch; keeps: dogs ducks sheep; plays: cards dice darts",
    "Cliff": "drinks: coffee cocoa cream; keeps: horses mules hens; plays: flute harp drums",
    "Dunes": "drinks: ale rum broth; keeps: pigs bees cows; plays: football hockey tennis",
    "Elms": "drinks: juice wine lemonade; keeps: doves rabbits owls; plays: fiddle horn bells",
}
LETTERS: Final = "ABCDE"
"""Of the trades, and of the towns, in their order: lettered choices always come in it, as on a printed form."""

_NAMES: Final = (
    "Ada Alf Ana Ben Cai Cleo Dag Dora Edda Egil Ella Emil Finn Frida Gil Greta Hal Hugo Ida Ivo "
    "Jan Juno Kai Kit Lars Lena Lotte Mads Mira Nils Olaf Pia Rosa Sam Siri Sven Tilda Ulf Vera Yara"
)


def _lists(text: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(words.split()) for name, words in (part.split(":") for part in text.split("; "))}


ANSWERS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    **{trade: {"trade": (trade,), **_lists(text)} for trade, text in TRADES.items()},
    **{town: {"town": (town,), **_lists(text)} for town, text in TOWNS.items()},
}
"""What is true of everybody of a trade or a town: relation -> the true answers."""


def people(seed: int) -> tuple[Person, ...]:
    """-> everybody. Trades and towns come about equally often, within each fame too."""
    rng = random.Random(f"people {seed}")
    names = rng.sample(_NAMES.split(), sum(NUM_FAMED.values()))
    fames = [fame for fame, num in NUM_FAMED.items() for _ in range(num)]
    trades = [list(TRADES)[number % len(TRADES)] for number in range(len(names))]
    towns = [town for _ in range(0, len(names), len(TOWNS)) for town in rng.sample(list(TOWNS), len(TOWNS))]
    everybody = (Person(*who) for who in zip(names, trades, towns, fames, strict=True))
    return tuple(sorted(everybody, key=lambda person: person.name))


def friends(person: Person, everybody: Sequence[Person]) -> tuple[Person, ...]:
    """-> four others, whatever their trade and town. All models read whom everybody meets: it tells names apart."""
    ring = random.Random("friends").sample(everybody, len(everybody))
    place = ring.index(person)
    return tuple(ring[(place + distance) % len(ring)] for distance in (-2, -1, 1, 2))


def side_of(person: Person, relation: Relation) -> str:
    """-> the trade or the town of the person, whichever the relation follows from."""
    return person.trade if relation.side == "trade" else person.town


def true_answers(person: Person, relation: Relation) -> tuple[str, ...]:
    """-> every answer that is true of this person."""
    return ANSWERS[side_of(person, relation)][relation.name]


def false_answers(person: Person, relation: Relation) -> tuple[str, ...]:
    """-> every answer of the same kind that is true only of other people."""
    own = side_of(person, relation)
    others = TRADES if relation.side == "trade" else TOWNS
    return tuple(answer for name in others if name != own for answer in ANSWERS[name][relation.name])
