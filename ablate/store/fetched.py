"""Where the files of a fetched model or data set lie, and those of a model that was cut from one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.core import disk
from ablate.core.model_files import CONFIG
from ablate.core.package import located
from ablate.store.manifest import read_sound, sound


def fetched_path(manifest: Mapping[str, Any]) -> Path:
    """out/manifest.json of a fetch stage -> a folder (a snapshot of the hub's, or a local one) or a local file."""
    return located(Path(manifest["path"]))


def model_path(stage: Path) -> Path | None:
    """Folder of a stage that brings a model, or cuts one -> where the model's files lie; None where it is not done."""
    if manifest := read_sound(stage, "out/manifest.json"):
        return fetched_path(manifest)
    return stage / "out" if sound(stage, f"out/{CONFIG}") else None


def base_folder(fetch: Path) -> Path | None:
    """Folder of a committed fetch stage -> that of the one that fetched what its adapter is merged on; None without."""
    payload = (disk.read_json(fetch / "stage.json") or {}).get("payload") or {}
    base = (payload.get("inputs") or {}).get("base")
    return fetch.parent / f"fetch-{base[:12]}" if base else None
