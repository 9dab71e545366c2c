"""Whether all under runs/, and what was fetched, is still what was written: read from the disk to the last byte."""

import json
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ablate.core import disk, hashing
from ablate.core.errors import StageError
from ablate.core.registry import UnknownName
from ablate.core.values import digest
from ablate.execution.status import is_live
from ablate.store.attempt import Attempt
from ablate.store.fetched import fetched_path
from ablate.store.hub_download import size_of
from ablate.store.kind import KINDS
from ablate.store.manifest import damage_of, is_listing, misfit, read_manifest
from ablate.store.store import STUDY, Store

AGAIN = "`ablate run` sets it aside and makes it again"
FETCHED = "`ablate run` fetches it again"
OLDER = "nothing to do: the checkpoint before it is used"
NOTHING = "no result depends on it; it may be deleted"
Tell = Callable[[int, int, str], None]
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
    """A `Tell` that nobody hears."""


def verify(parts: Collection[Part], tell: Tell = silent) -> list[Damage]:
    """-> all that is damaged. What vanishes meanwhile was moved by a run or a garbage collection, and is none."""
    found: list[Damage] = []
    total, done = sum(part.num_bytes for part in parts), 0
    for part in parts:
        tell(done, total, part.path.name)
        damages = list(part.look())
        found += damages if part.path.exists() else []
        done += part.num_bytes
    tell(total, total, "")
    return found


def parts(store: Store, stages: Collection[str] | None = None) -> list[Part]:
    """-> all there is to look at; of some stages (folder names) alone, and the attempts at them, where given."""
    runs = store.runs
    folders = sorted(path for path in runs.glob("stages/*") if stages is None or path.name in stages)
    keys = None if stages is None else {name.rpartition("-")[2] for name in stages}
    attempts = [a for path in sorted(runs.glob("attempts/*")) for a in store.attempts(path.name)]
    found = [_part(path, partial(_stage, path)) for path in folders if path.is_dir()]
    found += [_part(a.path, partial(_attempt, store, a)) for a in attempts if keys is None or a.key12 in keys]
    if stages is None:
        found += [_part(path, partial(_tokens, path)) for path in sorted(store.tokens.glob("*.safetensors"))]
        found += [_part(path, partial(_check, path)) for path in sorted(store.checks.glob("*.json"))]
        found += [_part(path, partial(_record, path)) for path in sorted(runs.glob("studies/*/study.json"))]
        found += [_part(path, partial(_last, store, path)) for path in runs.glob("last")]
    return found


def _part(path: Path, look: Callable[[], Iterator[Damage]]) -> Part:
    files = disk.files_below(path) if path.is_dir() else [path]
    return Part(path, sum(size_of(file) or 0 for file in files) + _num_fetched(path), look)


def _num_fetched(path: Path) -> int:
    return sum(of["size"] for _, of in _fetched(path)) if path.name.startswith("fetch-") else 0


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
        yield "done.json is not what was committed" if (folder / "done.json").exists() else "done.json lacks"
        return
    told = [misfit(folder / name, of, hashing.read_sha256) for name, of in manifest["files"].items()]
    yield from (why.removeprefix(f"{folder}/") for why in told if why)
    yield from _added(folder, manifest["files"])
    if not any(told):
        yield from _contradictions(folder)


def _added(folder: Path, files: Collection[str]) -> Iterator[str]:
    names = {path.relative_to(folder).as_posix() for path in disk.files_below(folder)}
    passing = {name for name in names if Path(name).name.startswith(".nfs")}  # deleted, while somebody reads it
    yield from (f"{name} was added after the commit" for name in sorted(names - set(files) - {"done.json"} - passing))


def _contradictions(folder: Path) -> Iterator[str]:
    """What is wrong with a folder whose every file is the one that was committed."""
    record: Any = disk.read_json(folder / "stage.json")
    kind = str(record["payload"]["kind"])
    if folder.name != f"{kind}-{digest(record['payload'])[:12]}":
        yield f"it holds {kind}-{digest(record['payload'])[:12]}"
    elif "diverged" not in record and kind != "fetch":
        try:
            KINDS[kind].check(folder)
        except (StageError, UnknownName) as error:
            yield str(error).removeprefix(f"{folder}: ")


def _changed_since_fetched(folder: Path) -> Iterator[str]:
    """What is gone from the hub's cache is fetched again when it is needed: that is no damage."""
    if folder.name.startswith("fetch-"):
        told = (misfit(path, of, hashing.read_sha256) for path, of in _fetched(folder) if path.exists())
        yield from filter(None, told)


def _fetched(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """-> files in the hub's cache, and what was said of them; local ones belong to their owner."""
    if damage_of(folder) is None:
        manifest: Any = disk.read_json(folder / "out" / "manifest.json")
        if manifest["repo"] is not None:
            yield from ((fetched_path(manifest) / name, of) for name, of in manifest["files"].items())


# attempts


def _attempt(store: Store, attempt: Attempt) -> Iterator[Damage]:
    is_over = (attempt.path / "exit.json").exists()
    if not is_over and is_live(attempt):
        return
    place = f"attempts/{attempt.key12}/{attempt.number}"
    reasons = _misrecorded(attempt) if is_over else _misordered(attempt)
    yield from (Damage(f"{place}/{name}", why, NOTHING) for name, why in reasons)
    yield from (Damage(f"{place}/checkpoints/{name}", why, OLDER) for name, why in _checkpoints(attempt))
    if stage := _lost(store, attempt):
        yield Damage(f"stages/{stage}", f"it was committed by attempt {attempt.number} and is gone", AGAIN, stage)


def _misrecorded(attempt: Attempt) -> Iterator[tuple[str, str]]:
    record = attempt.exit
    if record is None or not _is_as_written(attempt.path / "exit.json"):
        yield "exit.json", "it is not what was written"
        return
    for name, of in record.get("records", {}).items():
        path = attempt.path / name
        if name == "log.txt" and (size_of(path) or 0) > of["size"]:
            continue  # a last line after the last word
        if why := misfit(path, of, hashing.read_sha256):
            yield name, why.removeprefix(f"{path} ")


def _misordered(attempt: Attempt) -> Iterator[tuple[str, str]]:
    path, request = attempt.path / "attempt.json", attempt.request
    if path.exists() and not (request and digest(request["payload"])[:12] == attempt.key12 and _is_as_written(path)):
        yield path.name, "it is not what was written"


def _checkpoints(attempt: Attempt) -> Iterator[tuple[str, str]]:
    """One without a manifest was being written, or removed, when its worker was killed: it is none."""
    for path in sorted(attempt.checkpoints.glob("step-*/manifest.json")):
        manifest: Any = disk.read_json(path)
        if not is_listing(manifest) or not _is_as_written(path):
            yield path.parent.name, "its manifest.json is not what was written"
            continue
        told = (misfit(path.parent / name, of, hashing.read_sha256) for name, of in manifest.items())
        yield from ((path.parent.name, why.removeprefix(f"{path.parent}/")) for why in told if why)


def _lost(store: Store, attempt: Attempt) -> str | None:
    """-> the name of the stage that an attempt has made, where there is no such stage, nor anybody making it."""
    record, request, tries = attempt.exit, attempt.request, store.attempts(attempt.key12)
    if not (record and request and record["failure"] in ("ok", "diverged") and attempt == tries[-1]):
        return None
    name = f"{request['kind']}-{attempt.key12}"
    return None if (store.runs / "stages" / name).exists() else name


# the rest


def _tokens(path: Path) -> Iterator[Damage]:
    from ablate.evaluation.known_tokens import is_whole

    if not is_whole(path):
        yield Damage(f"tokens/{path.name}", "it is not what was written", "delete it: it is made again when needed")


def _check(path: Path) -> Iterator[Damage]:
    record = disk.read_json(path)
    found = disk.read_sealed(path, record if isinstance(record, dict) else ())
    what = {name: value for name, value in (found or {}).items() if name != "difference"}
    if found is None or digest(what)[:12] != path.stem or not _is_as_written(path):
        yield Damage(f"checks/{path.name}", "it is not what was written", "delete it: it is made again when needed")


def _record(path: Path) -> Iterator[Damage]:
    name = path.parent.name
    if disk.read_sealed(path, STUDY) is None or not _is_as_written(path):
        advice = "`ablate run` of the study's file, with the --set of then, writes it again"
        yield Damage(f"studies/{name}/study.json", "it is not what was written", advice, study=name)


def _last(store: Store, path: Path) -> Iterator[Damage]:
    name = path.read_bytes().decode(errors="replace")
    if not name or "/" in name or not (store.study_folder(name) / "study.json").is_file():
        yield Damage("last", f"it names no study that was run: {name!r}", "the next `ablate run` writes it again")


def _is_as_written(path: Path) -> bool:
    """Whether a JSON file is byte for byte what is written under runs/ for its value."""
    try:
        raw = path.read_bytes()
        return raw == disk.json_text(json.loads(raw)).encode()
    except (OSError, ValueError):
        return False
