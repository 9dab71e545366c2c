"""Which files hold rows, by their names, and their bytes: decompressed, and as lines of UTF-8 text."""

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from ablate.study.row_files.raw import Skipped, UnreadableRows, wrong_at

TEXT_FORMS: Final = (".json", ".jsonl", ".csv", ".tsv")
COMPRESSIONS: Final = (".gz", ".zst", ".bz2", ".xz")
POSSIBLE: Final = f"{', '.join((*TEXT_FORMS, '.parquet'))} ({', '.join(COMPRESSIONS)} of the first four too)"
BOM: Final = b"\xef\xbb\xbf"

_BEGINNINGS: Final = {
    b"\x1f\x8b": "it is gzip: its name should end with .gz",
    b"\x28\xb5\x2f\xfd": "it is zstd: its name should end with .zst",
    b"BZh": "it is bzip2: its name should end with .bz2",
    b"\xfd7zXZ": "it is xz: its name should end with .xz",
    b"PAR1": "it is parquet: its name should end with .parquet",
    b"PK\x03\x04": "it is a zip archive: unpack it",
    b"\xff\xfe": "it is UTF-16: save it as UTF-8",
    b"\xfe\xff": "it is UTF-16: save it as UTF-8",
    b"version https://git-lfs": "it is git-lfs's note of where the file is, not the file: `git lfs pull` brings it",
}


class Form(NamedTuple):
    """What a file is by its name."""

    suffix: str
    """.json, .jsonl, .csv, .tsv or .parquet."""
    compression: str = ""


class TextLines:
    """The lines of a text, without its byte-order mark; those in the first `most` bytes, where that is given."""

    def __init__(self, path: Path, form: Form, most: int | None, skipped: Skipped) -> None:
        self._path, self._form, self._most, self._skipped = path, form, most, skipped

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """-> number and text of each line, its end included; a lone carriage return ends one too.

        Of a text that is longer than may be read, the last line is left out: it may be cut.
        """
        num_lines = num_bytes = 0
        with opened(self._path, self._form) as file:
            while raw := file.readline(-1 if self._most is None else self._most - num_bytes + 1):
                num_bytes += len(raw)
                if self._most is not None and num_bytes > self._most:
                    self._skipped.is_cut = True
                    return
                for line in (raw.removeprefix(BOM) if num_lines == 0 else raw).splitlines(keepends=True):
                    num_lines += 1
                    yield num_lines, decoded(line, str(self._path), num_lines)


def form_of(name: str) -> Form | None:
    """-> the form of a file by its name, None for one that no rows are read from."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    if suffixes[-1:] == [".parquet"]:
        return Form(".parquet")
    compression = suffixes.pop() if suffixes[-1:] and suffixes[-1] in COMPRESSIONS else ""
    return Form(suffixes[-1], compression) if suffixes and suffixes[-1] in TEXT_FORMS else None


@contextlib.contextmanager
def opened(path: Path, form: Form) -> Iterator[IO[bytes]]:
    """-> the file's bytes, decompressed. Raises UnreadableRows for a file that is not what its name says."""
    try:
        with _OPENERS[form.compression](path) as file:
            yield file
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        hint = "" if isinstance(error, EOFError) or not form.compression else why_not(path)
        hint = "" if hint.endswith(form.compression or "?") else hint
        what = getattr(error, "strerror", None) or error
        raise UnreadableRows(f"{path}: cannot be read as {form.compression or 'a file'}: {what}{hint}") from error


def _opened_zstd(path: Path) -> IO[bytes]:
    import pyarrow  # type: ignore[import-untyped]

    stream: Any = pyarrow.input_stream(str(path), compression="zstd")
    return io.BufferedReader(stream)


_OPENERS: Final[dict[str, Callable[[Path], Any]]] = {
    "": lambda path: path.open("rb"),
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _opened_zstd,
}


def decoded(raw: bytes, file: str, line: int) -> str:
    """-> bytes of a file, from the beginning of a line on, as text. Raises UnreadableRows for what is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line += before.count(b"\n")
        column = error.start - before.rfind(b"\n")
        hint = _by_beginning(raw) if line == 1 and column <= 12 else ""
        hint = hint or ": is it Latin-1 or Windows-1252? Save the file as UTF-8"
        raise wrong_at(file, line, column, f"byte 0x{raw[error.start]:02x} is not UTF-8{hint}") from error


def why_not(path: Path) -> str:
    """-> what a file seems to be by its first bytes: ": it is gzip, ...", or nothing."""
    with path.open("rb") as file:
        return _by_beginning(file.read(32))


def _by_beginning(raw: bytes) -> str:
    return next((f": {what}" for begin, what in _BEGINNINGS.items() if raw.startswith(begin)), "")
