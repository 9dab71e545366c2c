"""The further processes of a worker whose stage has several cards: forked by it, watched by it, gone with it.

Each is the worker once more, with a card and a rank of its own. One's end without a result ends all at once, and is
told as the cause: the others would wait for it for ever.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from ablate.core import processes
from ablate.core.errors import RankLost, StageError
from ablate.core.failures import Ending, ending_of
from ablate.execution.deaths import death_of
from ablate.machine import address_space

IMPORTED_ONCE = ("torch", "transformers")
"""Before the fork, for all of them."""
NUM_BYTES = 1 << 16
CAUSE_S = 10.0
"""For the end of one rank to be seen, once another no longer hears of it."""
LOST = "lost rank"
"""How the ending of a rank is called that ended because of another."""


class Rank(NamedTuple):
    """Which of a stage's processes this one is."""

    rank: int = 0
    num: int = 1
    meeting: str = ""
    """The file by which they find each other."""


ALONE = Rank()


class Verdict:
    """A pipe for the one word that a process has about its end."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe
        self._lock = threading.Lock()

    def end(self, ending: Ending) -> NoReturn:
        """Says it, and ends the process: nothing of a library's teardown can hang or fail. The first word counts."""
        with self._lock:
            os.write(self.pipe, json.dumps(ending._asdict()).encode())
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(0)


class RankProcesses:
    """Of the first rank: the others."""

    def __init__(self, num: int) -> None:
        self.num = num
        self.num_oom_kills = processes.num_oom_kills()
        self._pipes: dict[int, int] = {}
        """pid -> what it says at its end."""
        self._causes: list[Ending] = []
        self._is_cause = threading.Event()

    def fork(self, verdict: Verdict) -> Rank:
        """Starts the others. -> which rank this process is, the first or one of the new ones; `verdict` is its own."""
        if self.num == 1:
            return ALONE
        for name in IMPORTED_ONCE:
            importlib.import_module(name)
        first = os.getpid()
        meeting = f"/proc/self/fd/{os.memfd_create('ranks', 0)}"  # of no folder: nothing is left of it
        for rank in range(1, self.num):
            mine, theirs = os.pipe()
            pid = os.fork()
            if pid == 0:
                processes.die_with_parent(first)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the first hears it, and all stop at the same step
                for pipe in (mine, verdict.pipe, *self._pipes.values()):
                    os.close(pipe)
                self._pipes.clear()
                verdict.pipe = theirs
                return Rank(rank, self.num, meeting)
            os.close(theirs)
            self._pipes[pid] = mine
        return Rank(0, self.num, meeting)

    def watch(self, on_failure: Callable[[Ending], object]) -> None:
        """Calls from a thread of its own once one of the others has ended without having done its part."""
        if self._pipes:
            threading.Thread(target=self._wait, args=(on_failure,), daemon=True).start()

    def explained(self, error: BaseException) -> Ending:
        """-> how this process's stage ends by an error: where it is that another rank ended, as that one did."""
        if isinstance(error, RankLost):
            return self._cause() if self._pipes else Ending(LOST, str(error))
        return address_space.explained(ending_of(error), error)

    def _cause(self) -> Ending:
        self._is_cause.wait(CAUSE_S)
        return self._causes[0] if self._causes else Ending("killed", "its processes no longer hear of each other")

    def _wait(self, on_failure: Callable[[Ending], object]) -> None:
        handles = {os.pidfd_open(pid): pid for pid in self._pipes}
        while handles:
            for handle in select.select(list(handles), [], [])[0]:
                ending = self._ending(handles.pop(handle))
                if ending.failure == LOST:
                    continue  # of another's end, or ours: that is the cause
                self._causes += [] if ending.failure == "ok" else [ending]
                if self._causes:
                    self._is_cause.set()
                if ending.failure not in ("ok", "diverged", "preempted"):  # which all come to at the same step
                    on_failure(ending)

    def _ending(self, pid: int) -> Ending:
        word, pipe = b"", self._pipes[pid]
        os.set_blocking(pipe, False)
        with contextlib.suppress(BlockingIOError):  # no word, of one whose own forks hold the pipe open
            word = os.read(pipe, NUM_BYTES)
        _, status = os.waitpid(pid, 0)
        if word:
            return Ending(**json.loads(word))
        if os.WIFSIGNALED(status):
            return death_of(os.WTERMSIG(status), processes.num_oom_kills() > self.num_oom_kills)
        return Ending("error", f"a process of the stage ended with code {os.waitstatus_to_exitcode(status)}, no result")


def take_share(rank: Rank, slot: dict[str, Any]) -> dict[str, Any]:
    """-> the slot of one rank: its part of the threads. Of the cards that the process sees, it has one from now on.

    Raises StageError where these are fewer than ranks.
    """
    if rank.num == 1:
        return slot
    if slot["device"] == "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = _card_of(rank)
    threads = max(1, slot["threads"] // rank.num)
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)))
    return slot | {"threads": threads}


def _card_of(rank: Rank) -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:  # then all of the machine's are
        return str(rank.rank)
    cards = list(filter(None, visible.split(",")))
    if len(cards) < rank.num:
        raise StageError(
            f"the stage was given {rank.num} cards, and sees {len(cards)} (CUDA_VISIBLE_DEVICES={visible}): its job has"
            " fewer than the profile says; `train.cards: 1` keeps to one"
        )
    return cards[rank.rank]
