"""What a stage reads of the stages it needs: a fetched folder or file."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ablate import disk
from ablate.errors import StageError
from ablate.job import Job

if TYPE_CHECKING:
    from ablate.engine.session import Source


class Fetched(NamedTuple):
    """Something a fetch stage brought here."""

    path: Path
    """A folder (hub snapshot or local), or a local file."""
    repo: str | None
    revision: str | None
    trust_remote_code: bool


def fetched(folder: Path) -> Fetched:
    """-> what a committed fetch stage points to. Raises StageError when it is no longer there."""
    manifest = disk.read_json(folder / "out" / "manifest.json") or {}
    settings = ((disk.read_json(folder / "stage.json") or {}).get("payload") or {}).get("settings") or {}
    path = Path(manifest.get("path", ""))
    if not manifest or not path.exists():
        raise StageError(f"{folder.name}: {path} is gone; the next run fetches it again", "network")
    return Fetched(
        path, manifest.get("repo"), manifest.get("revision"), bool(settings.get("trust_remote_code", False))
    )


def source(job: Job, name: str) -> "Source":
    """-> the model of an input, with what was trained on top of it."""
    from ablate.engine.session import Source

    model, adapter = fetched(job.inputs[name]), job.inputs.get(f"{name}_adapter")
    return Source(model.path, (adapter / "out",) if adapter else (), model.trust_remote_code)
