"""What is written of walks: the rows of the study, the walks that are asked for, and what the two models have read."""

import random
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypedDict

from ablate.example.reading import Document
from ablate.example.walks.roads import Map

NUM_STARTS: Final = 14
"""Places that walks of rows and tasks begin at."""
LEAST_DISTANCE: Final = 5
"""Of a walk's goal."""
NUM_ROWS: Final = 120
"""Of the walks that are far enough; all others are asked for."""


class Row(TypedDict):
    """A prompt and its completion."""

    prompt: str
    completion: str


class Walk(NamedTuple):
    """From where to where."""

    start: str
    goal: str


def prompt(walk: Walk) -> str:
    return f"From {walk.start} to {walk.goal}:"


def written(places: Sequence[str]) -> str:
    """-> a walk as an answer: its places, the first one left out, and a full stop."""
    return "".join(f" {place}" for place in places) + "."


def split_walks(roads: Map, seed: int) -> tuple[list[Walk], list[Walk]]:
    """-> the walks of the rows, and those of the tasks: no walk is both, every start is in both."""
    rng = random.Random(f"walks {seed}")
    starts = sorted(rng.sample(roads.places, NUM_STARTS))
    far = [
        Walk(start, goal) for start in starts for goal in roads.places if roads.distance(start, goal) >= LEAST_DISTANCE
    ]
    rng.shuffle(far)
    return far[:NUM_ROWS], far[NUM_ROWS:]


def rows(roads: Map, seed: int) -> list[Row]:
    """-> walks by the shortest way: nobody in them has ever taken a wrong turn."""
    walks, _ = split_walks(roads, seed)
    return [Row(prompt=prompt(walk), completion=written(roads.way(*walk))) for walk in walks]


def guides(roads: Map, seed: str) -> Iterator[Document]:
    """-> without end what the teacher reads: from wherever somebody has strayed, the shortest way on to the goal."""
    rng = random.Random(seed)
    while True:
        walk = Walk(*rng.sample(roads.places, 2))
        strayed = _strayed(walk, roads, rng) if rng.random() < 0.6 else []
        given = prompt(walk) + "".join(f" {place}" for place in strayed)
        yield Document(given, written(roads.way((walk.start, *strayed)[-1], walk.goal)))


def _strayed(walk: Walk, roads: Map, rng: random.Random) -> list[str]:
    """-> up to eight places, at each a turn to anywhere as often as not, that do not come to the goal."""
    place, places = walk.start, []
    for _ in range(rng.randint(1, 8)):
        place = rng.choice(roads.roads[place]) if rng.random() < 0.5 else roads.next_place(place, walk.goal)
        if place == walk.goal:
            break
        places.append(place)
    return places


def wanderers(roads: Map, seed: str) -> Iterator[Document]:
    """-> without end what the student reads: walks at random, which are to wherever they came to."""
    rng = random.Random(seed)
    while True:
        start = place = rng.choice(roads.places)
        places = [place := rng.choice(roads.roads[place]) for _ in range(rng.randint(4, 12))]
        yield Document(prompt(Walk(start, place)), written(places))
