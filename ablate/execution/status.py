"""Where every stage of a study stands, as files say, and the executors of what has no end yet."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ablate.core import capped_log
from ablate.core.failures import Ending
from ablate.core.text import duration
from ablate.execution.life_signs import LifeSigns
from ablate.execution.whereabouts import Whereabouts, whereabouts
from ablate.execution.workers import Workers
from ablate.store.attempt import Attempt
from ablate.store.kind import KINDS
from ablate.store.progress import progress_of
from ablate.store.stage import Stage
from ablate.store.store import Store

LOG_LINES = 12


class State(NamedTuple):
    """Where one stage stands."""

    word: str
    """done, running, failed, waiting, blocked, diverged or damaged."""
    why: str = ""
    progress: str = ""
    """ "120/500 steps, loss 1.93"."""
    step: int | None = None
    total: int | None = None
    eta_s: float | None = None
    log_tail: tuple[str, ...] = ()
    where: Whereabouts | None = None
    """Of what runs, or waits in a cluster's queue."""

    @property
    def is_over(self) -> bool:
        return self.word in ("done", "diverged")


def states(stages: Sequence[Stage], store: Store, signs: LifeSigns | None = None) -> dict[str, State]:
    """-> key: state, for stages each of which comes after its inputs.

    `signs`: where those that are silent, and cannot be asked from here, are to be told.
    """
    state_of: dict[str, State] = {}
    workers = Workers()
    for stage in stages:
        state = _own_state(stage, store, workers)
        state_of[stage.key] = _after_inputs(stage, state, state_of) if state.word == "waiting" else state
    if signs:
        _tell_silences(store, workers, signs, state_of)
    return state_of


def _tell_silences(store: Store, workers: Workers, signs: LifeSigns, state_of: dict[str, State]) -> None:
    running = {key: store.attempts(key[:12])[-1] for key, state in state_of.items() if state.word == "running"}
    unknown = {key: attempt for key, attempt in running.items() if workers.poll(attempt) == "unknown"}
    silences = signs.silences(unknown.values())
    for key, attempt in unknown.items():
        if attempt.path in silences:
            silence = f"no sign of life for {duration(silences[attempt.path])}"
            state = state_of[key]
            state_of[key] = state._replace(progress=f"{state.progress}; {silence} from {workers.describe(attempt)}")


def _own_state(stage: Stage, store: Store, workers: Workers) -> State:
    if stage.is_provisional:
        return State("waiting", "its rows are not made yet")
    attempts = store.attempts(stage.key12)
    # asked first: a worker commits its result before it ends
    is_running = bool(attempts) and attempts[-1].exit is None and workers.is_live(attempts[-1])
    if store.done(stage) is not None:
        diverged = store.diverged(stage)
        if diverged:
            return State("diverged", diverged)
        is_present = KINDS[stage.kind].is_present(store.folder(stage))
        return State("done") if is_present else State("waiting", "what it fetched is gone and will be fetched again")
    if is_running:
        return _running(attempts[-1], workers)
    if damage := store.damage(stage):
        return State("damaged", f"{damage}; `ablate run` sets it aside and makes it again")
    return _tried(attempts[-1]) if attempts else State("waiting", "not started")


def _tried(attempt: Attempt) -> State:
    """An attempt that left no result -> what became of it."""
    if attempt.exit is None and attempt.request is None:
        return State("waiting", "not started")  # claimed a moment ago, or by a driver that was killed then
    record = attempt.exit or {"failure": "killed", "message": "its worker was killed"}
    ending = Ending(record["failure"], record["message"])
    if ending.failure in ("ok", "diverged"):
        return State("waiting", "its result is gone; `ablate run` makes it again")
    progress = progress_of(attempt)
    where = f" at {progress}" if progress else ""
    if not ending.table.is_fault:
        table = ending.table
        why = f": {ending.message} ({table.advice})" if table.is_of_all else f"; {table.advice}"
        return State("waiting", f"stopped{where}{why}")
    advice = f" ({ending.table.advice})" if ending.table.advice else ""
    tail = tuple(capped_log.tail(attempt.log, LOG_LINES))
    return State("failed", f"{ending.failure}: {ending.message}{advice}", log_tail=tail)


def _running(attempt: Attempt, workers: Workers) -> State:
    progress, problem = progress_of(attempt), workers.problem(attempt)
    text = "; ".join(filter(None, (str(progress or "starting"), problem)))
    where = whereabouts(attempt)
    if progress is None:
        return State("running", progress=text, where=where)
    return State("running", "", text, progress.done, progress.total, progress.eta_s, where=where)


def _after_inputs(stage: Stage, state: State, state_of: Mapping[str, State]) -> State:
    """A stage that has not run -> whether an input keeps it from running; a block is told before a divergence."""
    inputs = [needed for needed in stage.inputs.values() if needed.key in state_of]
    after = (_after(stage, needed, state_of[needed.key]) for needed in inputs)
    return min(filter(None, after), key=lambda state: state.word != "blocked", default=state)


def _after(stage: Stage, needed: Stage, above: State) -> State | None:
    match above.word:
        case "failed":
            return State("blocked", f"needs {needed.folder}, which failed: {above.why}")
        case "blocked":
            return State("blocked", above.why)
        case "diverged" if KINDS[stage.kind].is_verdict:
            return State("diverged", above.why)
        case "diverged":
            return State("blocked", f"needs {needed.folder}, which {above.why}")
    return None
