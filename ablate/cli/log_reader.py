"""A log that grows, read again and again: opened anew each time, since a shared file system shows growth only so."""

import codecs
import sys
from pathlib import Path

from ablate.core import plain_files, shared_folders

CHUNK = 1 << 16
"""Bytes read and printed at once."""


class LogReader:
    """Prints what was added to a log since it was read last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._offset = 0
        self.has_text = False

    def print_rest(self) -> None:
        """What cannot be opened now has nothing to print."""
        shared_folders.look_afresh(self._path.parent)
        try:
            with plain_files.opened(self._path) as file:
                size = file.seek(0, 2)
                if size < self._offset:  # it had grown too large, and its middle was dropped
                    self._offset = size
                file.seek(self._offset)
                while data := file.read(CHUNK):
                    self._offset += len(data)
                    self._print(data)
        except FileNotFoundError:
            return

    def _print(self, data: bytes) -> None:
        self.has_text = True
        sys.stdout.write(self._decoder.decode(data))
        sys.stdout.flush()
