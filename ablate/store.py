"""runs/: where stages, attempts and studies live. Files are the truth; every path is made here."""

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate import content as contents
from ablate import disk
from ablate.committed import damage_of, is_listing, manifest_of, said_of
from ablate.errors import AblateError
from ablate.model import Json
from ablate.stage import Stage

ORDER = frozenset({
    "kind", "version", "payload", "key", "settings", "inputs", "aids", "slot", "is_online", "stall_s", "grace_s",
    "label", "study", "driver",
})  # fmt: skip
EXIT = frozenset({"failure", "message", "at", "seconds", "records"})
STUDY = frozenset({"study", "source", "overrides", "pins", "digests", "contents"})
"""Fields of attempt.json, exit.json and study.json."""
CHECKPOINTS_KEPT = 2
LARGE = 1 << 24
_digests: dict[tuple[int, int, int, int], str] = {}
"""Of large files, by device, inode, size and time."""


@dataclass(frozen=True)
class Attempt:
    """One try at a stage, in a private folder: runs/attempts/<key12>/<n>."""

    path: Path

    @property
    def key12(self) -> str:
        return self.path.parent.name

    @property
    def number(self) -> int:
        return int(self.path.name)

    @property
    def made(self) -> Path:
        """What is being built; renamed to runs/stages/... when whole."""
        return self.path / "made"

    @property
    def out(self) -> Path:
        return self.made / "out"

    @property
    def metrics(self) -> Path:
        return self.made / "metrics.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def heartbeat(self) -> Path:
        return self.path / "heartbeat"

    @property
    def progress(self) -> Path:
        return self.path / "progress.json"

    @property
    def stop_request(self) -> Path:
        """Exists once somebody asked this attempt to stop."""
        return self.path / "stop"

    @property
    def worker(self) -> Path:
        """worker.json: identity of the supervisor that works here; made once, so that there is one."""
        return self.path / "worker.json"

    @property
    def order(self) -> dict[str, Any] | None:
        """attempt.json: what the worker was told to do, and who told it."""
        return disk.read_sealed(self.path / "attempt.json", ORDER)

    @property
    def exit(self) -> dict[str, Any] | None:
        """exit.json: how it ended; None while it runs, or when it was killed before it could say."""
        return disk.read_sealed(self.path / "exit.json", EXIT)

    def write_order(self, order: dict[str, Any]) -> None:
        disk.write_sealed(self.path / "attempt.json", order)

    def write_exit(self, **record: Any) -> None:
        """`failure` is ok or a class of `ablate.failures`; `message` is for a reader."""
        disk.write_sealed(self.path / "exit.json", record | {"records": dict(_digests_of(self._records()))})

    def _records(self) -> list[Path]:
        """What lies beside exit.json and changes no more; a log may still get a line."""
        passing = ("exit.json", "stop")
        return [p for p in sorted(self.path.iterdir()) if p.is_file() and p.name not in passing and p.name[0] != "."]


class Store:
    """The folder runs/ under a root."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.runs = self.root / "runs"
        self.checks = self.runs / "checks"
        """What was found sound of machines that worked here."""
        self.tokens = self.runs / "tokens"
        """Of questions, for all models of a tokenizer."""

    # stages

    def folder(self, stage: Stage) -> Path:
        return self.runs / "stages" / stage.folder

    def done(self, stage: Stage) -> dict[str, Any] | None:
        """-> the manifest of a committed stage (files, content), or None.

        A folder whose payload is another one, or with a file that lacks or is not what was committed, is no result.
        """
        return manifest_of(self.folder(stage)) if self._is_named(stage) else None

    def damage(self, stage: Stage) -> str | None:
        """-> what is wrong with a folder that lies at a stage's place, or None."""
        folder = self.folder(stage)
        if not folder.is_dir():
            return None
        return damage_of(folder) or (None if self._is_named(stage) else "stage.json is of another stage")

    def _is_named(self, stage: Stage) -> bool:
        record = disk.read_json(self.folder(stage) / "stage.json")
        return isinstance(record, dict) and record.get("payload") == stage.payload

    def diverged(self, stage: Stage) -> str | None:
        """-> "diverged at step N: ..." for a committed training whose loss was no longer finite."""
        record = disk.read_json(self.folder(stage) / "stage.json")
        return record.get("diverged") if record else None

    def content(self, stage: Stage) -> str | None:
        """-> the digest of what a committed stage made, where its kind is named by content; a damaged one's too."""
        manifest = said_of(self.folder(stage)) if self._is_named(stage) else None
        return manifest["content"] if manifest else None

    def set_aside(self, stage: Stage) -> None:
        """Moves a stage folder that is no result out of the way, for a person to look at."""
        folder = self.folder(stage)
        for path in (path for path in folder.rglob("*") if not path.is_dir()):
            with path.open("rb") as file:
                file.read(1)  # raises where the disk has a fault: what cannot be read now may be whole
        aside = self.runs / "aside"
        disk.make_folder(aside)
        for number in range(1, 10_000):
            target = aside / f"{folder.name}.{number}"
            if not target.exists():
                disk.rename(folder, target)
                return

    # attempts

    def attempts(self, key12: str) -> list[Attempt]:
        """Oldest first."""
        folder = self.runs / "attempts" / key12
        try:
            numbers = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
        except FileNotFoundError:
            return []
        return [Attempt(folder / str(number)) for number in numbers]

    def claim(self, key12: str) -> Attempt:
        """-> a new, empty attempt folder; making it is the claim, so two callers never get the same one."""
        parent = self.runs / "attempts" / key12
        disk.make_folder(parent)
        while True:
            before = self.attempts(key12)
            attempt = Attempt(parent / str(before[-1].number + 1 if before else 1))
            try:
                disk.make_new_folder(attempt.path)
            except FileExistsError:
                continue
            except FileNotFoundError:  # a garbage collection has found nothing in it
                disk.make_folder(parent)
                continue
            return attempt

    def commit(self, attempt: Attempt, stage_folder: str, content: str | None) -> bool:
        """Makes an attempt's result the stage's by one rename. -> False when another attempt was first."""
        files = {name: {"size": size, "sha256": sha} for name, size, sha in _digested(attempt.made)}
        manifest = {"files": files, "content": content, "attempt": attempt.number}
        disk.write_sealed(attempt.made / "done.json", manifest)
        target = self.runs / "stages" / stage_folder
        disk.make_folder(target.parent)
        try:
            disk.rename(attempt.made, target)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                disk.remove_tree(attempt.made)
                return False
            raise
        for name, of in files.items():
            contents.remember(target / name, str(of["sha256"]))
        disk.remove_tree(attempt.checkpoints)
        return True

    # studies

    def study_folder(self, name: str) -> Path:
        return self.runs / "studies" / name

    def record_study(self, name: str, record: dict[str, Json]) -> None:
        """Keeps a study as it was run, and that it was the last one."""
        folder = self.study_folder(name)
        disk.make_folder(folder)
        # in the order of the study file: the first pair is the default, and tables follow the order of the axes
        disk.write_sealed(folder / "study.json", record)
        disk.write(self.runs / "last", name)

    def recorded_study(self, name: str | None = None) -> dict[str, Any]:
        """-> the record of a study as it was run, of the one run last when no name is given.

        Raises AblateError when there is none.
        """
        last = self.runs / "last"
        if name is None and last.is_file():
            name = last.read_text().strip()
        record = self.study_record(name) if name else None
        if record is None and name and (self.study_folder(name) / "study.json").exists():
            raise AblateError(
                f"the record of study {name!r} is damaged: `ablate run` of its file writes it again (with the --set of"
                " then), and nothing that is done is done again"
            )
        if record is None:
            raise AblateError(
                f"no study {name or ''} was run under {self.runs}".replace("  ", " ")
                + ": give a study file, or the --root it was run with"
            )
        return record

    def study_record(self, name: str) -> dict[str, Any] | None:
        """-> the record of a study as it was run last, or None when there is none, or none that can be trusted."""
        return disk.read_sealed(self.study_folder(name) / "study.json", STUDY)

    def report_folder(self, name: str) -> Path:
        return self.root / "reports" / name


class Checkpoints:
    """The checkpoints of one attempt: step-<n> folders, complete or ignored, the last two kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.save_s = 0.0
        """How long the last save took."""

    def complete(self) -> list[tuple[int, Path]]:
        """Oldest first; only those whose every file has the size and digest its manifest says."""
        found = []
        for path in self._steps():
            manifest = disk.read_json(path / "manifest.json")
            if manifest and is_listing(manifest) and all(_is(path / name, of) for name, of in manifest.items()):
                found.append((int(path.name.removeprefix("step-")), path))
        return sorted(found)

    def _steps(self) -> list[Path]:
        try:
            return list(self.folder.glob("step-*"))
        except FileNotFoundError:  # removed meanwhile, by whoever committed the stage
            return []

    def latest(self) -> tuple[int, Path] | None:
        complete = self.complete()
        return complete[-1] if complete else None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """`write` fills an empty folder; it counts once its manifest is there. Older ones go only then."""
        path, began = self.folder / f"step-{step}", time.monotonic()
        disk.remove_tree(path)
        disk.make_folder(path)
        write(path)
        disk.write_json(path / "manifest.json", {n: {"size": size, "sha256": sha} for n, size, sha in _digested(path)})
        disk.sync_folder(self.folder)
        self.save_s = time.monotonic() - began
        for _, old in self.complete()[:-CHECKPOINTS_KEPT]:
            disk.unlink(old / "manifest.json")
            disk.remove_tree(old)

    def adopt(self, others: "Checkpoints") -> None:
        """Takes over the latest checkpoint of an earlier attempt; the files are shared, never changed."""
        latest = others.latest()
        if latest is None:
            return
        step, source = latest
        path = self.folder / f"step-{step}"
        disk.make_folder(path)
        for file in sorted(source.iterdir(), key=lambda file: file.name == "manifest.json"):
            disk.link(file, path / file.name)
        disk.sync_folder(path)


def _digests_of(paths: Iterable[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # a killed worker's child is still at its last write
            data = path.read_bytes()
            yield path.name, {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _digested(folder: Path) -> Iterator[tuple[str, int, str]]:
    """Every file below a folder, made durable: (relative name, size, sha256)."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / "done.json":
            disk.sync_file(path)
            yield path.relative_to(folder).as_posix(), path.stat().st_size, _sha256(path)
        elif path.is_dir():
            disk.sync_folder(path)


def _sha256(path: Path) -> str:
    """Large files, which are linked from checkpoint to checkpoint and never changed, are read once a process."""
    of = path.stat()
    if of.st_size < LARGE:
        return _read_sha256(path)
    known = (of.st_dev, of.st_ino, of.st_size, of.st_mtime_ns)
    if known not in _digests:
        _digests[known] = _read_sha256(path)
    return _digests[known]


def _read_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is(path: Path, of: dict[str, Any]) -> bool:
    return _has(path, of["size"]) and _sha256(path) == of["sha256"]


def _has(path: Path, size: int) -> bool:
    try:
        return os.stat(path).st_size == size  # noqa: PTH116 (one call, thousands of files)
    except OSError:
        return False
