"""Where the files of a fetched model or data set lie."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.core import disk
from ablate.core.package import located


def fetched_path(manifest: Mapping[str, Any]) -> Path:
    """out/manifest.json of a fetch stage -> a folder (a snapshot of the hub's, or a local one) or a local file."""
    return located(Path(manifest["path"]))


def base_folder(fetch: Path) -> Path | None:
    """Folder of a committed fetch stage -> that of the one that fetched what its adapter is merged on; None without."""
    payload = (disk.read_json(fetch / "stage.json") or {}).get("payload") or {}
    base = (payload.get("inputs") or {}).get("base")
    return fetch.parent / f"fetch-{base[:12]}" if base else None
