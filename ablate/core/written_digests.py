"""sha256 of files as this process wrote them: taken from the bytes on their way to the disk, so that none is read.

One counts for a file as it was left: of the same size and time of change, under whichever name. What a disk makes of
it afterwards is found by who reads it (`ablate verify`).
"""

import os

LEAST_BYTES = 1 << 20
"""Of a record that is written at once: smaller ones are as soon read again."""

_digests: dict[tuple[int, int, int, int], str] = {}


def note(status: os.stat_result, num_bytes: int, digest: str) -> None:
    """`status`: of the file once it was closed. Of one with other than `num_bytes` bytes, nothing is noted."""
    if status.st_size == num_bytes:
        _digests[as_left(status)] = digest


def known(status: os.stat_result) -> str | None:
    """-> the digest of a file that this process wrote and nobody has changed since; None of any other."""
    return _digests.get(as_left(status))


def as_left(status: os.stat_result) -> tuple[int, int, int, int]:
    """-> what tells a file from any other, and from itself once it was changed; links to it change another time."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
