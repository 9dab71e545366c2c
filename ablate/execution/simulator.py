"""A run simulated under a clock of its own: the same scheduler, no processes; how long it takes and who is busy."""

import copy
import heapq
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from ablate.core.failures import Ending
from ablate.execution.outcomes import Outcome
from ablate.execution.schedule_bound import lower_bound_s
from ablate.execution.scheduler import Scheduler
from ablate.execution.stage_durations import StageDurations
from ablate.execution.start_plan import Start
from ablate.execution.task_graph import Task
from ablate.machine.slots import Slot, Taken
from ablate.planning.timing import Timing

OK, KILLED = Ending("ok", ""), Ending("killed", "by the simulation")
LOST = Ending("lost", "its node was lost, in the simulation")
UNFIT = Ending("unfit", "no slot can hold it")


@dataclass(frozen=True)
class NodeLosses:
    """Machines that fail: each ends all it runs."""

    nodes: Mapping[str, str]
    """Name of a slot -> the node it is on."""
    mean_s: float
    """From when a node is up to its loss; exponentially distributed."""
    repair_s: float | None = None
    """Until it is back; None: never, and then the last node left is never lost."""


@dataclass(frozen=True)
class SimulatedCosts:
    """What the plan's costs do not say."""

    seed: int = 0
    noise: float = 0.0
    """Of the logarithm of what a stage takes, over what was planned."""
    kill_rate: float = 0.0
    """Share of the attempts that are killed on the way."""
    slowdown: float = 1.0
    """What every stage takes, over what was planned."""
    checkpoint_s: float | None = None
    """Work between two checkpoints: so much of what a kill interrupts is kept; None: nothing."""
    losses: NodeLosses | None = None
    queue_s: Mapping[str, float] = field(default_factory=dict)
    """Name of a slot -> what its job queues before its first stage begins, as the scheduler knows."""


class Simulated(NamedTuple):
    """What came of it."""

    makespan_s: float
    bound_s: float
    """No schedule of these costs is shorter, of the stages that some slot can hold."""
    busy: Mapping[str, float]
    """Name of each slot that takes heavy stages -> share of the makespan in which it has one."""
    outcomes: Mapping[str, Outcome]
    starts: Sequence[tuple[float, Start]]
    """When every attempt began, and where."""
    ends: Mapping[str, float]
    """When each stage came to its last end."""
    done: Sequence[str]
    """Key of each stage, as often as it was brought to its end."""
    losses: Sequence[tuple[float, str]]
    """When which node was lost."""


def simulate(
    tasks: Sequence[Task], slots: Sequence[Slot], costs: SimulatedCosts | None = None, timing: Timing | None = None
) -> Simulated:
    """Runs the tasks (each after its needs) to their ends. `timing`: what is known of kinds and cards beforehand."""
    return _Simulation(tasks, slots, costs or SimulatedCosts(), timing or Timing()).played()


class _Attempt(NamedTuple):
    key: str
    slot: Slot
    share: float
    """Of the slot."""
    began_at: float
    seconds: float
    """Of work, to its end."""
    ending: Ending


_Event: TypeAlias = Literal["end", "loss", "repair"]


class _Simulation:
    """Event by event: the next end of an attempt, loss or repair of a node, or moment at which something is due."""

    def __init__(self, tasks: Sequence[Task], slots: Sequence[Slot], costs: SimulatedCosts, timing: Timing) -> None:
        self._scheduler, self._costs = Scheduler(tasks, slots, timing=copy.deepcopy(timing)), costs
        self._slots = {slot.name: slot for slot in slots}
        self._durations = StageDurations(slots, timing)
        self._random = random.Random(costs.seed)
        self._events: list[tuple[float, int, _Event, str]] = []
        """When, in which order, what, and to which stage or node."""
        self._num_events = 0
        self._at_work: dict[str, tuple[int, _Attempt]] = {}
        """Key of a stage -> number of the event that will end it."""
        self._left_s: dict[str, float] = {}
        """Share of a stage that no checkpoint has kept."""
        self._queue_s = dict(costs.queue_s)
        self._lost_nodes: set[str] = set()
        self._busy_s: defaultdict[str, float] = defaultdict(float)
        self._starts: list[tuple[float, Start]] = []
        self._ended: dict[str, float] = {}
        self._done: list[str] = []
        self._losses: list[tuple[float, str]] = []
        self._now = 0.0

    def played(self) -> Simulated:
        for key in self._scheduler.tasks:
            if self._scheduler.is_misfit(key) and self._scheduler.outcomes[key].phase == "waiting":
                self._scheduler.close(key, "failed", UNFIT)
        for node in dict.fromkeys(self._costs.losses.nodes.values()) if self._costs.losses else ():
            self._expect_loss(node)
        self._say_what_is_in_the_way()
        while not self._scheduler.is_over:
            self._start_all()
            self._go_on()
        heavy = [slot.name for slot in self._slots.values() if "heavy" in slot.takes]
        done = [task for key, task in self._scheduler.tasks.items() if self._scheduler.outcomes[key].phase == "done"]
        return Simulated(
            makespan_s=self._now,
            bound_s=lower_bound_s(done, list(self._slots.values()), self._durations),
            busy={name: self._busy_s[name] / self._now if self._now else 0.0 for name in heavy},
            outcomes=self._scheduler.outcomes,
            starts=self._starts,
            ends=self._ended,
            done=self._done,
            losses=self._losses,
        )

    def _start_all(self) -> None:
        while start := self._scheduler.next_start(self._now):
            self._scheduler.run(start.key, start.slot.name, start.shares, num_cards=start.slot.num_gpus)
            self._starts.append((self._now, start))
            queue_s = self._queue_s.pop(start.slot.name, 0.0)
            attempt = self._new_attempt(start, self._now + queue_s)
            self._at_work[start.key] = self._num_events, attempt
            self._expect(attempt.began_at + attempt.seconds, "end", start.key)

    def _new_attempt(self, start: Start, began_at: float) -> _Attempt:
        """-> one with its fate: how long it takes, and how it ends."""
        whole_s = self._durations.seconds(self._scheduler.tasks[start.key], start.slot) * self._costs.slowdown
        seconds = self._left_s.get(start.key, 1.0) * whole_s * self._random.lognormvariate(0.0, self._costs.noise)
        ending = OK
        if self._random.random() < self._costs.kill_rate:
            seconds, ending = seconds * self._random.random(), KILLED
        share = start.shares / start.slot.num_shares
        return _Attempt(start.key, start.slot, share, began_at, seconds, ending)

    def _expect(self, at: float, event: _Event, name: str) -> None:
        heapq.heappush(self._events, (at, self._num_events, event, name))
        self._num_events += 1

    def _go_on(self) -> None:
        """To the next moment at which something can start."""
        due_at = self._scheduler.due_at()
        if due_at is not None and (not self._events or due_at < self._events[0][0]):
            self._now = max(self._now, due_at)
            return
        at, number, event, name = heapq.heappop(self._events)
        if event == "end" and self._at_work.get(name, (None,))[0] != number:
            return  # it was lost with its node before
        self._now = at
        if event == "end":
            self._end(self._at_work.pop(name)[1])
        elif event == "loss":
            self._lose(name)
        else:
            self._repair(name)

    def _end(self, attempt: _Attempt, ending: Ending | None = None) -> None:
        ending = ending or attempt.ending
        self._ended[attempt.key] = self._now
        for name in attempt.slot.parts:
            self._busy_s[name] += max(0.0, self._now - attempt.began_at) * attempt.share
        if ending == OK:
            self._done.append(attempt.key)
            self._scheduler.finish(attempt.key, ending, self._now, seconds=attempt.seconds)
        else:
            is_further = self._keep(attempt)
            self._scheduler.finish(attempt.key, ending, self._now, is_further=is_further)

    def _keep(self, attempt: _Attempt) -> bool:
        """-> whether the attempt has left a checkpoint that is further than the last."""
        every_s, worked_s = self._costs.checkpoint_s, max(0.0, self._now - attempt.began_at)
        kept_s = worked_s // every_s * every_s if every_s else 0.0
        whole_s = self._durations.seconds(self._scheduler.tasks[attempt.key], attempt.slot) * self._costs.slowdown
        left = self._left_s.get(attempt.key, 1.0)
        self._left_s[attempt.key] = max(0.0, left - kept_s / whole_s)
        return self._left_s[attempt.key] < left

    # nodes

    def _expect_loss(self, node: str) -> None:
        if self._costs.losses:
            self._expect(self._now + self._random.expovariate(1 / self._costs.losses.mean_s), "loss", node)

    def _lose(self, node: str) -> None:
        losses = self._costs.losses
        num_left = len({*losses.nodes.values()} - self._lost_nodes) if losses else 0
        if not losses or (losses.repair_s is None and num_left == 1):
            return
        self._lost_nodes.add(node)
        self._losses.append((self._now, node))
        for _, attempt in list(self._at_work.values()):
            if node in map(losses.nodes.get, attempt.slot.parts):
                del self._at_work[attempt.key]
                self._end(attempt, LOST)
        self._say_what_is_in_the_way()
        if losses.repair_s is not None:
            self._expect(self._now + losses.repair_s, "repair", node)

    def _repair(self, node: str) -> None:
        self._lost_nodes.discard(node)
        self._say_what_is_in_the_way()
        self._expect_loss(node)

    def _say_what_is_in_the_way(self) -> None:
        node_of = self._costs.losses.nodes if self._costs.losses else {}
        lost = {name for name, node in node_of.items() if node in self._lost_nodes}
        taken = {name: Taken(self._slots[name].num_shares, f"{node_of[name]} is lost") for name in lost}
        queued = {name: Taken(0, "", wait_s) for name, wait_s in self._queue_s.items() if name not in lost}
        self._scheduler.take(queued | taken, self._now)
