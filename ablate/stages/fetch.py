"""fetch: brings a model, a data set or a file within reach, at the revision or content that its key names.

The only stage that may use the network. Hub files stay in the ordinary cache (HF_HOME); out/manifest.json says where:
`path` (a folder, or a local file), `repo`, `revision`, `sha256` (of local content), `trust_remote_code`, and `files`:
relative name -> `size`, `sha256`.
"""

from collections.abc import Iterator
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml

from ablate.core import disk, hub, local_files, model_files
from ablate.core.errors import StageError
from ablate.core.file_digests import known_sha256
from ablate.core.hub import Repo
from ablate.core.local_files import local_digest
from ablate.core.model_faults import faults
from ablate.core.model_files import ModelFiles
from ablate.core.values import IDENTITY, RUNTIME, Bool, Frozen
from ablate.store import hub_download, hub_errors, hub_lock
from ablate.store.fetched import fetched_path
from ablate.store.job import Job
from ablate.store.kind import KINDS, Kind, Words
from ablate.store.stage import Stage

__all__ = ["Fetch", "FetchSettings", "local_digest"]

_TOKENIZER = {".json", ".model", ".jinja", ".txt", ".tiktoken"}


class FetchSettings(Frozen):
    """What to fetch: `repo` at `revision` from the hub, or the content `sha256` that lies at `path`."""

    source: Annotated[Literal["hub", "local"], IDENTITY]
    repo_type: Annotated[Literal["model", "dataset", "tasks"], IDENTITY]
    """tasks: what lm-eval reads; a data set, or a folder of task files."""
    repo: Annotated[str | None, IDENTITY] = None
    revision: Annotated[str | None, IDENTITY] = None
    """Commit sha. What could not be pinned is None, or as the study says it: such an attempt tells why and fails."""
    config: Annotated[str | None, IDENTITY] = None
    """Of a data set: only its files are fetched."""
    sha256: Annotated[str | None, IDENTITY] = None
    path: Annotated[str | None, RUNTIME] = None
    trust_remote_code: Annotated[Bool, IDENTITY] = False
    """Fetch a model's Python too."""


class Fetch(Kind[FetchSettings]):
    """See the module."""

    Settings = FetchSettings
    is_online = True
    is_light = True
    words = Words(0, "model", "model")

    def run(self, job: Job) -> None:
        settings: FetchSettings = job.settings
        path, names = _from_hub(job) if settings.source == "hub" else _from_disk(job)
        on_progress = partial(job.progress, unit="bytes", doing="hashing")
        digests = local_files.file_digests(path, names, on_progress)
        if settings.source == "local" and local_files.combined_digest(path, digests) != settings.sha256:
            raise StageError(f"{path} was changed after the study was planned: start the command again", "mismatch")
        manifest: dict[str, Any] = {
            "path": str(path),
            "repo": settings.repo,
            "revision": settings.revision,
            "sha256": settings.sha256,
            "trust_remote_code": settings.trust_remote_code,
            "files": {name: {"size": _file(path, name).stat().st_size, "sha256": sha} for name, sha in digests.items()},
        }
        disk.write_json(job.out / "manifest.json", manifest)
        if settings.repo_type == "model" and model_files.files_of(path).has_stray_adapter:
            job.notes["adapter"] = "an adapter lies beside its weights, and is not used"

    def check(self, folder: Path) -> None:
        if not self.is_present(folder):
            raise StageError("the fetched files vanished while they were looked at: start the same command again")

    def is_present(self, folder: Path) -> bool:
        """Whether every file of the manifest is still there with its size, and none is known to hold something else."""
        manifest = disk.read_json(folder / "out" / "manifest.json")
        if manifest is None or not manifest["files"]:
            return False
        files = {_file(fetched_path(manifest), name): entry for name, entry in manifest["files"].items()}
        return all(
            hub_download.size_of(path) == entry["size"] and known_sha256(path) in (None, entry["sha256"])
            for path, entry in files.items()
        )

    def label(self, stage: Stage, name: str) -> str:
        settings = self.settings_of(stage)
        base = stage.inputs.get("base")
        merged = f", an adapter on {_name(base.settings)}" if base else ""
        return f"fetch {_name(settings)}{merged}"


KINDS.register("fetch")(Fetch())


def _name(settings: Any) -> str:
    return str(settings.repo or Path(settings.path or "").name)


def _file(path: Path, name: str) -> Path:
    """A manifest's path is a folder with the named file in it, or the file itself."""
    return path if path.is_file() else path / name


# from this disk


def _from_disk(job: Job) -> tuple[Path, list[str]]:
    path = Path(job.settings.path or "")
    if not path.exists():
        raise StageError(f"{path} is gone: it was there when the study was planned", "missing")
    names = local_files.visible_files(path)
    if job.settings.repo_type == "model":
        _require_loadable(model_files.files_of(path), str(path), job)
    return path, names


def _require_loadable(files: ModelFiles, model: str, job: Job) -> None:
    """Raises StageError where no model can be loaded from these files, with every reason."""
    reasons, has_base = list(faults(files, trust_remote_code=job.settings.trust_remote_code)), "base" in job.inputs
    if files.is_adapter and not has_base:
        reasons.append(_no_base(files))
    if has_base and not files.is_adapter:
        reasons.append("it has weights of its own, and the study says a base for it: leave `base:` out")
    if reasons:
        raise StageError(f"{model} holds no model that can be loaded: {'; '.join(reasons)}", "missing")


def _no_base(files: ModelFiles) -> str:
    config = files.json(model_files.ADAPTER_CONFIG)
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    example = f", such as `base: {base}`," if base else ""
    return f"it is an adapter, to be merged on another model: say which{example} beside `model:`"


# from the hub


def _from_hub(job: Job) -> tuple[Path, list[str]]:
    settings: FetchSettings = job.settings
    repo = Repo("model" if settings.repo_type == "model" else "dataset", settings.repo or "", settings.revision)
    if not hub.is_commit(settings.revision):
        hub_lock.resolve(repo)
        raise StageError(f"{repo} could not be pinned before, but can be now: start the same command again", "network")
    sizes = hub_download.listing(repo)
    is_model = settings.repo_type == "model"
    names = _wanted_model(repo, list(sizes), job) if is_model else _wanted_data(repo, list(sizes), settings)
    wanted = {name: sizes[name] for name in names}
    path = hub_download.download(repo, wanted, lambda done, total: job.progress(done, total, "bytes"))
    if is_model:
        _require_loadable(model_files.files_of(path), str(repo), job)  # now by the headers of its weights too
    return path, names


def _wanted_model(repo: Repo, names: list[str], job: Job) -> list[str]:
    """-> the files that a model is loaded from. Raises StageError where it can be told that it cannot be."""
    of_repo = ModelFiles(frozenset(name for name in names if "/" not in name), partial(_text, repo))
    _require_loadable(of_repo, str(repo), job)
    weights = of_repo.weights
    top = [name for name in names if "/" not in name or name.startswith("additional_chat_templates/")]
    tokenizer = [name for name in top if PurePosixPath(name).suffix in _TOKENIZER]
    code = [name for name in names if name.endswith(".py")] if job.settings.trust_remote_code else []
    return sorted({*weights, *tokenizer, *code})


def _text(repo: Repo, name: str) -> str:
    text = hub_download.text_of(repo, name)
    if not text and hub.is_offline():
        raise hub_errors.offline(repo)
    return text


def _wanted_data(repo: Repo, names: list[str], settings: FetchSettings) -> list[str]:
    data = [name for name in names if not name.endswith(".py") and not PurePosixPath(name).name.startswith(".")]
    if not [name for name in data if not name.lower().endswith((".md", "license", "license.txt"))]:
        raise StageError(f"{repo} holds no data files, only a script, which is not run: {repo.url}", "missing")
    patterns = _patterns(repo, settings.config) if "README.md" in names else None
    chosen = [name for name in data if any(fnmatch(name, pattern) for pattern in patterns or ())]
    return sorted({*chosen, "README.md"}) if chosen else data


def _patterns(repo: Repo, config: str | None) -> list[str] | None:
    """-> the files that a config reads by the data set's README, None where it does not say."""
    configs = _front_matter(hub_download.text_of(repo, "README.md")).get("configs")
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


def _front_matter(text: str) -> dict[str, Any]:
    head = text.split("\n---", 1)[0].removeprefix("---") if text.startswith("---") else ""
    try:
        values = yaml.safe_load(head)
    except yaml.YAMLError:
        return {}
    return values if isinstance(values, dict) else {}
