"""Where that lies which a fetch stage brought within reach."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.core.package import FOLDER

EMBEDDED = re.compile(r".*/ablate/(?:example|world)/assets/(.+)")
"""A path of the embedded study's files; their folder was called `world` before."""


def fetched_path(manifest: Mapping[str, Any]) -> Path:
    """out/manifest.json of a fetch stage -> a folder (a snapshot of the hub's, or a local one) or a local file.

    What ships with this package is looked for in it where it is no longer where it was: an environment was made anew,
    or a checkout was moved. Digests say whether it is the same.
    """
    path = Path(manifest["path"])
    embedded = EMBEDDED.fullmatch(str(path))
    if embedded is None or path.exists():
        return path
    return FOLDER / "example" / "assets" / embedded[1]
