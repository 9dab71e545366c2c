"""The actor that is a pilot job for Ray: it holds the job's resources, and its pilot lives no longer than it does.

Ray sends this module's code to the node, so it needs nothing that is not in the standard library and in Ray there.
"""

import os
import subprocess
import threading
from collections.abc import Mapping, Sequence

HIDDEN = ("RAY_", "PYTHONBREAKPOINT", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "LD_PRELOAD")
"""Variables of a worker process of Ray's, by their beginnings, which are none of a pilot's business."""


class PilotActor:
    """Its constructor starts the keeper of a pilot; it leaves when that has ended."""

    def __init__(self, command: Sequence[str], folder: str, settings: Mapping[str, str], has_card: bool) -> None:
        # Ray hides no card from an actor that asked for none
        cards = {} if has_card else {"CUDA_VISIBLE_DEVICES": ""}
        own = {name: value for name, value in os.environ.items() if not name.startswith(HIDDEN)}
        keeper = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # held open as long as this process lives: a kill of any sort closes it
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=own | dict(settings) | cards,
            start_new_session=True,
        )
        if keeper.wait(60) != 0:
            raise RuntimeError(f"{command[0]} on this node could not start {command[-2]}: code {keeper.returncode}")
        self._keeper = keeper
        threading.Thread(target=self._leave_after_it, daemon=True).start()

    def _leave_after_it(self) -> None:
        assert self._keeper.stdout
        self._keeper.stdout.read()  # nothing is written: it is closed at the end
        os._exit(0)
