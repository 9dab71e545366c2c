"""The map: 49 places, 56 roads, and from every place the road that leads to another the shortest way."""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

SIDE: Final = 7
"""Places stand in rows and columns of so many; roads join neighbours."""
NUM_LOOPS: Final = 8
"""Roads beyond those that join everything without a loop."""

_PLACES: Final = (
    "Abbey Acre Anvil Barn Beach Bell Bridge Cairn Canal Cave Chapel Cliff Croft Dam Dell Dock Farm Ferry Field Ford "
    "Forge Fort Gate Glen Grove Hall Heath Hill Inn Isle Kiln Lake Lane Lock Marsh Meadow Mill Mine Moor Orchard Park "
    "Pier Pond Quarry Rock Spring Tower Vale Well"
)


@dataclass(frozen=True)
class Map:
    """Places, and the roads between them."""

    roads: dict[str, tuple[str, ...]]
    """Place -> those that a road leads to, sorted."""

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(self.roads)

    @cached_property
    def _distances(self) -> dict[str, dict[str, int]]:
        return {goal: _steps_to(goal, self.roads) for goal in self.roads}

    def distance(self, place: str, goal: str) -> int:
        """-> roads to walk."""
        return self._distances[goal][place]

    def next_place(self, place: str, goal: str) -> str:
        """-> where the shortest way to the goal leads; of several, the first by name."""
        return min(self.roads[place], key=lambda other: (self.distance(other, goal), other))

    def way(self, place: str, goal: str) -> list[str]:
        """-> the places from here to the goal, this one left out."""
        places: list[str] = []
        while place != goal:
            place = self.next_place(place, goal)
            places.append(place)
        return places

    def nearer(self, place: str, goal: str) -> list[str]:
        """-> those a road away that are nearer to the goal."""
        return [other for other in self.roads[place] if self.distance(other, goal) < self.distance(place, goal)]


def _steps_to(goal: str, roads: dict[str, tuple[str, ...]]) -> dict[str, int]:
    steps, queue = {goal: 0}, deque([goal])
    while queue:
        place = queue.popleft()
        for other in roads[place]:
            if other not in steps:
                steps[other] = steps[place] + 1
                queue.append(other)
    return steps


def make_map(seed: int) -> Map:
    """-> a maze with a few loops: a wrong turn is found out late, and there is always a way back."""
    rng = random.Random(f"map {seed}")
    names = rng.sample(_PLACES.split(), SIDE * SIDE)
    grid = [(row, column) for row in range(SIDE) for column in range(SIDE)]
    pairs = [(at, to) for at in grid for to in ((at[0], at[1] + 1), (at[0] + 1, at[1])) if max(to) < SIDE]
    rng.shuffle(pairs)
    joined, loops = _joined(pairs)
    roads = [(names[grid.index(at)], names[grid.index(to)]) for at, to in (*joined, *loops[:NUM_LOOPS])]
    both = [*roads, *((to, at) for at, to in roads)]
    return Map({name: tuple(sorted(to for at, to in both if at == name)) for name in sorted(names)})


Square = tuple[int, int]


def _joined(pairs: Sequence[tuple[Square, Square]]) -> tuple[list[tuple[Square, Square]], list[tuple[Square, Square]]]:
    """-> the pairs that join what was apart until then, and the others."""
    parts: dict[Square, frozenset[Square]] = {square: frozenset([square]) for pair in pairs for square in pair}
    joined, loops = [], []
    for at, to in pairs:
        if parts[at] is parts[to]:
            loops.append((at, to))
            continue
        joined.append((at, to))
        together = parts[at] | parts[to]
        parts |= dict.fromkeys(together, together)
    return joined, loops
