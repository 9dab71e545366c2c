"""The process that speaks to Ray: a question a line in JSON, an answer a line, as long as somebody asks."""

import json
import os
import socket
import sys
import threading
from queue import SimpleQueue
from typing import Any, TextIO

from ablate.execution.pilots.cluster import Refused

KNOCK_S = 3.0
"""For a head to take a connection."""


def main(address: str, namespace: str) -> None:
    """Answers until whoever asks is gone."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is no answer
    questions: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_listen, args=(questions,), daemon=True).start()
    while True:
        answers.write(json.dumps(_answer(questions.get(), address, namespace)) + "\n")
        answers.flush()


def _listen(questions: "SimpleQueue[dict[str, Any]]", line: TextIO = sys.stdin) -> None:
    """Also while a call blocks: nobody is left to wait for it."""
    for question in line:
        questions.put(json.loads(question))
    os._exit(0)


def _answer(question: dict[str, Any], address: str, namespace: str) -> dict[str, Any]:
    verb = question.pop("verb")
    try:
        _knock(address)
        from ablate.execution.ray_cluster import ray_calls  # while somebody listens: it takes a while

        ray_calls.connect(address, namespace)
        return {"answer": getattr(ray_calls, verb)(**question)}
    except Refused as error:
        return {"refused": str(error)}
    except Exception as error:  # of Ray's there are many; whatever it was, a new process asks the next time
        return {"unreachable": f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"}


def _knock(address: str) -> None:
    """Raises OSError where nobody is at the head's door: Ray itself would try for minutes."""
    if address == "auto" and os.environ.get("RAY_ADDRESS", "").startswith("ray://"):
        raise ConnectionError(
            "RAY_ADDRESS is one for Ray's client (ray://), which lists no actors: unset it, or HOST:PORT"
        )
    if address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_S).close()


if __name__ == "__main__":
    main(*sys.argv[1:])
