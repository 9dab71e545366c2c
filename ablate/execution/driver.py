"""The driver of a run: holds the study and the signals of the process while rounds of stages run."""

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ablate.execution import study_lock
from ablate.execution.executors.base import Executor
from ablate.execution.fleet import Fleet, fleet_with
from ablate.execution.occupied_slots import OccupiedSlots
from ablate.execution.outcomes import Outcome, exit_code
from ablate.execution.run_context import Options, RunContext, RunListener
from ablate.execution.run_round import Round
from ablate.execution.scheduler_tasks import Cost, Label, Memory
from ablate.execution.workers import Workers
from ablate.planning.timing import Timing
from ablate.store import layout
from ablate.store.stage import Stage
from ablate.store.store import Store


@dataclass(frozen=True)
class Summary:
    """What came of a run, by stage key."""

    outcomes: Mapping[str, Outcome]
    interrupted: int | None = None
    """130 after Ctrl-C, 75 after another request to stop, or where another driver is to go on."""
    num_started: int = 0

    @property
    def exit_code(self) -> int:
        return self.interrupted or exit_code(self.outcomes.values())


class Driver:
    """Runs stages for one study. Made by `driving`; `run` may be called again as the plan grows."""

    def __init__(self, context: RunContext) -> None:
        self.num_started = 0
        self._context = context
        self._occupied = OccupiedSlots(context.fleet, context.listener.note)

    def run(
        self,
        stages: Sequence[Stage],
        cost_s: Cost,
        memory: Memory = lambda _: (None, 0),
        *,
        is_last: bool = True,
    ) -> Summary:
        """Brings the stages (each after its inputs) to their ends. Returns early, in order, when asked to stop.

        `cost_s` is as planned: the run's `timing` corrects it by what was measured. `is_last`: what has no work may go.
        """
        current = Round(self._context, self._occupied, stages, cost_s, memory, is_last=is_last)
        try:
            current.run()
        finally:
            self.num_started += len(current.started)
        return Summary(current.scheduler.outcomes, self._interrupted(), self.num_started)

    def _interrupted(self) -> int | None:
        if self._context.left:
            return 75
        if not self._context.signals:
            return None
        return 130 if self._context.signals[0] == signal.SIGINT else 75


@contextlib.contextmanager
def driving(
    store: Store,
    study: str,
    executor: Executor | Fleet,
    listener: RunListener,
    options: Options | None = None,
    label: Label = lambda stage: stage.folder,
    timing: Timing | None = None,
) -> Iterator[Driver]:
    """Holds the study, and the signals of the process, while stages run. Raises HeldError when another run has it.

    What is strange under runs/ is set aside first.
    """
    for note in layout.mend(store):
        listener.note(f"note: {note}")
    fleet = executor if isinstance(executor, Fleet) else fleet_with(executor)
    with study_lock.held(store, study, listener.note) as me, contextlib.closing(fleet):
        fleet.begin(store.jobs_folder(study))
        context = RunContext(
            store=store,
            study=study,
            fleet=fleet,
            listener=listener,
            options=options or Options(),
            me=me,
            label=label,
            timing=timing or Timing(),
            workers=Workers(fleet),
        )
        with _caught(context.signals):
            yield Driver(context)


@contextlib.contextmanager
def _caught(signals: list[int]) -> Iterator[None]:
    """Puts SIGINT, SIGTERM, SIGUSR2 and SIGHUP into a list, where the main thread runs (elsewhere Python cannot)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)
    before = {number: signal.signal(number, lambda caught, _: signals.append(caught)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
