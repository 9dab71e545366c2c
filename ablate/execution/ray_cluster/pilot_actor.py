"""The actor that is a pilot job for Ray: it holds the job's resources, and its pilot lives no longer than it does.

Ray sends this module's code to the node, so it needs nothing that is not in the standard library and in Ray there.
"""

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

HIDDEN = ("RAY_", "PYTHONBREAKPOINT", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "LD_PRELOAD")
"""Variables of a worker process of Ray's, by their beginnings, which are none of a pilot's business."""

START_S = 300.0
"""For Python to be read from a shared disk by many nodes at once."""
SEEN_S = 3.0
"""For what was made a moment ago on another machine to be seen here."""


class PilotActor:
    """Its constructor starts the keeper of a pilot; it leaves when that has ended."""

    def __init__(self, command: Sequence[str], folder: str, settings: Mapping[str, str], has_card: bool) -> None:
        _require(folder, "the folder that --root names")
        _require(command[0], "the Python that ablate runs in")
        # Ray hides no card from an actor that asked for none
        cards = {} if has_card else {"CUDA_VISIBLE_DEVICES": ""}
        own = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
        keeper = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # held open as long as this process lives: a kill of any sort closes it
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=own | dict(settings) | cards,
            start_new_session=True,
        )
        assert keeper.stderr
        if keeper.wait(START_S) != 0:
            words = keeper.stderr.read().decode(errors="replace").split("\n")
            why = next(filter(None, reversed(words)), f"code {keeper.returncode}")
            raise RuntimeError(f"node {socket.gethostname()} could not run {' '.join(command[:4])}: {why}")
        keeper.stderr.close()  # it has no more to say
        self._keeper = keeper
        threading.Thread(target=self._leave_after_it, daemon=True).start()

    def _leave_after_it(self) -> None:
        assert self._keeper.stdout
        self._keeper.stdout.read()  # nothing is written: it is closed at the end
        os._exit(0)


def _require(path: str, what: str) -> None:
    """Raises RuntimeError where something is not here."""
    until = time.monotonic() + SEEN_S
    while not os.path.exists(path):  # noqa: PTH110 (Ray sends this code: the fewer names, the better)
        if time.monotonic() > until:
            node = socket.gethostname()
            raise RuntimeError(f"node {node} does not see {path}: {what} must be at the same path on all nodes")
        time.sleep(0.2)
        with contextlib.suppress(OSError):
            os.scandir(os.path.dirname(path)).close()  # noqa: PTH120 (NFS asks anew for names when a folder is opened)
