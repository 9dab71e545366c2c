"""What follows from failures: a stage is tried again after a while or not at all, and what fails alike is given up."""

from collections import Counter, defaultdict

from ablate.core.failures import NUM_ALIKE, Ending


class RetryPolicy:
    """How often each stage is tried again, and when; counted apart for each class of failure."""

    def __init__(self) -> None:
        self._num_retries: dict[str, Counter[str]] = defaultdict(Counter)
        """Key -> retries after each class of failure, since the stage last got further."""
        self._due_at: dict[str, float] = {}
        """Key of a stage that waits for its next try -> when that is due."""

    def may_retry(self, key: str, ending: Ending, *, is_further: bool) -> bool:
        """Whether a stage that ended so is tried again. `is_further`: it got further than the try before."""
        if is_further:
            self._num_retries[key].clear()
        return self._num_retries[key][ending.failure] < ending.table.num_retries

    def postpone(self, key: str, ending: Ending, now: float) -> None:
        """The stage will be tried again: each time after twice as long."""
        self._due_at[key] = now + ending.table.back_off_s * 2 ** self._num_retries[key][ending.failure]
        self._num_retries[key][ending.failure] += 1

    def is_postponed(self, key: str) -> bool:
        return key in self._due_at

    def take_due(self, now: float) -> list[str]:
        """-> the stages that are not postponed any more from now on."""
        due = [key for key, due_at in self._due_at.items() if due_at <= now]
        for key in due:
            del self._due_at[key]
        return due

    @property
    def next_due_at(self) -> float | None:
        return min(self._due_at.values(), default=None)


class CircuitBreaker:
    """What fails alike three times in one kind of stage will fail in the rest of it too."""

    def __init__(self) -> None:
        self._num_alike: Counter[tuple[str, tuple[str, str]]] = Counter()

    def trips(self, kind: str, ending: Ending) -> bool:
        """Counts a failure. -> whether the rest of its kind is to be given up."""
        if not ending.table.is_counted:
            return False
        self._num_alike[kind, ending.likeness] += 1
        return self._num_alike[kind, ending.likeness] >= NUM_ALIKE
