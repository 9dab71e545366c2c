"""A report that is drawn again as its study goes on, beside a server that shows it on this machine's loopback."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ablate.core import disk, plain_files, processes
from ablate.core.errors import AblateError
from ablate.report.served_folder import LOOPBACK, PAGE, listening, port_of
from ablate.report.write import MADE

EVERY_S = 3.0
"""Between two looks; a report that takes longer to draw is drawn half the time at most."""


def watch(draw: Callable[[], Path], port: int | None, tell: Callable[[str], Any], every_s: float = EVERY_S) -> None:
    """Draws a report again whenever its study has come further, and shows it, until it is interrupted.

    `draw` writes the report where it is not current, and names its folder. Raises AblateError where no page is drawn,
    or the port is taken.
    """
    folder = draw()
    if not plain_files.is_file(folder / PAGE):
        raise AblateError(f"--watch shows {PAGE}, which {folder} lacks: add --format html")
    server = listening(folder, port, every_s)
    # a process of its own, which can write nothing that counts: to draw, this one forks, and must have no threads
    showing = multiprocessing.get_context("fork").Process(target=_serve, args=(server, os.getpid()), daemon=True)
    showing.start()
    try:
        tell(f"http://{LOOPBACK}:{port_of(server)}/ shows {folder} as it changes; Ctrl-C ends it")
        server.server_close()
        _draw_again(draw, folder, tell, every_s)
    finally:
        showing.terminate()
        showing.join()


def _draw_again(draw: Callable[[], Path], folder: Path, tell: Callable[[str], Any], every_s: float) -> None:
    last, trouble = inputs_of(folder), ""
    while True:
        begun = time.monotonic()
        try:
            draw()
            now = ""
        except AblateError as error:  # a study file in the middle of an edit: the next look may find it whole
            now = str(error)
        if now not in ("", trouble):
            tell(now)
        if (inputs := inputs_of(folder)) != last:
            tell(f"{time.strftime('%H:%M:%S')} drawn again")
        last, trouble = inputs, now
        time.sleep(max(every_s, time.monotonic() - begun))


def inputs_of(folder: Path) -> str | None:
    """-> what names all that a report was made from."""
    record = disk.read_json(folder / MADE)
    return record.get("inputs") if isinstance(record, dict) else None


def _serve(server: ThreadingHTTPServer, parent: int) -> None:
    """In a process of its own, which ends with the one that draws."""
    processes.die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that draws ends it
    server.serve_forever()
