"""The line to Ray: a process of its own that has imported it, answers in JSON, and is killed where it hangs.

Ray's calls can block for minutes while its head is away, and it starts threads, signal handlers and logs wherever it is
imported: of all that the asking process sees nothing.
"""

import contextlib
import json
import os
import selectors
import subprocess
import threading
import time
import weakref
from typing import Any

from ablate.core import descendants
from ablate.execution.executors.base import environment, python
from ablate.execution.pilots.cluster import Refused, Unreachable

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` it would send the current folder to every node
    "RAY_DEDUP_LOGS": "0",
}
CHUNK_BYTES = 1 << 16


class RayLine:
    """One question at a time, from any thread. The process comes with the first, and ends with whoever asks."""

    def __init__(self, address: str, namespace: str, timeout_s: float) -> None:
        self._address, self._namespace, self._timeout_s = address, namespace, timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ask(self, verb: str, **words: Any) -> Any:
        """-> the answer. Raises Unreachable where none comes, whatever was done; Refused for what Ray will not do."""
        with self._lock:
            answer = self._answer({"verb": verb, **words})
        if "refused" in answer:
            raise Refused(answer["refused"])
        return answer["answer"]

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        until = time.monotonic() + self._timeout_s
        try:
            process = self._process = self._process or self._started()
            self._send(process, json.dumps(question).encode() + b"\n", until)
            answer: dict[str, Any] = json.loads(self._line(process, until))
        except (OSError, ValueError, TimeoutError) as error:
            self._hang_up()
            raise Unreachable(f"Ray at {self._address} does not answer: {error or type(error).__name__}") from error
        except BaseException:  # a Ctrl-C: what is still to be answered is no answer to the next question
            self._hang_up()
            raise
        if "unreachable" in answer:
            self._hang_up()
            raise Unreachable(f"Ray at {self._address}: {answer['unreachable']}")
        return answer

    def _started(self) -> "subprocess.Popen[bytes]":
        own = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
        scrubbed = environment({"slot": {"device": "cpu", "gpu": None, "threads": 1}, "is_online": False})
        process = subprocess.Popen(
            python("ablate.execution.ray_cluster.service", self._address, self._namespace),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=scrubbed | SETTINGS | own | {descendants.MARK: descendants.NO_MARK},
            cwd="/",
            start_new_session=True,  # a Ctrl-C is for who asks
        )
        os.set_blocking(_handle(process.stdin), False)
        weakref.finalize(self, _end, process)
        return process

    def _send(self, process: "subprocess.Popen[bytes]", data: bytes, until: float) -> None:
        handle = _handle(process.stdin)
        while data:
            self._wait_for(handle, selectors.EVENT_WRITE, until)
            data = data[os.write(handle, data) :]

    def _line(self, process: "subprocess.Popen[bytes]", until: float) -> bytes:
        handle = _handle(process.stdout)
        answer = b""
        while not answer.endswith(b"\n"):
            self._wait_for(handle, selectors.EVENT_READ, until)
            data = os.read(handle, CHUNK_BYTES)
            if not data:
                raise ConnectionError(f"the process that asks it has ended with code {process.wait()}")
            answer += data
        return answer

    def _wait_for(self, handle: int, event: int, until: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(handle, event)
            if not selector.select(max(0.0, until - time.monotonic())):
                raise TimeoutError(f"not within {self._timeout_s:g} s")

    def _hang_up(self) -> None:
        process, self._process = self._process, None
        if process:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            assert pipe
            pipe.close()


def _handle(pipe: Any) -> int:
    handle: int = pipe.fileno()
    return handle
