"""fetch: brings a model, a data set or a file within reach, at the revision or content that its key names.

The only stage that may use the network. Hub files stay in the ordinary cache (HF_HOME); out/manifest.json says where:
`path` (a folder, or a local file), `repo`, `revision`, `sha256` (of local content), `trust_remote_code`, and `files`:
relative name -> `size`, `sha256`.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml

from ablate import content, disk, hub
from ablate.content import local_digest
from ablate.errors import StageError
from ablate.job import KINDS, Job
from ablate.model import IDENTITY, RUNTIME, Bool, Frozen

__all__ = ["Fetch", "FetchSettings", "local_digest"]

WAITS_S = (0.2, 1.0, 2.0, 4.0, 8.0)
"""Between the tries at a download that breaks off; counted anew whenever a file more has arrived."""
_TOKENIZER = {".json", ".model", ".jinja", ".txt", ".tiktoken"}


class FetchSettings(Frozen):
    """What to fetch: `repo` at `revision` from the hub, or the content `sha256` that lies at `path`."""

    source: Annotated[Literal["hub", "local"], IDENTITY]
    repo_type: Annotated[Literal["model", "dataset", "tasks"], IDENTITY]
    """tasks: what lm-eval reads; a data set, or a folder of task files."""
    repo: Annotated[str | None, IDENTITY] = None
    revision: Annotated[str | None, IDENTITY] = None
    """Commit sha; None where the hub could not be asked, and such a stage is never committed."""
    config: Annotated[str | None, IDENTITY] = None
    """Of a data set: only its files are fetched."""
    sha256: Annotated[str | None, IDENTITY] = None
    path: Annotated[str | None, RUNTIME] = None
    trust_remote_code: Annotated[Bool, IDENTITY] = False
    """Fetch a model's Python too."""


class Fetch:
    """See the module."""

    version = 1
    Settings = FetchSettings
    is_online = True
    is_light = True

    def run(self, job: Job) -> None:
        settings: FetchSettings = job.settings
        path, names = _from_hub(job, settings) if settings.source == "hub" else _from_disk(settings)
        digests = content.digests(path, names, lambda done, total: job.progress(done, total, "bytes", doing="hashing"))
        if settings.source == "local" and content.of(path, digests) != settings.sha256:
            raise StageError(f"{path} was changed since the study was planned: start the same command again", "mismatch")
        manifest: dict[str, Any] = {
            "path": str(path),
            "repo": settings.repo,
            "revision": settings.revision,
            "sha256": settings.sha256,
            "trust_remote_code": settings.trust_remote_code,
            "files": {name: {"size": _file(path, name).stat().st_size, "sha256": sha} for name, sha in digests.items()},
        }
        disk.write_json(job.out / "manifest.json", manifest)

    def check(self, folder: Path) -> None:
        if not self.is_present(folder):
            raise StageError("the fetched files vanished while they were looked at: start the same command again")

    def is_present(self, folder: Path) -> bool:
        """Whether every file of the manifest is still there with its size."""
        manifest = disk.read_json(folder / "out" / "manifest.json")
        if manifest is None or not manifest["files"]:
            return False
        sizes = {_file(Path(manifest["path"]), name): of["size"] for name, of in manifest["files"].items()}
        return all(_size(path) == size for path, size in sizes.items())


KINDS.register("fetch")(Fetch())


def _file(path: Path, name: str) -> Path:
    """A manifest's path is a folder with the named file in it, or the file itself."""
    return path if path.is_file() else path / name


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


# from this disk


def _from_disk(settings: FetchSettings) -> tuple[Path, list[str]]:
    path = Path(settings.path or "")
    if not path.exists():
        raise StageError(f"{path} is gone: it was there when the study was planned", "missing")
    names = content.names(path)
    if settings.repo_type == "model":
        _weights(names, str(path))
    return path, names


def _weights(names: list[str], model: str) -> list[str]:
    """-> the safetensors files that a model is loaded from. Raises StageError when it has none."""
    top = [name for name in names if "/" not in name and name.endswith(".safetensors")]
    if top and "config.json" in names:
        return [name for name in top if name.startswith("model")] or top
    if top:
        raise StageError(f"{model} has weights but no config.json: it is no transformers model", "missing")
    pickles = [name for name in names if name.endswith((".bin", ".pth", ".pt"))]
    if pickles:
        raise StageError(
            f"{model} has its weights only as {pickles[0]}, which can run code when it is read: convert it to safetensors "
            "(`model.save_pretrained`), or take a revision that has them",
            "missing",
        )
    raise StageError(f"{model} has no weights (*.safetensors) among its {len(names)} files", "missing")


# from the hub


def _from_hub(job: Job, settings: FetchSettings) -> tuple[Path, list[str]]:
    repo = hub.Repo("model" if settings.repo_type == "model" else "dataset", settings.repo or "", settings.revision)
    if settings.revision is None:
        sha = hub.resolve(repo)
        raise StageError(f"{repo} is at {sha} now, but could not be pinned before: start the same command again", "network")
    if hub.is_offline():
        return _cached(repo, settings)
    sizes = _listing(repo)
    names = _wanted_model(list(sizes), settings) if repo.type == "model" else _wanted_data(repo, list(sizes), settings)
    return _downloaded(job, repo, {name: sizes[name] for name in names}), names


def _cached(repo: hub.Repo, settings: FetchSettings) -> tuple[Path, list[str]]:
    folder = _snapshot(repo)
    names = content.names(folder) if folder.is_dir() else []
    if not names:
        raise StageError(f"{repo} is not on this machine, and HF_HUB_OFFLINE forbids to fetch it: run once without", "missing")
    return folder, _wanted_model(names, settings) if repo.type == "model" else _wanted_data(repo, names, settings)


def _snapshot(repo: hub.Repo) -> Path:
    """-> where the ordinary cache keeps a commit of a repository."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=repo.id, repo_type=repo.type)
    return Path(constants.HF_HUB_CACHE).resolve() / folder / "snapshots" / str(repo.revision)


def _listing(repo: hub.Repo) -> dict[str, int]:
    """-> every file of a repository and its size."""
    from huggingface_hub import HfApi

    def ask() -> dict[str, int]:
        tree = HfApi().list_repo_tree(repo.id, recursive=True, revision=repo.revision, repo_type=repo.type)
        return {entry.path: entry.size for entry in tree if getattr(entry, "size", None) is not None}

    return _persistently(repo, ask, lambda: 0)


def _wanted_model(names: list[str], settings: FetchSettings) -> list[str]:
    weights = _weights(names, f"model {settings.repo}")
    top = [name for name in names if "/" not in name or name.startswith("additional_chat_templates/")]
    told = [name for name in top if PurePosixPath(name).suffix in _TOKENIZER]
    code = [name for name in names if name.endswith(".py")] if settings.trust_remote_code else []
    return sorted({*weights, *told, *code})


def _wanted_data(repo: hub.Repo, names: list[str], settings: FetchSettings) -> list[str]:
    data = [name for name in names if not name.endswith(".py") and not PurePosixPath(name).name.startswith(".")]
    if not [name for name in data if not name.lower().endswith((".md", "license", "license.txt"))]:
        raise StageError(f"{repo} holds no data files, only a script, which is not run: {repo.url}", "missing")
    patterns = _patterns(repo, settings.config) if "README.md" in names else None
    chosen = [name for name in data if any(fnmatch(name, pattern) for pattern in patterns or ())]
    return sorted({*chosen, "README.md"}) if chosen else data


def _patterns(repo: hub.Repo, config: str | None) -> list[str] | None:
    """-> the files that a config reads by the data set's README, None where it does not say."""
    configs = _front_matter(_readme(repo)).get("configs")
    stated = [one for one in configs if isinstance(one, dict)] if isinstance(configs, list) else []
    named = [one for one in stated if one.get("config_name", "default") == config]
    default = [one for one in stated if one.get("default")] or (stated if len(stated) == 1 else [])
    chosen = named if config else [one for one in stated if one.get("config_name") == "default"] or default
    return list(_paths(chosen[0])) if chosen else None


def _paths(config: dict[str, Any]) -> Iterator[str]:
    """Every file pattern of a config of a README, relative to the repository."""
    base = str(config.get("data_dir") or "").strip("/")
    stated = config.get("data_files")
    if stated is None:
        yield f"{base}/*" if base else "*"
    for one in stated if isinstance(stated, list) else [stated]:
        paths = one.get("path") if isinstance(one, dict) else one
        for path in paths if isinstance(paths, list) else [paths]:
            if isinstance(path, str):
                yield f"{base}/{path}" if base else path.removeprefix("./")


def _readme(repo: hub.Repo) -> str:
    path = _snapshot(repo) / "README.md"
    if not hub.is_offline():
        from huggingface_hub import hf_hub_download

        path = Path(
            _persistently(
                repo,
                lambda: hf_hub_download(repo.id, "README.md", repo_type=repo.type, revision=repo.revision),
                lambda: 0,
            )
        )
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _front_matter(text: str) -> dict[str, Any]:
    head = text.split("\n---", 1)[0].removeprefix("---") if text.startswith("---") else ""
    try:
        said = yaml.safe_load(head)
    except yaml.YAMLError:
        return {}
    return said if isinstance(said, dict) else {}


def _downloaded(job: Job, repo: hub.Repo, sizes: dict[str, int]) -> Path:
    """-> the folder of the snapshot, with every named file whole."""
    from huggingface_hub import snapshot_download

    folder = _snapshot(repo)
    _drop_broken(folder, sizes)
    _require_space(folder, sizes, repo)
    patterns = [name.replace("[", "[[]") for name in sizes]

    def download() -> None:
        snapshot_download(repo.id, repo_type=repo.type, revision=repo.revision, allow_patterns=patterns)
        lacking = [name for name, size in sizes.items() if _size(folder / name) != size]
        if lacking:
            raise StageError(f"{repo}: {lacking[0]} did not arrive whole", "network")

    with _telling(lambda: job.progress(_arrived(folder, sizes), sum(sizes.values()), "bytes")):
        _persistently(repo, download, lambda: sum((folder / name).exists() for name in sizes))
    return folder


def _drop_broken(folder: Path, sizes: dict[str, int]) -> None:
    """A cached file of the wrong size is fetched again."""
    for name, size in sizes.items():
        if _size(folder / name) not in (None, size):
            (folder / name).resolve().unlink()


def _require_space(folder: Path, sizes: dict[str, int], repo: hub.Repo) -> None:
    needed = sum(size for name, size in sizes.items() if _size(folder / name) != size)
    there = next(path for path in folder.parents if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise StageError(
            f"{repo} needs {needed:,} bytes more, and {there} has {free:,} free: make room there, or set HF_HOME to a folder "
            "on a larger disk",
            "nospace",
        )


def _arrived(folder: Path, sizes: dict[str, int]) -> int:
    whole = sum(_size(folder / name) or 0 for name in sizes)
    return whole + sum(_size(path) or 0 for path in (folder.parents[1] / "blobs").glob("*.incomplete"))


@contextmanager
def _telling(tell: Callable[[], None], every_s: float = 0.5) -> Iterator[None]:
    """Calls `tell` now and then from a thread of its own, and once at the end."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(every_s):
            tell()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        tell()


def _persistently(repo: hub.Repo, work: Callable[[], Any], num_done: Callable[[], int]) -> Any:
    """Does `work`, again after what may pass; waits are counted anew when `num_done` has grown."""
    waits, before = iter(WAITS_S), num_done()
    while True:
        try:
            return work()
        except Exception as error:  # noqa: BLE001 (of many libraries; each is explained, none is dropped)
            explained = hub.explain_hub_error(error, repo)
            if (now := num_done()) > before:
                waits, before = iter(WAITS_S), now
            wait_s = next(waits, None)
            if wait_s is None or explained.failure != "network":
                raise explained from error
            time.sleep(wait_s)
