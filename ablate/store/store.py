"""runs/: where stages, attempts and studies live. Files are the truth; every path is made here."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ablate.core import disk, plain_files
from ablate.core.errors import AblateError
from ablate.core.file_digests import remember_sha256
from ablate.core.plain_files import Entry
from ablate.core.values import Json
from ablate.store import study_records
from ablate.store.attempt import Attempt
from ablate.store.manifest import damage_of, durable_listing, read_manifest, sound_manifest
from ablate.store.stage import Stage


def is_number(name: str) -> bool:
    """Whether an attempt's folder is called so: as a number is written, so that none has two names."""
    return name.isascii() and name.isdecimal() and name == str(int(name))


class Store:
    """The folder runs/ under a root."""

    def __init__(self, root: Path) -> None:
        self.root = _resolved(root)
        self.runs = self.root / "runs"
        self.checks = self.runs / "checks"
        """What was found sound of machines that worked here."""
        self.tokens = self.runs / "tokens"
        """Of questions, for all models of a tokenizer."""
        self._last_claims: dict[str, int] = {}
        """By key12: no number is given twice in a run, whatever is removed meanwhile and may still be written to."""
        self.foreseen: dict[str, Any] = {}
        """By key of a stage that is not done: sizes of its model or its rows, where a question goes by what they will
        be."""
        self.aside = self.runs / "aside"
        """What was no result, or had no business where it lay."""

    def entries(self, *names: str) -> list[Entry]:
        """-> what lies in a folder of runs/, by name; nothing where it, or one above it, is a link or no folder."""
        return plain_files.entries(self.runs, *names)

    def folders(self, *names: str) -> list[Path]:
        """-> the folders in a folder of runs/."""
        return [entry.path for entry in self.entries(*names) if entry.what == "a folder"]

    # stages

    def folder(self, stage: Stage) -> Path:
        return self.runs / "stages" / stage.folder

    def done(self, stage: Stage) -> dict[str, Any] | None:
        """-> the manifest of a committed stage (files, content), or None.

        A folder whose payload is another one, or with a file that lacks or is not what was committed, is no result.
        """
        return sound_manifest(self.folder(stage)) if self._is_named(stage) else None

    def damage(self, stage: Stage) -> str | None:
        """-> what is wrong with a folder that lies at a stage's place, or None."""
        folder = self.folder(stage)
        if plain_files.what_is(folder) is None:
            return None
        return damage_of(folder) or (None if self._is_named(stage) else "stage.json is of another stage")

    def _is_named(self, stage: Stage) -> bool:
        record = disk.read_json(self.folder(stage) / "stage.json")
        return isinstance(record, dict) and record.get("payload") == stage.payload

    def diverged(self, stage: Stage) -> str | None:
        """-> "diverged at step N: ..." for a committed training whose loss was no longer finite."""
        record = disk.read_json(self.folder(stage) / "stage.json")
        return record.get("diverged") if isinstance(record, dict) else None

    def content(self, stage: Stage) -> str | None:
        """-> the digest of what a committed stage made, where its kind is named by content; a damaged one's too."""
        manifest = read_manifest(self.folder(stage)) if self._is_named(stage) else None
        return manifest["content"] if manifest else None

    def set_aside(self, stage: Stage) -> None:
        """Moves a stage folder that is no result out of the way, for a person to look at."""
        folder = self.folder(stage)
        for entry in plain_files.below(folder) if plain_files.is_folder(folder) else ():
            with contextlib.suppress(PermissionError, FileNotFoundError), plain_files.opened(entry.path) as file:
                file.read(1)  # raises where the disk has a fault: what cannot be read now may be whole
        self.move_aside(folder)

    def move_aside(self, path: Path) -> Path:
        """Renames whatever lies at a place under runs/ into aside/. -> where it is."""
        disk.make_folder(self.aside)
        return disk.move_aside(path, self.aside)

    def is_begun(self, stage: Stage) -> bool:
        """Whether it is done, or was tried."""
        return self.done(stage) is not None or bool(self.attempts(stage.key12))

    # attempts

    def attempts(self, key12: str) -> list[Attempt]:
        """Oldest first."""
        folder = self.runs / "attempts" / key12
        names = (path.name for path in self.folders("attempts", key12))
        return [Attempt(folder / str(number)) for number in sorted(int(name) for name in names if is_number(name))]

    def all_attempts(self) -> Iterator[Attempt]:
        """At every stage, those at one stage together, oldest first."""
        for folder in self.folders("attempts"):
            yield from self.attempts(folder.name)

    def claim(self, key12: str) -> Attempt:
        """-> a new, empty attempt folder; making it is the claim, so two callers never get the same one."""
        parent = self.runs / "attempts" / key12
        disk.make_folder(parent)
        while True:
            if plain_files.what_is(parent) is not None and not plain_files.is_folder(parent, levels=2):
                raise AblateError(f"{parent} is no folder of its own, or below a link: `ablate run` sets it aside")
            taken = [int(name) for path, _ in self.entries("attempts", key12) if is_number(name := path.name)]
            attempt = Attempt(parent / str(max([self._last_claims.get(key12, 0), *taken]) + 1))
            try:
                disk.make_new_folder(attempt.path)
            except FileExistsError:
                # where another machine made it, this one may not list it for seconds: on to the next number
                self._last_claims[key12] = attempt.number
                continue
            except FileNotFoundError:  # a garbage collection has found nothing in it
                disk.make_folder(parent)
                continue
            self._last_claims[key12] = attempt.number
            return attempt

    def commit(self, attempt: Attempt, stage_folder: str, content: str | None) -> bool:
        """Makes an attempt's result the stage's by one rename. -> False when another attempt was first."""
        files = durable_listing(attempt.staging)
        manifest = {"files": files, "content": content, "attempt": attempt.number}
        disk.write_sealed(attempt.staging / "done.json", manifest)
        target = self.runs / "stages" / stage_folder
        disk.make_folder(target.parent)
        try:
            disk.rename(attempt.staging, target)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                disk.remove_tree(attempt.staging)
                return False
            if plain_files.what_is(target) in ("a folder", None):
                raise
            self.move_aside(target)  # no result ever, whoever put it there meanwhile
            disk.rename(attempt.staging, target)
        for name, listed in files.items():
            remember_sha256(target / name, listed["sha256"])
        disk.remove_tree(attempt.checkpoints)
        return True

    # studies

    def study_names(self) -> list[str]:
        """Of those that were run here, or are begun."""
        return [path.name for path in self.folders("studies")]

    def study_folder(self, name: str) -> Path:
        return self.runs / "studies" / name

    def record_study(self, name: str, record: dict[str, Json]) -> None:
        """Keeps a study as it is run, beside how it was run with other overrides, and that it was the last one."""
        folder = self.study_folder(name)
        disk.make_folder(folder)
        study_records.write(folder, record)
        disk.write(self.runs / "last", name)

    def recorded_study(self, name: str | None = None) -> dict[str, Any]:
        """-> the record of a study as it was run, of the one run last when no name is given.

        Raises AblateError when there is none.
        """
        if name is None:
            with contextlib.suppress(OSError):
                name = plain_files.read_text(self.runs / "last").strip()
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
        folder = self.study_folder(name)
        return study_records.read(study_records.last(folder)) if plain_files.is_folder(folder, levels=2) else None

    def study_variants(self, name: str) -> list[Path]:
        """-> the records of a study as it was run with other overrides than last, or from another file."""
        return study_records.others(self.study_folder(name))

    def jobs_folder(self, name: str) -> Path:
        """-> what a study has on clusters."""
        return self.runs / "jobs" / name

    def report_folder(self, name: str) -> Path:
        return self.root / "reports" / name


def _resolved(root: Path) -> Path:
    try:
        return root.resolve()
    except RuntimeError as error:  # how Python calls a link that leads to itself
        raise AblateError(f"--root {root} is a link that leads to itself: give the folder that is meant") from error
