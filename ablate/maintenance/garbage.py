"""What under runs/ no study at hand needs, and its removal: first out of sight by one rename, then for good."""

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ablate.core import disk, plain_files, processes
from ablate.core.processes import Identity
from ablate.core.temporary_files import writer_of
from ablate.execution import study_lock
from ablate.execution.pilots.pilot_job import jobs_in
from ablate.execution.workers import Workers
from ablate.store.attempt import Attempt
from ablate.store.checkpoints import Checkpoints
from ablate.store.manifest import read_manifest, sound_manifest
from ablate.store.store import Store

MIN_AGE_S = 300.0
"""What was touched more recently may be in the hands of a run that has not signed yet."""
TOKENS_S = 30 * 86_400.0
"""Tokens of questions that nobody asked for so long are made again when somebody does."""
TRASH_S = 86_400.0
"""A garbage collection of a machine that cannot be asked is over after so long."""
DOOMED = ".doomed"
"""How the name of a trash folder ends once nothing of it is put back any more."""


class References(NamedTuple):
    """What the studies at hand need."""

    folders: frozenset[str]
    """Of stages."""
    doubts: tuple[str, ...] = ()
    """Why that may not be all: then no stage is removed."""
    variants: Mapping[Path, str] = MappingProxyType({})
    """Records of studies as they were run otherwise than last -> the command that runs them so again."""

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(name.rpartition("-")[2] for name in self.folders)


class Piece(NamedTuple):
    """Something to be removed."""

    path: Path
    what: str
    """stage, attempt, job, set aside, tokens, temporary or trash."""
    why: str
    num_bytes: int


def find(store: Store, references: References, min_age_s: float = MIN_AGE_S) -> list[Piece]:
    """-> what nobody needs, nobody is at work on, and nobody has touched for a while."""
    workers = Workers()
    unneeded = (
        *_stages(store, references, workers),
        *_attempts(store, references, workers),
        *_jobs(store),
        *_others(store),
    )
    return [piece for piece in unneeded if _age_s(piece.path) >= min_age_s]


def remove(store: Store, pieces: Sequence[Piece], before: References, look_again: Callable[[], References]) -> int:
    """Removes pieces that `find` gave with the references of `before`. -> bytes freed.

    A run records its study before it looks for what is done. So whatever it saw done before the pieces were moved
    away is needed by a study that is recorded when we look again: that is put back.
    """
    me = processes.identity()
    assert me
    trash = _new_trash(store, me)
    for piece in pieces:
        _move(piece.path, trash / piece.path.relative_to(store.root))
    _restore(store, trash, before, look_again())
    freed = num_freed([_piece(path, "trash", "") for path in trash.iterdir() if plain_files.is_folder(path)])
    doomed = trash.with_name(f"{trash.name}{DOOMED}")
    disk.rename(trash, doomed)
    disk.remove_tree(doomed)
    return freed


def num_freed(pieces: Collection[Piece]) -> int:
    """-> bytes of all the files that lose their last name: attempts share checkpoints."""
    stats = [stat for piece in pieces for path in _files(piece.path) if (stat := _stat(path))]
    names: dict[tuple[int, int], int] = {}
    for stat in stats:
        names[stat.st_dev, stat.st_ino] = names.get((stat.st_dev, stat.st_ino), 0) + 1
    files = {(stat.st_dev, stat.st_ino): stat for stat in stats}
    return sum(stat.st_size for file, stat in files.items() if names[file] >= stat.st_nlink)


# what is to be removed


def _stages(store: Store, references: References, workers: Workers) -> Iterator[Piece]:
    if references.doubts:
        return
    kept = references.folders | _in_hand(store, workers)
    for path, _ in store.entries("stages"):
        if path.name not in kept:
            is_cache = path.name.startswith("teacher_cache-")
            why = "no distillation that is still to be done reads it" if is_cache else "no study at hand needs it"
            yield _piece(path, "stage", why)


def _in_hand(store: Store, workers: Workers) -> frozenset[str]:
    """-> names of the stages that are being made, and of what they are made from."""
    requests = [one for attempt in store.all_attempts() if _is_at_work(attempt, workers) and (one := attempt.request)]
    own = (f"{request['kind']}-{request['key'][:12]}" for request in requests)
    used = (request.get("inputs", {}) | request.get("aids", {}) for request in requests)
    return frozenset([*own, *(Path(one["folder"]).name for named in used for one in named.values())])


def _attempts(store: Store, references: References, workers: Workers) -> Iterator[Piece]:
    held = {name for name in store.study_names() if study_lock.driver_of(store, name)}
    for path in store.folders("attempts"):
        tries = store.attempts(path.name)
        is_needed = bool(tries) and (path.name in references.keys or bool(references.doubts))
        kept, why = _kept(store, tries, workers) if is_needed else ([], "a try at what no study at hand needs")
        free = (one for one in tries if one not in kept and _is_free(one, held, workers))
        yield from (_piece(one.path, "attempt", why) for one in free)


def _is_free(attempt: Attempt, held: Collection[str], workers: Workers) -> bool:
    """Whether nobody is at work on it, and no study that is being run (`held`) may go on from it."""
    request = attempt.request
    is_held = request["study"] in held if request else bool(held)
    return not is_held and not _is_at_work(attempt, workers)


def _kept(store: Store, tries: Sequence[Attempt], workers: Workers) -> tuple[list[Attempt], str]:
    """-> the tries at a needed stage that stay, and why the others go.

    Of a stage that is done, the one that made it and the last one, for their logs. Else the last one, and that from
    whose checkpoint the next would go on.
    """
    folders = store.folders("stages")
    folder = next((path for path in folders if path.name.endswith(f"-{tries[-1].key12}")), None)
    if folder:
        made_by = (read_manifest(folder) or {}).get("attempt")
        return [a for a in tries if a.number == made_by or a == tries[-1]], "a try at a stage that is done"
    over = [attempt for attempt in tries if not _is_at_work(attempt, workers)]
    steps = {a: latest[0] for a in over if (latest := Checkpoints(a.checkpoints).latest())}
    furthest = max(steps, key=lambda attempt: (steps[attempt], attempt.number), default=tries[-1])
    return [furthest, tries[-1]], "a later try has got as far"


def _jobs(store: Store) -> Iterator[Piece]:
    """The last of a study stays: its number is not given again, by which the cluster may still know it."""
    for folder in store.folders("jobs"):
        for job in list(jobs_in(folder))[:-1]:
            tries = [attempt for entry in job.entries() if (attempt := job.attempt(entry))]
            is_over = job.is_closed or not job.request.exists()  # its driver was killed while it made it
            if is_over and all(attempt.exit or not attempt.path.exists() for attempt in tries):
                yield _piece(job.path, "job", "a job of a cluster that is over")


def _others(store: Store) -> Iterator[Piece]:
    for path, _ in store.entries("aside"):
        yield _piece(path, "set aside", "it was no result when a run came to it")
    for path, _ in store.entries("tokens"):
        if (stat := _stat(path)) and time.time() - stat.st_mtime > TOKENS_S:
            yield _piece(path, "tokens", f"not used for {TOKENS_S / 86_400:.0f} days")
    for top in ("runs", "reports"):
        for path in disk.files_below(store.root / top):
            if _is_abandoned(path) and store.runs / "trash" not in path.parents:
                yield _piece(path, "temporary", "left by a process that is gone")
    for path, _ in plain_files.entries(store.root / "reports"):
        if _is_abandoned(path):
            yield _piece(path, "temporary", "a report that was being written by a process that is gone")
    for path, _ in store.entries("trash"):
        if not _is_in_use(path):
            yield _piece(path, "trash", "left by a garbage collection that was broken off")


def _is_abandoned(path: Path) -> bool:
    """No writing takes as long as MIN_AGE_S; a process of another machine may have the number of one here."""
    writer = writer_of(path)
    return writer is not None and processes.identity(writer) is None


def _is_at_work(attempt: Attempt, workers: Workers) -> bool:
    return attempt.exit is None and workers.is_live(attempt)


# its removal


def _new_trash(store: Store, me: Identity) -> Path:
    """-> a folder of our own: another garbage collection leaves it alone as long as we live."""
    parent = store.runs / "trash"
    disk.make_folder(parent)
    trash = parent / f"{me.pid}.{me.started}.{time.time_ns()}"
    disk.make_new_folder(trash)
    disk.write_json(trash / "owner.json", me.model_dump())
    return trash


def _is_in_use(trash: Path) -> bool:
    owner = disk.read_json(trash / "owner.json")
    contact = processes.contact(Identity.model_validate(owner)) if owner else "gone"
    return contact == "alive" or (contact == "unknown" and _age_s(trash) < TRASH_S)


def _move(source: Path, target: Path) -> None:
    """What another garbage collection, or a run, has moved meanwhile is left alone."""
    disk.make_folder(target.parent)
    try:
        disk.rename(source, target)
    except FileNotFoundError:
        return
    if source.parent.parent.name == "attempts":
        with contextlib.suppress(OSError):  # others are left in it
            disk.remove_empty(source.parent)


def _restore(store: Store, trash: Path, before: References, now: References) -> None:
    """Puts back what is needed after all, unless it was made again; also from one that was broken off."""
    new_keys = now.keys - before.keys
    for top in _trashes(trash):
        stages = [
            path
            for path in _inside(top, "runs", "stages")
            if (now.doubts or path.name in now.folders) and sound_manifest(path)
        ]
        keys = [path for path in _inside(top, "runs", "attempts") if now.doubts or path.name in new_keys]
        tries = [path for key in keys for path in _inside(top, "runs", "attempts", key.name)]
        _put_back(store, top, [*stages, *tries])


def _trashes(trash: Path) -> Iterator[Path]:
    """-> a trash folder, and those of collections that were broken off which were moved into it."""
    yield trash
    for path in _inside(trash, "runs", "trash"):
        yield from _trashes(path)


def _inside(folder: Path, *names: str) -> list[Path]:
    return [path for path, what in plain_files.entries(folder, *names) if what == "a folder"]


def _put_back(store: Store, top: Path, paths: Sequence[Path]) -> None:
    for path in paths:
        target = store.root / path.relative_to(top)
        if plain_files.what_is(target) is None and not top.name.endswith(DOOMED):
            disk.make_folder(target.parent)
            disk.rename(path, target)


def _piece(path: Path, what: str, why: str) -> Piece:
    return Piece(path, what, why, sum(stat.st_size for file in _files(path) if (stat := _stat(file))))


def _files(path: Path) -> Iterator[Path]:
    return disk.files_below(path) if plain_files.is_folder(path) else iter([path])


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except OSError:
        return None


def _age_s(path: Path) -> float:
    """Since anything in it was touched; below 0 where the clock was put back."""
    stats = [stat for one in (path, *_files(path)) if (stat := _stat(one))]
    return time.time() - max((max(stat.st_mtime, stat.st_ctime) for stat in stats), default=0.0)
