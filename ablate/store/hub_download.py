"""A commit of a hub repository in the ordinary cache (HF_HOME): what it holds, and its files brought here whole."""

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ablate.core import hub
from ablate.core.errors import StageError
from ablate.core.file_digests import git_sha1, sha256
from ablate.core.hub import Repo
from ablate.store import hub_errors

T = TypeVar("T")

WAITS_S = (0.2, 1.0, 2.0, 4.0, 8.0)
"""Between the tries at a download that breaks off; counted anew whenever a file more has arrived."""


def folder_of(repo: Repo) -> Path:
    """-> where the ordinary cache keeps a commit of a repository."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    name: str = repo_folder_name(repo_id=repo.id, repo_type=repo.type)
    return Path(constants.HF_HUB_CACHE).resolve() / name / "snapshots" / str(repo.revision)


def listing(repo: Repo) -> dict[str, int]:
    """-> every file of a repository and its size; as an earlier download kept it where the hub must not be asked.

    Raises StageError, classed.
    """
    tree = _kept_tree(repo) if hub.is_offline() else _persistently(repo, lambda: _asked_tree(repo))
    return {entry.path: entry.size for entry in tree if getattr(entry, "size", None) is not None}


def _asked_tree(repo: Repo) -> list[Any]:
    from huggingface_hub import HfApi

    return list(HfApi().list_repo_tree(repo.id, recursive=True, revision=repo.revision, repo_type=repo.type))


def _kept_tree(repo: Repo) -> list[Any]:
    try:  # since huggingface_hub 2; before it, nothing says whether a cached snapshot is whole
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError as error:
        raise hub_errors.offline(repo) from error
    try:
        return list(get_cached_repo_tree(repo.id, repo_type=repo.type, revision=repo.revision))
    except CachedRepoTreeNotFoundError as error:
        raise hub_errors.offline(repo) from error


def text_of(repo: Repo, name: str) -> str:
    """-> a small file of the repository; empty where the cache has none and the hub must not be asked."""
    path = folder_of(repo) / name
    if not hub.is_offline():
        path = _persistently(repo, lambda: _download_one(repo, name))
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _download_one(repo: Repo, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repo.id, name, repo_type=repo.type, revision=repo.revision))


def download(repo: Repo, sizes: Mapping[str, int], on_progress: Callable[[int, int], None]) -> Path:
    """Brings the named files (name -> bytes) here; `on_progress` hears of bytes here and in all. -> their folder.

    Goes on where an earlier try broke off. Raises StageError, classed: `nospace`, with the bytes needed, beforehand.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    folder = folder_of(repo)
    if hub.is_offline():
        return _whole(folder, sizes, repo)
    _drop_broken(folder, sizes)
    _require_space(folder, sizes, repo)
    patterns = [name.replace("[", "[[]") for name in sizes]

    def once() -> None:
        snapshot_download(repo.id, repo_type=repo.type, revision=repo.revision, allow_patterns=patterns)
        lacking = [name for name, size in sizes.items() if size_of(folder / name) != size]
        if lacking:
            raise StageError(f"{repo}: {lacking[0]} did not arrive whole", "network")

    with _calling(lambda: on_progress(_arrived(folder, sizes), sum(sizes.values()))):
        _persistently(repo, once, lambda: sum((folder / name).exists() for name in sizes))
    return folder


def _whole(folder: Path, sizes: Mapping[str, int], repo: Repo) -> Path:
    if not all(is_whole(folder / name, size) for name, size in sizes.items()):
        raise hub_errors.offline(repo)
    return folder


def is_whole(path: Path, size: int) -> bool:
    """Whether a cached file has its size and, where its name in the cache is a digest, that content."""
    if size_of(path) != size:
        return False
    digest = path.resolve().name
    if re.fullmatch(r"[0-9a-f]{64}", digest):  # of large files
        return sha256(path) == digest
    return not re.fullmatch(r"[0-9a-f]{40}", digest) or git_sha1(path) == digest


def size_of(path: Path) -> int | None:
    """-> bytes, None where there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _drop_broken(folder: Path, sizes: Mapping[str, int]) -> None:
    """A cached file of another size or content than the hub's is fetched again."""
    for name, size in sizes.items():
        if size_of(folder / name) is not None and not is_whole(folder / name, size):
            (folder / name).resolve().unlink()


def _require_space(folder: Path, sizes: Mapping[str, int], repo: Repo) -> None:
    needed = sum(size for name, size in sizes.items() if size_of(folder / name) != size)
    there = next(path for path in folder.parents if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise StageError(
            f"{repo} needs {needed:,} bytes more, and {there} has {free:,} free: make room there, or set HF_HOME to a"
            " folder on a larger disk",
            "nospace",
        )


def _arrived(folder: Path, sizes: Mapping[str, int]) -> int:
    whole = sum(size_of(folder / name) or 0 for name in sizes)
    return whole + sum(size_of(path) or 0 for path in (folder.parents[1] / "blobs").glob("*.incomplete"))


@contextmanager
def _calling(report: Callable[[], None], every_s: float = 0.5) -> Iterator[None]:
    """Calls `report` now and then from a thread of its own, and once at the end."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(every_s):
            report()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        report()


def _persistently(repo: Repo, work: Callable[[], T], num_done: Callable[[], int] = lambda: 0) -> T:
    """Does `work`, again after what may pass; waits are counted anew when `num_done` has grown."""
    waits, before = iter(WAITS_S), num_done()
    while True:
        try:
            return work()
        except Exception as error:  # of many libraries; each is explained, none is dropped
            explained = hub_errors.explain_hub_error(error, repo)
            if (now := num_done()) > before:
                waits, before = iter(WAITS_S), now
            wait_s = next(waits, None)
            if wait_s is None or explained.failure != "network":
                raise explained from error
            time.sleep(wait_s)
