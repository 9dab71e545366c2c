"""One round of a run: starts what the scheduler says, watches attempts by their folders, and leaves nothing behind."""

import contextlib
import signal
import time
from collections.abc import Sequence
from typing import Any

from ablate.core.failures import Ending, ending_of, is_of_disk
from ablate.execution import attempts, study_lock
from ablate.execution.occupied_slots import OccupiedSlots
from ablate.execution.run_context import RunContext
from ablate.execution.scheduler import Scheduler
from ablate.execution.scheduler_tasks import Cost, Memory, misfit, task_of
from ablate.execution.start_plan import Start
from ablate.execution.watched import Watched
from ablate.execution.workers import has_signed
from ablate.planning.timing import measured_s
from ablate.store.attempt import Attempt
from ablate.store.stage import Stage

ASK_S = 1.0
"""Between two questions whether this driver still drives the study."""
FAR_PAUSE_S = 0.001
"""Between two turns, for each stage on a cluster: however many there are, turns take the same share of a core."""
LEAVE_S = 5.0
"""For workers that have had their last word to be gone."""


class Round:
    """So many stages, brought to their ends."""

    def __init__(
        self,
        context: RunContext,
        occupied: OccupiedSlots,
        stages: Sequence[Stage],
        cost_s: Cost,
        memory: Memory,
        *,
        is_last: bool,
    ) -> None:
        self._context, self._occupied, self._is_last = context, occupied, is_last
        self._listener, self._workers = context.listener, context.workers
        self._stages = {stage.key: stage for stage in stages}
        self.scheduler = Scheduler(
            [task_of(stage, cost_s, memory) for stage in stages],
            context.fleet.slots(),
            is_keep_going=context.options.is_keep_going,
            timing=context.timing,
        )
        self.started: list[Attempt] = []
        """By this round."""
        self._watched: dict[str, Watched] = {}
        """By key of the stage."""
        self._num_heeded = 0
        """Signals that were acted upon."""
        self._ask_at = 0.0
        """When it is asked next whether the study is still ours to drive."""

    def run(self) -> None:
        """Returns early, in order, when asked to stop."""
        stages = list(self._stages.values())
        for stage in stages:
            self._look_back(stage)
        outcomes = self.scheduler.outcomes.items()
        self._listener.begin(stages, {key for key, outcome in outcomes if outcome.phase in ("done", "diverged")})
        for stage in stages:
            self._look_around(stage)
        self._occupied.look_at_once()
        try:
            while not self.scheduler.is_over and not self._is_to_leave():
                self._turn()
                time.sleep(self._pause_s)
        finally:
            if not self._context.left:
                self._leave_nothing()

    def _turn(self) -> None:
        self._mind_requests()
        for key in self.scheduler.running:
            self._look(self._stages[key])
        taken = self._occupied.taken(lambda: [watched.attempt for watched in self._watched.values()])
        if taken is not None:
            self.scheduler.take(taken, time.monotonic())
            for key in self.scheduler.queued_in_vain(time.monotonic()):
                self._take_back(key)
        while start := self.scheduler.next_start(time.monotonic()):
            self._try_to_start(self._stages[start.key], start)
        for note in self._context.fleet.look(self._num_to_come):
            self._listener.note(note)
        self._listener.tick({key: watched.attempt for key, watched in self._watched.items()})

    @property
    def _pause_s(self) -> float:
        """Between two turns: longer the more stages run, where none runs here whose end is seen at once."""
        running = [watched.attempt for watched in self._watched.values()]
        is_any_here = any(map(self._workers.is_local, running))
        return self._context.options.poll_s + (0.0 if is_any_here else FAR_PAUSE_S * len(running))

    @property
    def _num_to_come(self) -> int:
        """Stages that are not begun; before another round one at least, so that no job is given back for a moment."""
        is_more_to_come = not self._is_last and not self.scheduler.is_halted
        return max(self.scheduler.num_waiting, int(is_more_to_come))

    def _is_to_leave(self) -> bool:
        """Whether this driver goes and leaves all at work, for another to go on with."""
        if why := self._why_to_leave():
            self._context.left.append(why)
            self._context.fleet.leave()
            self._listener.note(f"{why}: this driver goes, and what runs goes on")
        return bool(self._context.left)

    def _why_to_leave(self) -> str | None:
        context, now = self._context, time.monotonic()
        asked = {signal.SIGTERM, signal.SIGUSR2}.intersection(context.signals[self._num_heeded :])
        if context.options.is_expendable and asked:
            return "its job is to end"
        if now < self._ask_at:
            return None
        self._ask_at = now + ASK_S
        is_superseded = study_lock.is_superseded(context.store, context.study, context.me)
        return "another run drives the study now" if is_superseded else None

    # before anything is started

    def _look_back(self, stage: Stage) -> None:
        """What was made before, and what cannot be made in this run."""
        if stage.is_provisional:
            ending = Ending("missing_input", "its rows are not made, so it has no final key")
            self.scheduler.close(stage.key, "blocked", ending)
        elif attempts.is_done(self._context.store, stage):
            self._settle(stage)
        elif stage.key in self._context.failed:
            self.scheduler.close(stage.key, "failed", self._context.failed[stage.key])

    def _look_around(self, stage: Stage) -> None:
        """What is at work already, so that nothing is put in its place; and what no place here can hold."""
        if self.scheduler.outcomes[stage.key].phase != "waiting":
            return
        at_work = attempts.live(self._context.store, self._workers, stage)
        if at_work:
            self._watch(stage, at_work, is_ours=False)
        elif self.scheduler.is_misfit(stage.key):
            self.scheduler.close(stage.key, "failed", Ending("unfit", misfit(self.scheduler.tasks[stage.key])))
            self._report_end(stage)

    def _settle(self, stage: Stage) -> None:
        """A result is there, whoever made it."""
        diverged = self._context.store.diverged(stage)
        ending = Ending("diverged", diverged) if diverged else Ending("ok", "")
        self.scheduler.finish(stage.key, ending, time.monotonic())

    def _report_end(self, stage: Stage) -> None:
        self._listener.ended(stage, self.scheduler.outcomes[stage.key])

    # starting

    def _take_back(self, key: str) -> None:
        """A stage's job still queues while there is a place in which it would be done before: it goes there."""
        watched = self._watched[key]
        if not watched.is_ours or has_signed(watched.attempt):
            return
        try:
            attempts.withdraw(watched.attempt, Ending("cancelled", "its job still queues, and another place is free"))
        except OSError:
            return  # the disk keeps us from it: it stays where it is
        self._workers.end(watched.attempt)  # one that comes all the same finds that it is over
        del self._watched[key]
        self.scheduler.again(key)
        self._listener.note(f"{self._context.label(self._stages[key])}: its job still queues, so it goes elsewhere")

    def _try_to_start(self, stage: Stage, start: Start) -> None:
        try:
            self._start(stage, start)
        except OSError as error:
            if not is_of_disk(error):
                raise
            self.scheduler.finish(stage.key, ending_of(error), time.monotonic())
            self._report_end(stage)

    def _start(self, stage: Stage, start: Start) -> None:
        claim = attempts.claim(self._context.store, self._workers, stage, self._context.lost)
        if claim.attempt is None:
            self._settle(stage)
            self._report_end(stage)
            return
        if claim.is_ours:
            self._hand_out(claim.attempt, stage, start)
            self.started.append(claim.attempt)
        self._watch(stage, claim.attempt, is_ours=claim.is_ours)

    def _hand_out(self, attempt: Attempt, stage: Stage, start: Start) -> None:
        try:
            attempt.write_request(self._request(stage, start))
            self._context.fleet.submit(attempt, start.slot)
        except OSError as error:
            with contextlib.suppress(OSError):  # or it is waited for until it is clear that nobody works on it
                attempts.withdraw(attempt, ending_of(error))
            raise

    def _request(self, stage: Stage, start: Start) -> dict[str, Any]:
        context, options = self._context, self._context.options
        request = attempts.request(
            context.store, stage, start.slot, options.stall_s, options.grace_s, start.shares, start.spread
        )
        origin = {"label": context.label(stage), "study": context.study, "driver": context.me.model_dump()}
        return request | origin | context.fleet.record(start.slot)

    def _watch(self, stage: Stage, attempt: Attempt, *, is_ours: bool) -> None:
        request = attempt.request or {}
        slot = request.get("slot", {})
        self._watched[stage.key] = Watched(attempt, is_ours)
        num_cards = request.get("num_cards")
        self.scheduler.run(stage.key, slot.get("name"), slot.get("shares"), time.monotonic(), num_cards)
        self._listener.started(stage, attempt, is_found=not is_ours)
        if problem := self._workers.problem(attempt):
            self._listener.note(f"{attempt.path}: {problem}")

    # watching

    def _look(self, stage: Stage) -> None:
        watched = self._watched[stage.key]
        ending = watched.ending(self._workers)
        if ending is None or (ending.failure == "ok" and watched.awaits_result(self._context.store, stage)):
            return
        del self._watched[stage.key]
        if ending.failure == "lost":
            self._context.lost.add(watched.attempt.path)
            self._listener.note(f"{watched.attempt.path}: {ending.message}")
        if ending.failure == "ok" and not attempts.is_done(self._context.store, stage):
            ending = Ending("error", "it ended well, but its result is not there")
        self._finish(stage, watched, ending)
        self._report_end(stage)
        if self.scheduler.outcomes[stage.key].phase == "failed":
            self._context.failed[stage.key] = ending
            self._heed_failure()

    def _finish(self, stage: Stage, watched: Watched, ending: Ending) -> None:
        if not watched.is_ours and ending.failure not in ("ok", "diverged"):
            self.scheduler.again(stage.key)  # tried under another driver's eyes: our own tries are yet to come
            return
        is_well, store = ending.failure == "ok", self._context.store
        self.scheduler.finish(
            stage.key,
            ending,
            time.monotonic(),
            is_further=not is_well and attempts.is_further(store, watched.attempt),
            seconds=measured_s(store, stage) if is_well else None,
        )

    def _heed_failure(self) -> None:
        if self._context.options.is_fail_fast and not self.scheduler.is_halted:
            self._listener.note("--fail-fast: the rest stops and goes on with the same command")
            self._stop_all(is_now=False)

    # stopping

    def _mind_requests(self) -> None:
        request, signals = study_lock.stop_request(self._context.store, self._context.study), self._context.signals
        if request.exists():
            num_meant = 2 if study_lock.is_urgent(request) else 1
            signals += [signal.SIGTERM] * (num_meant - len(signals))
        if len(signals) == self._num_heeded:
            return
        self._num_heeded = len(signals)
        is_now = self._num_heeded > 1
        self._listener.note(
            "killing what runs" if is_now else "stopping: what runs saves a checkpoint (once more kills it)"
        )
        self._stop_all(is_now=is_now)

    def _stop_all(self, *, is_now: bool) -> None:
        self.scheduler.halt()
        for key, watched in list(self._watched.items()):
            if (watched.attempt.request or {}).get("study") == self._context.study:
                self._stop(watched.attempt, is_now=is_now)
                watched.look_soon()
            else:
                del self._watched[key]  # another study's driver looks after it
                self.scheduler.again(key)

    def _stop(self, attempt: Attempt, *, is_now: bool) -> None:
        is_asked = attempts.ask_to_stop(attempt, is_now=is_now)
        if not has_signed(attempt):  # one that comes all the same finds that it is over
            attempts.withdraw(attempt, Ending("cancelled", "stopped before it had begun"))
            self._workers.end(attempt)
        elif is_now or not is_asked:
            self._workers.end(attempt)

    def _leave_nothing(self) -> None:
        """Ends what is left after an error of our own, and sees the last workers out."""
        for watched in self._watched.values():
            if watched.is_ours:
                attempts.ask_to_stop(watched.attempt, is_now=True)
                self._workers.end(watched.attempt)
        until = time.monotonic() + LEAVE_S
        while any(map(self._is_there, self.started)) and time.monotonic() < until:
            time.sleep(self._context.options.poll_s)
        for attempt in filter(self._is_there, self.started):
            who = self._workers.describe(attempt)
            self._listener.note(f"{who} ({attempt.key12}) has not ended yet, though it was told to")

    def _is_there(self, attempt: Attempt) -> bool:
        return self._workers.poll(attempt) == "alive"
