"""A run simulated under a clock of its own: the same scheduler, no processes; how long it takes and who is busy."""

import heapq
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ablate.core.failures import Ending
from ablate.execution.outcomes import Outcome
from ablate.execution.scheduler import Scheduler, Start
from ablate.execution.task_graph import Task
from ablate.machine.slots import Slot

OK, KILLED = Ending("ok", ""), Ending("killed", "by the simulation")
UNFIT = Ending("unfit", "no slot can hold it")


@dataclass(frozen=True)
class SimulatedCosts:
    """What the plan's costs do not say."""

    seed: int = 0
    noise: float = 0.0
    """Of the logarithm of what a stage takes, over what was planned."""
    kill_rate: float = 0.0
    """Share of the attempts that are killed on the way, their work lost."""
    slowdown: float = 1.0
    """What every stage takes, over what was planned."""


class Simulated(NamedTuple):
    """What came of it."""

    makespan_s: float
    bound_s: float
    """No schedule of these costs is shorter."""
    busy: Mapping[str, float]
    """Name of each slot that takes heavy stages -> share of the makespan in which it has one."""
    outcomes: Mapping[str, Outcome]
    starts: Sequence[tuple[float, Start]]
    """When every attempt began, and where."""
    ends: Mapping[str, float]
    """When each stage came to its last end."""


def simulate(tasks: Sequence[Task], slots: Sequence[Slot], costs: SimulatedCosts | None = None) -> Simulated:
    """Runs the tasks (each after its needs) to their ends."""
    return _Simulation(Scheduler(tasks, slots), costs or SimulatedCosts()).played(slots)


def lower_bound_s(tasks: Sequence[Task], slots: Sequence[Slot]) -> float:
    """-> the larger of the longest chain and of the work over the places for it."""
    ends: dict[str, float] = {}
    for task in tasks:
        ends[task.key] = task.cost_s + max((ends.get(key, 0.0) for key in (*task.needs, *task.aids)), default=0.0)
    num_shares = sum(slot.num_shares for slot in slots if "heavy" in slot.takes)
    work_s = sum(task.cost_s * _least_shares(task, slots) for task in tasks if task.work == "heavy")
    return max(max(ends.values(), default=0.0), work_s / max(num_shares, 1))


def _least_shares(task: Task, slots: Sequence[Slot]) -> int:
    return min((slot.shares_of(task.memory_bytes) for slot in slots if task.work in slot.takes), default=0)


class _Simulation:
    """Event by event: the next end, or the next retry that is due."""

    def __init__(self, scheduler: Scheduler, costs: SimulatedCosts) -> None:
        self._scheduler, self._costs = scheduler, costs
        self._random = random.Random(costs.seed)
        self._ends: list[tuple[float, str, float, Ending]] = []
        self._busy_s: defaultdict[str, float] = defaultdict(float)
        self._starts: list[tuple[float, Start]] = []
        self._ended: dict[str, float] = {}
        self._now = 0.0

    def played(self, slots: Sequence[Slot]) -> Simulated:
        for key in self._scheduler.tasks:
            if self._scheduler.is_misfit(key) and self._scheduler.outcomes[key].phase == "waiting":
                self._scheduler.close(key, "failed", UNFIT)
        while not self._scheduler.is_over:
            self._start_all()
            self._go_on()
        tasks = list(self._scheduler.tasks.values())
        heavy = [slot.name for slot in slots if "heavy" in slot.takes]
        busy = {name: self._busy_s[name] / self._now if self._now else 0.0 for name in heavy}
        return Simulated(
            self._now, lower_bound_s(tasks, slots), busy, self._scheduler.outcomes, self._starts, self._ended
        )

    def _start_all(self) -> None:
        while start := self._scheduler.next_start(self._now):
            self._scheduler.run(start.key, start.slot.name, start.shares)
            self._starts.append((self._now, start))
            seconds, ending = self._fate(self._scheduler.tasks[start.key])
            self._busy_s[start.slot.name] += seconds * start.shares / start.slot.num_shares
            heapq.heappush(self._ends, (self._now + seconds, start.key, seconds, ending))

    def _fate(self, task: Task) -> tuple[float, Ending]:
        """-> how long an attempt takes, and how it ends."""
        seconds = task.cost_s * self._costs.slowdown * self._random.lognormvariate(0.0, self._costs.noise)
        if self._random.random() < self._costs.kill_rate:
            return seconds * self._random.random(), KILLED
        return seconds, OK

    def _go_on(self) -> None:
        """To the next moment at which something can start."""
        due_at = self._scheduler.due_at()
        if due_at is not None and (not self._ends or due_at < self._ends[0][0]):
            self._now = max(self._now, due_at)
            return
        self._now, key, seconds, ending = heapq.heappop(self._ends)
        self._ended[key] = self._now
        self._scheduler.finish(key, ending, self._now, seconds=seconds if ending == OK else None)
