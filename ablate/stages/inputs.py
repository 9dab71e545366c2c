"""What a stage reads of the stages it needs: a fetched folder or file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ablate.core import disk
from ablate.core.errors import StageError
from ablate.core.local_files import first_change
from ablate.core.model_files import CONFIG
from ablate.core.values import digest
from ablate.store import node_copies
from ablate.store.fetched import base_folder, fetched_path
from ablate.store.job import Job
from ablate.store.manifest import misfit, read_manifest
from ablate.study.quantize import Quantize

if TYPE_CHECKING:
    from ablate.training.model_source import ModelSource


class Fetched(NamedTuple):
    """Something a fetch stage brought here."""

    path: Path
    """A folder (hub snapshot or local), or a local file."""
    repo: str | None
    revision: str | None
    trust_remote_code: bool
    files: Mapping[str, Mapping[str, Any]]
    """Name in the folder -> `size`, `sha256`, of all that belong to it."""


class FetchedModel(NamedTuple):
    """Weights that fetch stages brought here, and the adapters that are to be merged into them."""

    weights: Fetched
    adapters: tuple[Path, ...]
    """Folders of a user's adapters, in the order in which they are merged."""
    tokenizer: Path
    """The folder that it is in: an adapter's own goes before its base's."""
    made_by: tuple[str, ...]
    """Names of the stages."""


def fetched_model(folder: Path) -> FetchedModel:
    """-> what a committed fetch stage of a model points to, or what a prune stage made of one.

    Raises StageError as `fetched` does.
    """
    if (cut := folder / "out" / CONFIG).is_file():
        one = Fetched(cut.parent, None, None, False, _files_of(folder))
        return FetchedModel(one, (), cut.parent, (_weights_of(folder),))
    one, base = fetched(folder), base_folder(folder)
    if base is None:
        return FetchedModel(one, (), one.path, (folder.name,))
    below = fetched_model(base)
    has_tokenizer = (one.path / "tokenizer_config.json").is_file()
    tokenizer = one.path if has_tokenizer else below.tokenizer
    return FetchedModel(below.weights, (*below.adapters, one.path), tokenizer, (*below.made_by, folder.name))


def fetched(folder: Path) -> Fetched:
    """-> what a committed fetch stage points to. Raises StageError when it is no longer there, or another."""
    manifest = disk.read_json(folder / "out" / "manifest.json") or {}
    settings = ((disk.read_json(folder / "stage.json") or {}).get("payload") or {}).get("settings") or {}
    path = fetched_path(manifest) if manifest else Path()
    if not manifest or not path.exists():
        raise StageError(f"{folder.name}: {path} is gone; the next run fetches it again", "network")
    files = manifest.get("files") or {}
    _require_unchanged(path, files) if manifest.get("repo") is None else _require_whole(path, files)
    is_trusted = bool(settings.get("trust_remote_code", False))
    return Fetched(path, manifest.get("repo"), manifest.get("revision"), is_trusted, files)


def _files_of(stage: Path) -> dict[str, dict[str, Any]]:
    """-> what lies in a committed stage's out/."""
    files = (read_manifest(stage) or {"files": {}})["files"]
    return {name.removeprefix("out/"): entry for name, entry in files.items() if name.startswith("out/")}


def _weights_of(stage: Path) -> str:
    """-> a stage's name and a digest of its weights: made again on a card, they can be others in their last digits."""
    digests = {f"out/{name}": entry["sha256"] for name, entry in _files_of(stage).items()}
    return f"{stage.name} {digest(digests)[:12]}" if digests else stage.name


def source(job: Job, name: str, quantize: Quantize | None = None) -> "ModelSource":
    """-> the model of an input, with what was trained on top of it."""
    trained = job.inputs.get(f"{name}_adapter")
    return model_source(job.inputs[name], [trained] if trained else [], quantize)


def model_source(fetch: Path, trainings: Sequence[Path], quantize: Quantize | None = None) -> "ModelSource":
    """-> a fetched model with what was trained on top of it, first to last; all as the folders of committed stages."""
    from ablate.training.model_source import ModelSource

    model = fetched_model(fetch)
    return ModelSource(
        folder=node_copies.near(model.weights.path, model.weights.files),
        made_by=[*model.made_by, *([quantize] if quantize else []), *map(_weights_of, trainings)],
        adapters=model.adapters,
        trainings=[training / "out" for training in trainings],
        quantize=quantize,
        tokenizer=model.tokenizer,
        trust_remote_code=model.weights.trust_remote_code,
    )


def _require_whole(snapshot: Path, files: dict[str, Any]) -> None:
    """In the hub's cache others may add files, but none may change."""
    misfits = (misfit(snapshot / name, entry) for name, entry in files.items())
    if why := next(filter(None, misfits), None):
        raise StageError(f"{why}: the same command fetches it again", "missing_input")


def _require_unchanged(path: Path, files: dict[str, Any]) -> None:
    """A local file belongs to its owner, who may edit it at any time: under the old key nothing is made of the new."""
    if files and (name := first_change(path, files)):
        file = path if path.is_file() else path / name
        raise StageError(
            f"{file} was changed after the study was planned: the same command plans it anew", "missing_input"
        )
