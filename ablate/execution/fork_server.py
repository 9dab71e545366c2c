"""The fork server: it has imported what stages need, started no thread, touched no card, and forks workers."""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from ablate.core import disk, processes
from ablate.execution import supervisor
from ablate.machine import network
from ablate.store.attempt import Attempt

NEEDED = (
    "torch",
    "transformers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "safetensors.torch",
    "datasets",
    "lm_eval.evaluator",
    "lm_eval.tasks",
    "lm_eval.models.huggingface",
    "sacrebleu",  # these two by truthfulqa's task, for a second
    "rouge_score.rouge_scorer",
)
OURS = ("ablate.stages", "ablate.training", "ablate.evaluation", "ablate.data")
"""Packages, all modules of which are needed."""
WAIT_S = 1.0


def main(handle: int, driver: int) -> None:
    """Says over a socket that it is ready, then answers one request after the other, as long as the driver lives."""
    processes.die_with_parent(driver)
    with socket.socket(fileno=handle) as line:
        started = time.monotonic()
        network.possible()  # asked by every fork, whose own child would take long to make once all is imported
        warm_up()
        _say(line, ready=True, seconds=round(time.monotonic() - started, 2))
        while _answer(line):
            pass


def warm_up() -> None:
    """Imports what it can; what cannot be imported is left to the stage that needs it, which says so."""
    gc.disable()  # a seventh of the time of these imports, which leave nothing to collect
    for name in modules():
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    gc.collect()
    gc.enable()
    gc.freeze()  # so that the forks' collectors leave the shared pages alone


def modules() -> list[str]:
    """-> what is imported: of others, then of our own."""
    return [*NEEDED, *(name for package in OURS for name in _modules_of(package))]


def _modules_of(package: str) -> list[str]:
    folder = importlib.import_module(package).__path__
    return [f"{package}.{module.name}" for module in pkgutil.iter_modules(folder)]


def _answer(line: socket.socket) -> bool:
    """-> False once the driver is gone."""
    line.settimeout(WAIT_S)
    _reap()
    try:
        request = line.recv(1 << 16)
    except TimeoutError:
        return True
    except ConnectionError:
        return False
    if not request:
        return False
    attempt = Attempt(Path(json.loads(request)["attempt"]))
    why = _unfit()
    _say(line, attempt=str(attempt.path), why=why) if why else _fork(line, attempt)
    return True


def _fork(line: socket.socket, attempt: Attempt) -> None:
    pid = os.fork()
    if pid == 0:
        _become_worker(line, attempt)
    _say(line, attempt=str(attempt.path), pid=pid)


def _become_worker(line: socket.socket, attempt: Attempt) -> None:
    code = 1
    try:
        os.setsid()
        line.close()
        os.chdir(attempt.path)
        with disk.opened_to_append(attempt.log) as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        code = 0 if supervisor.work_on(attempt).failure in ("ok", "diverged") else 1
    except BaseException:  # the last frame of a forked process: nothing may return into the server
        traceback.print_exc()
    finally:
        os._exit(code)


def _unfit() -> str | None:
    """-> why forking is not safe, or None."""
    num_threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
    if threading.active_count() > 1 or num_threads > 1:
        return f"{num_threads} threads run in the fork server"
    # the driver's library may be there, as some of torch's own want it; a card that is used is a file held open
    is_touched = any(name.startswith("/dev/nvidia") for name in _open_files())
    return "the fork server has touched a card" if is_touched else None


def _open_files() -> Iterator[str]:
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            yield str(handle.readlink())


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _say(line: socket.socket, **words: object) -> None:
    with contextlib.suppress(OSError):
        line.send(json.dumps(words).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
