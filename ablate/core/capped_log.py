"""log.txt of an attempt: whatever a stage prints but tokens and passwords, bounded, its beginning and its end kept."""

import contextlib
import os
from pathlib import Path

from ablate.core import disk, plain_files
from ablate.core.errors import without_secrets

HEAD_BYTES = 4 << 20
TAIL_BYTES = 8 << 20
CAP_BYTES = 20 << 20
MAX_LINE_BYTES = 4096
"""That wait for their end."""
TAIL_READ_BYTES = 64 << 10


class CappedLog:
    """Appends bytes of any encoding; past `cap` bytes the middle is dropped, and the file says so."""

    def __init__(self, path: Path, *, head: int = HEAD_BYTES, tail: int = TAIL_BYTES, cap: int = CAP_BYTES) -> None:
        self.path, self.head, self.tail, self.cap = path, head, tail, cap
        with contextlib.suppress(OSError):  # what a full disk cannot keep of a log ends nothing
            disk.append(path, b"")
        self.num_bytes = 0
        """Ever written, also what was dropped since."""
        self._unfinished = b""

    def write(self, data: bytes) -> None:
        """The last line, unfinished, waits for what comes next, so that no half of a token gets by."""
        self.num_bytes += len(data)
        data = self._unfinished + data
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if len(data) - end > MAX_LINE_BYTES:
            end = data.rfind(b" ", len(data) - MAX_LINE_BYTES) + 1 or len(data)
        self._unfinished = data[end:]
        self._append(data[:end])

    def flush(self) -> None:
        """Nothing comes after the last line."""
        data, self._unfinished = self._unfinished, b""
        self._append(data)

    def _append(self, data: bytes) -> None:
        if not data:
            return
        size = disk.append(self.path, without_secrets(data.decode("latin-1")).encode("latin-1"))
        if size > self.cap:
            self._drop_middle()

    def _drop_middle(self) -> None:
        with plain_files.opened(self.path) as file:
            head = file.read(self.head)
            file.seek(-self.tail, os.SEEK_END)
            tail = file.read()
        note = f"\n[ablate: the log grew past {self.cap:,} bytes; its middle was dropped]\n".encode()
        disk.write_volatile(self.path, head + note + tail)


def tail(path: Path, num_lines: int) -> list[str]:
    """-> the last lines of a log, at most TAIL_READ_BYTES of it read, what is not UTF-8 shown as such."""
    if not plain_files.is_file(path):
        return []
    with plain_files.opened(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_READ_BYTES))
        lines = file.read(TAIL_READ_BYTES).decode(errors="replace").splitlines()
    return [line[:500] for line in lines[-num_lines:]]
