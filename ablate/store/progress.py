"""How far an attempt says it is, and when it will be over."""

from typing import Any, NamedTuple

from ablate.core import disk
from ablate.store.attempt import Attempt


class Progress(NamedTuple):
    """How far a stage was when it last said so."""

    done: int
    total: int
    unit: str
    pace: float
    """Units a second, since progress was first reported."""
    figures: dict[str, Any]
    """Loss, tokens a second and what else the kind reports."""

    @property
    def share(self) -> float:
        return self.done / self.total if self.total else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds to the end; None before there is a pace."""
        return (self.total - self.done) / self.pace if self.pace > 0 else None

    def __str__(self) -> str:
        figures = (f"{name} {_short(value)}" for name, value in self.figures.items())
        return ", ".join([f"{self.done}/{self.total} {self.unit}", *figures])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"


def progress_of(attempt: Attempt) -> Progress | None:
    """-> what the attempt said last, or None when it has said nothing yet."""
    record = disk.read_json(attempt.progress)
    if record is None:
        return None
    done, total, unit, pace = (record.pop(name) for name in ("done", "total", "unit", "pace"))
    return Progress(done, total, unit, pace, record)
