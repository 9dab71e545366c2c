"""A pilot's keeper on a node of Ray's: it starts the pilot, and ends all that came of it once the actor is gone.

It is no child of Ray's: that kills its children first, and what they had started would live on.
"""

import os
import select
import subprocess
import sys
from pathlib import Path

from ablate.core import descendants, disk, processes, secrets
from ablate.execution.executors.base import python
from ablate.execution.pilots.pilot_job import PilotJob

TICK_S = 0.2


def main(folder: Path) -> None:
    """Returns once nothing is left of the pilot. Its standard input is open for as long as the actor lives."""
    descendants.adopt_orphans()
    pilot = _start(PilotJob(folder))
    while pilot.poll() is None and not is_closed(0):
        descendants.reap(but=pilot.pid)
    descendants.kill_all()


def _start(job: PilotJob) -> "subprocess.Popen[bytes]":
    """What the pilot prints itself goes into its log. No token of the node's is known to it."""
    keeper = os.getpid()
    with disk.opened_to_append(job.log) as log:
        return subprocess.Popen(
            python("ablate.execution.pilots.pilot", str(job.path)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=job.path,
            env={name: value for name, value in os.environ.items() if not secrets.is_named_so(name)},
            start_new_session=True,
            preexec_fn=lambda: processes.die_with_parent(keeper),  # no thread runs here: nothing can be held
        )


def is_closed(handle: int) -> bool:
    """Whether the other end of a pipe is, after a tick at most."""
    readable, _, _ = select.select([handle], [], [], TICK_S)
    return bool(readable) and not os.read(handle, 1)


if __name__ == "__main__":
    if os.fork():
        os._exit(0)  # for whoever waits: it has begun
    main(Path(sys.argv[1]))
