"""Whether all under runs/, and what was fetched, is still what was written: read from the disk to the last byte."""

import json
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from ablate.core import disk, plain_files
from ablate.core.errors import StageError
from ablate.core.file_digests import reread_sha256
from ablate.core.registry import UnknownName
from ablate.core.values import digest
from ablate.execution.workers import Workers
from ablate.maintenance import token_files
from ablate.store import disk_speed, fingerprints, layout, study_records
from ablate.store.attempt import Attempt
from ablate.store.checkpoints import Checkpoints
from ablate.store.fetched import fetched_path
from ablate.store.hub_download import size_of
from ablate.store.kind import KINDS
from ablate.store.manifest import damage_of, is_listing, misfit, misfits, read_manifest, why_no_manifest
from ablate.store.store import Store

AGAIN = "`ablate run` sets it aside and makes it again"
FETCHED = "`ablate run` fetches it again"
OLDER = "nothing to do: the checkpoint before it is used"
NOTHING = "no result depends on it; it may be deleted"
WRITTEN = "`ablate report` writes it again"
REPORT_RECORD = ".made.json"
"""In a report's folder: digests of its files."""
LAST_WORDS = 1 << 20
"""Bytes that a log may still get after the last word."""
OnProgress: TypeAlias = Callable[[int, int, str], None]
"""Hears of bytes read, bytes in all, and what comes next."""


class Damage(NamedTuple):
    """Something that is not as it was written."""

    place: str
    """Folder or file, below runs/ where it is there."""
    why: str
    advice: str
    stage: str | None = None
    """Name of the stage's folder, where results may hang on it."""
    study: str | None = None
    """Whose record it is."""


class Part(NamedTuple):
    """Something that is looked at as a whole."""

    path: Path
    num_bytes: int
    look: Callable[[], Iterator[Damage]]


def silent(done: int, total: int, name: str) -> None:
    """An `OnProgress` that nobody hears."""


def verify(parts: Collection[Part], on_progress: OnProgress = silent) -> list[Damage]:
    """-> all that is damaged. What vanishes meanwhile was moved by a run or a garbage collection, and is none."""
    damages: list[Damage] = []
    total, done = sum(part.num_bytes for part in parts), 0
    for part in parts:
        on_progress(done, total, part.path.name)
        damages_of_part = list(part.look())
        damages += damages_of_part if plain_files.what_is(part.path) else []
        done += part.num_bytes
    on_progress(total, total, "")
    return damages


def parts(store: Store, stages: Collection[str] | None = None) -> list[Part]:
    """-> all there is to look at; of some stages (folder names) alone, and the attempts at them, where given."""
    folders = [path for path in store.folders("stages") if stages is None or path.name in stages]
    keys = None if stages is None else {name.rpartition("-")[2] for name in stages}
    workers = Workers()
    attempts = [a for a in store.all_attempts() if keys is None or a.key12 in keys]
    return [
        *(_part(path, partial(_stage, path)) for path in folders),
        *(_part(attempt.path, partial(_attempt, store, attempt, workers)) for attempt in attempts),
        *(_shared_parts(store) if stages is None else ()),
    ]


def _shared_parts(store: Store) -> Iterator[Part]:
    """What belongs to no stage."""
    studies = (store.study_folder(name) / "study.json" for name in store.study_names())
    looks: dict[Callable[[Path], Iterator[Damage]], list[Path]] = {
        _tokens: _files_in(store, ".safetensors", "tokens"),
        _check: _files_in(store, ".json", "checks"),
        _fingerprint: _files_in(store, ".json", "checks", "models"),
        _record: list(studies),
        _variant: [path for name in store.study_names() for path in store.study_variants(name)],
        partial(_last, store): [store.runs / "last"],
    }
    for look, paths in looks.items():
        yield from (_part(path, partial(look, path)) for path in paths if plain_files.is_file(path))
    yield Part(store.runs, 0, partial(_strange, store))
    yield Part(store.root, 0, partial(_reports, store))


def _files_in(store: Store, suffix: str, *names: str) -> list[Path]:
    return [entry.path for entry in store.entries(*names) if entry.path.suffix == suffix]


def _part(path: Path, look: Callable[[], Iterator[Damage]]) -> Part:
    files = disk.files_below(path) if plain_files.is_folder(path) else [path]
    return Part(path, sum(size_of(file) or 0 for file in files) + _num_fetched(path), look)


def _num_fetched(path: Path) -> int:
    return sum(listed["size"] for _, listed in _fetched(path)) if _refers_outside(path) else 0


# stages


def _stage(folder: Path) -> Iterator[Damage]:
    place = f"stages/{folder.name}"
    reasons = list(_reasons(folder))
    yield from (Damage(place, why, AGAIN, folder.name) for why in reasons)
    if not reasons:
        yield from (Damage(place, why, FETCHED, folder.name) for why in _changed_since_fetched(folder))


def _reasons(folder: Path) -> Iterator[str]:
    manifest = read_manifest(folder)
    if manifest is None or not _is_as_written(folder / "done.json"):
        yield why_no_manifest(folder)
        return
    problems = list(misfits(folder, manifest["files"], reread_sha256))
    yield from problems
    yield from _added(folder, manifest["files"])
    if not problems:
        yield from _contradictions(folder)


def _added(folder: Path, files: Collection[str]) -> Iterator[str]:
    names = {path.relative_to(folder).as_posix() for path in disk.files_below(folder)}
    passing = {name for name in names if plain_files.is_deleted_in_use(Path(name).name)}
    added = sorted(names - set(files) - {"done.json"} - passing)
    yield from (f"{plain_files.shown(name)} was added after the commit" for name in added)


def _contradictions(folder: Path) -> Iterator[str]:
    """What is wrong with a folder whose every file is the one that was committed."""
    record: Any = disk.read_json(folder / "stage.json")
    kind = str(record["payload"]["kind"])
    if folder.name != f"{kind}-{digest(record['payload'])[:12]}":
        yield f"it holds {kind}-{digest(record['payload'])[:12]}"
    elif "diverged" not in record and not _refers_outside(folder):
        try:
            KINDS[kind].glance(folder)
        except (StageError, UnknownName) as error:
            yield str(error).removeprefix(f"{folder}: ")


def _changed_since_fetched(folder: Path) -> Iterator[str]:
    """What is gone from the hub's cache is fetched again when it is needed: that is no damage."""
    if _refers_outside(folder):
        problems = (misfit(path, listed, reread_sha256) for path, listed in _fetched(folder) if path.exists())
        yield from filter(None, problems)


def _refers_outside(path: Path) -> bool:
    """Whether a stage's folder is of a kind that fetches: what it refers to lies outside runs/."""
    kind = path.name.rpartition("-")[0]
    return kind in KINDS and KINDS[kind].is_online


def _fetched(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """-> files in the hub's cache, and what is listed of them; local ones belong to their owner."""
    if damage_of(folder) is None:
        manifest: Any = disk.read_json(folder / "out" / "manifest.json")
        if manifest["repo"] is not None:
            yield from ((fetched_path(manifest) / name, listed) for name, listed in manifest["files"].items())


# attempts


def _attempt(store: Store, attempt: Attempt, workers: Workers) -> Iterator[Damage]:
    is_over = plain_files.is_file(attempt.path / "exit.json")
    if not is_over and workers.is_live(attempt):
        return
    place = f"attempts/{attempt.key12}/{attempt.number}"
    reasons = _damaged_records(attempt) if is_over else _damaged_request(attempt)
    yield from (Damage(f"{place}/{name}", why, NOTHING) for name, why in reasons)
    yield from (Damage(f"{place}/checkpoints/{name}", why, OLDER) for name, why in _checkpoints(attempt))
    if stage := _lost(store, attempt):
        yield Damage(f"stages/{stage}", f"it was committed by attempt {attempt.number} and is gone", AGAIN, stage)


def _damaged_records(attempt: Attempt) -> Iterator[tuple[str, str]]:
    record = attempt.exit
    if record is None or not _is_as_written(attempt.path / "exit.json"):
        yield "exit.json", "it is not what was written"
        return
    for name, listed in record.get("records", {}).items():
        path = attempt.path / name
        if name == "log.txt" and 0 < (size_of(path) or 0) - listed["size"] < LAST_WORDS:
            continue
        if problem := misfit(path, listed, reread_sha256):
            yield name, problem.removeprefix(f"{path} ")


def _damaged_request(attempt: Attempt) -> Iterator[tuple[str, str]]:
    path, request = attempt.path / "attempt.json", attempt.request
    if path.exists() and not (request and digest(request["payload"])[:12] == attempt.key12 and _is_as_written(path)):
        yield path.name, "it is not what was written"


def _checkpoints(attempt: Attempt) -> Iterator[tuple[str, str]]:
    """One without a manifest was being written, or removed, when its worker was killed: it is none."""
    for _, step in sorted(Checkpoints(attempt.checkpoints).steps()):
        path = step / "manifest.json"
        if not plain_files.is_file(path):
            continue
        manifest: Any = disk.read_json(path)
        if not is_listing(manifest) or not _is_as_written(path):
            yield path.parent.name, "its manifest.json is not what was written"
            continue
        yield from ((path.parent.name, problem) for problem in misfits(path.parent, manifest, reread_sha256))


def _lost(store: Store, attempt: Attempt) -> str | None:
    """-> the name of the stage that an attempt committed, where there is no such stage, nor anybody at work on it."""
    record, request, tries = attempt.exit, attempt.request, store.attempts(attempt.key12)
    if not (record and request and record["failure"] in ("ok", "diverged") and attempt == tries[-1]):
        return None
    name = f"{request['kind']}-{attempt.key12}"
    return None if plain_files.what_is(store.runs / "stages" / name) else name


# the rest


def _tokens(path: Path) -> Iterator[Damage]:
    if not token_files.is_whole(path):
        yield Damage(f"tokens/{path.name}", "it is not what was written", "delete it: it is made again when needed")


def _check(path: Path) -> Iterator[Damage]:
    record = disk.read_json(path)
    sealed = disk.read_sealed(path, record if isinstance(record, dict) else ())
    machine = {name: value for name, value in (sealed or {}).items() if name != "difference"}
    is_named = path.name == disk_speed.NAME or digest(machine)[:12] == path.stem
    if sealed is None or not is_named or not _is_as_written(path):
        yield Damage(f"checks/{path.name}", "it is not what was written", "delete it: it is made again when needed")


def _fingerprint(path: Path) -> Iterator[Damage]:
    """What a model answered when it was first loaded."""
    if not fingerprints.is_sound(path) or not _is_as_written(path):
        yield Damage(f"checks/models/{path.name}", "it is not what was written", NOTHING)


def _record(path: Path) -> Iterator[Damage]:
    name = path.parent.name
    if study_records.read(path) is None or not _is_as_written(path):
        advice = "`ablate run` of the study's file, with the --set of then, writes it again"
        yield Damage(f"studies/{name}/study.json", "it is not what was written", advice, study=name)


def _variant(path: Path) -> Iterator[Damage]:
    name = path.parents[1].name
    if study_records.read(path) is None or not _is_as_written(path):
        advice = "`ablate run` of the study's file, with the --set of then, writes it again; or delete it"
        yield Damage(f"studies/{name}/variants/{path.name}", "it is not what was written", advice, study=name)


def _last(store: Store, path: Path) -> Iterator[Damage]:
    try:
        name = plain_files.read_text(path)
    except OSError as error:
        yield Damage("last", f"it cannot be read: {error.strerror}", "the next `ablate run` writes it again")
        return
    if not name or "/" in name or not plain_files.is_file(store.study_folder(name) / "study.json"):
        yield Damage("last", f"it names no study that was run: {name!r}", "the next `ablate run` writes it again")


def _strange(store: Store) -> Iterator[Damage]:
    for path, _, why, _ in layout.strange(store.runs):
        yield Damage(layout.place_below(store.runs, path), why, "`ablate run` sets it aside")


def _reports(store: Store) -> Iterator[Damage]:
    """What is no file or folder where a report's should be; whether each says what it should, `ablate report` looks."""
    for name in store.study_names():
        folder = store.report_folder(name)
        if (what := plain_files.what_is(folder)) not in ("a folder", None):
            yield Damage(f"../reports/{name}", f"it is {what}, where a folder should be", WRITTEN)
            continue
        record: Any = disk.read_json(folder / REPORT_RECORD)
        listed = record.get("files") if isinstance(record, dict) else None
        for file in (REPORT_RECORD, *(listed if isinstance(listed, dict) else ())):
            if why := plain_files.oddity(folder, file):
                yield Damage(f"../reports/{name}", plain_files.shown(why), WRITTEN)


def _is_as_written(path: Path) -> bool:
    """Whether a JSON file is byte for byte what is written under runs/ for its value."""
    try:
        raw = plain_files.read_bytes(path)
        return raw == disk.json_text(json.loads(raw)).encode()
    except (OSError, ValueError, RecursionError):
        return False
