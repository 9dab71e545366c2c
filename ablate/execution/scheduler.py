"""What runs next: the state of every stage of a run, as a machine without clock, files or processes of its own."""

from collections.abc import Mapping, Sequence

from ablate.core.failures import NUM_ALIKE, Ending
from ablate.execution.card_needs import with_needs
from ablate.execution.outcomes import Outcome, OutcomeTable, Phase
from ablate.execution.ready_queue import ReadyQueue
from ablate.execution.retry_policy import CircuitBreaker, RetryPolicy
from ablate.execution.stage_durations import StageDurations
from ablate.execution.stage_placement import StagePlacement
from ablate.execution.start_plan import Start, StartPlan
from ablate.execution.task_graph import Task, TaskGraph
from ablate.machine.slots import Slot, Taken
from ablate.planning.timing import Timing


class Scheduler:
    """Says what to start, and is handed what came of it. A stage that is not in it counts as done."""

    def __init__(
        self, tasks: Sequence[Task], slots: Sequence[Slot], *, is_keep_going: bool = False, timing: Timing | None = None
    ) -> None:
        tasks = with_needs(tasks, slots)
        self._graph = TaskGraph(tasks)
        self._table = OutcomeTable([task.key for task in tasks])
        timing = timing or Timing()
        self._durations = StageDurations(slots, timing)
        self._placement = StagePlacement(tasks, slots, self._durations)
        self._retries = RetryPolicy()
        self._breaker = None if is_keep_going else CircuitBreaker()
        self._queue = ReadyQueue(self._graph, timing, self._placement.demand, self._is_ready)
        self.tasks = self._graph.tasks
        self.outcomes = self._table.outcomes
        self.allocator = self._placement.allocator
        self.is_halted = False
        self._planned: list[Start] = []
        """The next last."""
        self._planned_for: tuple[int, int] | None = None
        """`_state` of the plan."""
        self._num_puts = 0
        self._recheck_at: float | None = None
        self._now = 0.0
        """Of the last call."""

    def _is_ready(self, key: str) -> bool:
        return self._is_waiting(key) and self._graph.is_free(key) and not self._retries.is_postponed(key)

    def _is_waiting(self, key: str) -> bool:
        return self._table.phase(key) == "waiting"

    # what to do

    def next_start(self, now: float) -> Start | None:
        """The stage to start now; `run` or `finish` must be called for it next."""
        self._now = now
        if self.is_halted:
            return None
        for key in self._retries.take_due(now):
            self._queue.add(key)
            self._planned_for = None
        is_late = self._recheck_at is not None and now >= self._recheck_at
        if is_late or self._planned_for != self._state:
            self._plan()
        return self._planned[-1] if self._planned else None

    def _plan(self) -> StartPlan:
        most_cards = self._placement.most_cards(self._graph, self._is_waiting, self._now)
        plan = self._placement.plan(self._queue.all_of, most_cards, self._now)
        turns = (plan.turn(self.tasks[key], self._placement.demand(key)) for key in self._queue.in_order(plan.closed))
        self._planned = [start for start in turns if start][::-1]
        self._planned_for, self._recheck_at = self._state, plan.recheck_at
        return plan

    @property
    def _state(self) -> tuple[int, int]:
        """Another one once anything has changed that a plan depends on."""
        return self.allocator.num_changes, self._num_puts

    def queued_in_vain(self, now: float) -> list[str]:
        """-> stages whose jobs still queue, and which would end well before in places that nothing ready wants now."""
        queued = self._placement.queued(now)
        if self.is_halted or not queued:
            return []
        self._now = now
        plan = self._plan()
        late = sorted(queued, key=lambda key: queued[key], reverse=True)
        return [key for key in late if plan.is_better_now(self.tasks[key], self._placement.demand(key), queued[key])]

    def is_misfit(self, key: str) -> bool:
        """Whether no slot of this run could ever hold a stage."""
        return self._placement.is_misfit(key)

    def due_at(self) -> float | None:
        """-> when something may start though nothing has happened: a retry is due, or a stage has waited by choice."""
        times = (self._retries.next_due_at, self._recheck_at)
        return min((at for at in times if at is not None), default=None)

    @property
    def running(self) -> list[str]:
        return self._table.running

    @property
    def num_waiting(self) -> int:
        """Stages that are still to be started; none once it is halted."""
        return 0 if self.is_halted else self._table.num_waiting

    @property
    def is_over(self) -> bool:
        return not self._table.running and (self.is_halted or not self._table.has_waiting)

    # what happened

    def run(
        self,
        key: str,
        slot: str | None,
        shares: int | None = None,
        now: float | None = None,
        num_cards: int | None = None,
    ) -> None:
        """A stage has begun, or was found running; it holds the slot unless others do.

        `now`: that of the last call unless given. `num_cards`: see `SlotAllocator.hold`.
        """
        first = self._planned[-1] if self._planned else None
        is_as_planned = (
            first is not None and (first.key, first.slot.name) == (key, slot) and self._planned_for == self._state
        )
        self._placement.hold(key, slot, shares, num_cards, self._now if now is None else now)
        self._put(key, self.outcomes[key]._replace(phase="running"))
        if is_as_planned:
            self._planned.pop()
            self._planned_for = self._state

    def take(self, taken: Mapping[str, Taken], now: float) -> None:
        """What stands between slots and their next stages, from now on; where nothing is named, nothing does."""
        self._placement.take(taken, now)

    def finish(
        self, key: str, ending: Ending, now: float, *, is_further: bool = False, seconds: float | None = None
    ) -> None:
        """An attempt has ended. `is_further`: it got further than the one before; `seconds`: what a whole one took."""
        slot = self.allocator.release(key)
        if seconds is not None:
            self._durations.learn(self.tasks[key], slot, seconds)
            self._queue.rank_anew()
        if ending.failure == "ok":
            self._put(key, Outcome("done"))
        elif ending.failure == "diverged":
            self.close(key, "diverged", ending)
        elif slot and not self.is_halted and (then := self._placement.other_number(key, ending, slot)):
            self._put(key, Outcome("waiting", ending.failure, f"{ending.message}; {then}"))
        elif ending.failure == "gpu_fault" and slot and slot.is_card and not self.is_halted:
            self._blame(key, slot, ending)
        elif self._may_retry(key, ending, is_further):
            self._placement.make_room(key, ending, slot)
            self._retries.postpone(key, ending, now)
            self._put(key, Outcome("waiting", *ending))
        elif ending.table.is_fault:
            self._fail(key, ending)
        else:
            self.close(key, "stopped", ending)
            if not self._graph.is_aid(key):  # a large cache may find no room where all the rest does
                self._end_all("stopped", key, ending)

    def close(self, key: str, phase: Phase, ending: Ending) -> None:
        """A stage comes to no result in this run, nor does what depends on it."""
        self._put(key, Outcome(phase, *ending))
        reached = [(key, user) for user in reversed(self._graph.users(key))]
        while reached:  # each with all behind it before the next: a block is told before a divergence
            above, user = reached.pop()
            if self._table.phase(user) == "waiting":
                self._put(user, self._after(above, user))
                reached += ((user, further) for further in reversed(self._graph.users(user)))

    def again(self, key: str) -> None:
        """An attempt that was not this run's to count has ended."""
        self.allocator.release(key)
        self._put(key, Outcome("waiting"))

    def halt(self) -> None:
        """Nothing more is started."""
        self.is_halted = True

    def _put(self, key: str, outcome: Outcome) -> None:
        has_ended = self._table.put(key, outcome)
        self._num_puts += 1
        self._queue.add(key)
        if has_ended:
            for released in self._graph.end(key, is_done=outcome.phase == "done"):
                self._queue.add(released)

    def _may_retry(self, key: str, ending: Ending, is_further: bool) -> bool:
        if ending.failure == "nospace" and self._graph.is_aid(key):
            return False  # a large cache may find no room where all the rest does
        return self._retries.may_retry(key, ending, is_further=is_further) and not self.is_halted

    def _blame(self, key: str, slot: Slot, ending: Ending) -> None:
        """A card failed under a stage: the card is avoided, or it is the stage."""
        if self._placement.is_at_fault(key, slot):
            self._fail(key, ending)
            return
        self._put(key, Outcome("waiting", ending.failure, f"{ending.message}; {slot.name} is avoided in this run"))
        left = Ending(ending.failure, f"no card is left for it: {slot.name} is avoided ({ending.message})")
        self._close_waiting([other for other in self.tasks if self.is_misfit(other)], "stopped", left)

    def _fail(self, key: str, ending: Ending) -> None:
        self.close(key, "failed", ending)
        kind = self.tasks[key].kind
        if self._breaker and self._breaker.trips(kind, ending):
            message = f"{NUM_ALIKE} {kind} stages failed alike ({ending.message}); --keep-going goes on all the same"
            alike = [other for other, task in self.tasks.items() if task.kind == kind]
            self._close_waiting(alike, "blocked", Ending(ending.failure, message))
        self._end_all("blocked", key, ending)

    def _after(self, key: str, user: str) -> Outcome:
        phase, failure, message = outcome = self.outcomes[key]
        if phase == "failed":
            return Outcome("blocked", failure, f"needs {self.tasks[key].name}, which failed: {message}")
        if phase == "diverged" and not self.tasks[user].is_verdict:
            return Outcome("blocked", failure, f"needs {self.tasks[key].name}, which {message}")
        return outcome

    def _end_all(self, phase: Phase, key: str, ending: Ending) -> None:
        if ending.table.is_of_all:
            message = f"{self.tasks[key].name} stopped the study: {ending.message}"
            self._close_waiting(list(self.tasks), phase, Ending(ending.failure, message))

    def _close_waiting(self, keys: Sequence[str], phase: Phase, ending: Ending) -> None:
        for key in keys:
            if self._table.phase(key) == "waiting":
                self.close(key, phase, ending)
