"""Where the files of a fetched model or data set lie."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.core.package import located


def fetched_path(manifest: Mapping[str, Any]) -> Path:
    """out/manifest.json of a fetch stage -> a folder (a snapshot of the hub's, or a local one) or a local file."""
    return located(Path(manifest["path"]))
