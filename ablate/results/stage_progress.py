"""How far a stage is that has no result yet: its step, what is left, and where it would go on."""

from typing import NamedTuple

from ablate.core.failures import FAILURES
from ablate.core.text import duration
from ablate.execution.status import State
from ablate.store.checkpoints import Checkpoints
from ablate.store.progress import Progress, progress_of
from ablate.store.stage import Stage
from ablate.store.store import Store


class StageProgress(NamedTuple):
    """Of the latest attempt that spoke of it, and of the checkpoints of all."""

    stage: Stage
    state: str
    """Of the stage: running, waiting (it was stopped, or has not begun), failed, damaged or blocked."""
    progress: Progress | None = None
    """None before it said anything."""
    resumable_from: int | None = None
    """Number of the latest checkpoint, of a training its step, from which `ablate run` goes on; None: there is none."""

    @property
    def step(self) -> int | None:
        return self.progress.done if self.progress else None

    @property
    def steps(self) -> int | None:
        return self.progress.total if self.progress else None

    @property
    def share(self) -> float | None:
        """-> 0 to 1."""
        return self.progress.share if self.progress else None

    @property
    def eta_s(self) -> float | None:
        """-> seconds to its end at its pace so far; None of what does not run."""
        return self.progress.eta_s if self.progress and self.state == "running" else None

    @property
    def is_begun(self) -> bool:
        return self.state == "running" or self.progress is not None or self.resumable_from is not None

    @property
    def how_far(self) -> str:
        """`step 120 of 404 (30 %)`, `81 of 320 questions (25 %)`; empty before it said anything."""
        if self.progress is None:
            return ""
        done, total, unit = f"{self.progress.done:,}", f"{self.progress.total:,}", self.progress.unit
        where = f"step {done} of {total}" if unit == "step" else f"{done} of {total} {unit.removesuffix('s')}s"
        return f"{where} ({100 * self.progress.share:.0f} %)"

    @property
    def goes_on_from(self) -> str:
        """`step 100`; of what counts no steps, `its last checkpoint`; empty where it would begin anew."""
        if self.resumable_from is None:
            return ""
        is_of_steps = self.progress is None or self.progress.unit == "step"
        return f"step {self.resumable_from:,}" if is_of_steps else "its last checkpoint"

    def __str__(self) -> str:
        left = f"{duration(self.eta_s)} left" if self.eta_s is not None else ""
        resumable = f"resumable from {self.goes_on_from}" if self.goes_on_from else ""
        return ", ".join(filter(None, (self.how_far, left, resumable)))


def stage_progress(stage: Stage, state: State, store: Store) -> StageProgress:
    """-> as files say now."""
    if stage.is_provisional:
        return StageProgress(stage, state.word)
    attempts = store.attempts(stage.key12)
    saved = [step for attempt in attempts for step in Checkpoints(attempt.checkpoints).listed()]
    known = (progress_of(attempt) for attempt in reversed(attempts))
    return StageProgress(stage, state.word, next(filter(None, known), None), max(saved, default=None))


def with_progress(why: str, at: StageProgress) -> str:
    """-> why a stage has no result, where it is told in the words of its log how far it is, in these."""
    if at.progress is None:
        return why
    text = why.replace(str(at.progress), str(at))
    return text.removesuffix(f"; {FAILURES['cancelled'].advice}") if at.goes_on_from else text
