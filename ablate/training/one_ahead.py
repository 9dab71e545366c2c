"""Reading by a thread, one item ahead of who asks for it: in the order in which it will be asked, if that is known."""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class OneAhead(Generic[K, V]):
    """Gives what `read` gives: at most one item is read that nobody has asked for yet."""

    def __init__(self, read: Callable[[K], V]) -> None:
        """`read` is called by two threads at once where something else is asked for than was expected."""
        self._read = read
        self._thread = ThreadPoolExecutor(1, "reader")
        self._expected: deque[K] = deque()
        self._ahead: tuple[K, Future[V]] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is expected."""
        return self._ahead is None and not self._expected

    def expect(self, keys: Iterable[K]) -> None:
        """What will be asked for, after what is expected already."""
        self._expected.extend(keys)
        self._begin_next()

    def __call__(self, key: K) -> V:
        """-> what `read` gives; what it raises, whenever it did, is raised here.

        Where another was expected, that and all after it are forgotten.
        """
        if self._ahead is None or self._ahead[0] != key:
            self._forget()
            return self._read(key)
        reading, self._ahead = self._ahead[1], None
        value = reading.result()
        self._begin_next()
        return value

    def close(self) -> None:
        """Ends the thread; what is asked for from now on is read at once."""
        self._forget()
        self._thread.shutdown()

    def _forget(self) -> None:
        if self._ahead:
            self._ahead[1].cancel()
        self._ahead = None
        self._expected.clear()

    def _begin_next(self) -> None:
        if self._ahead is None and self._expected:
            key = self._expected.popleft()
            self._ahead = key, self._thread.submit(self._read, key)
