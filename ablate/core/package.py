"""This package itself: where it lies, and which code it is."""

import hashlib
import importlib.metadata
import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parents[1]
"""Of all its modules and data files."""
CODE = frozenset({".py", ".html", ".md", ".css", ".js", ".yaml"})
"""Suffixes of what decides how results are computed and shown."""
EMBEDDED = re.compile(r".*/ablate/(?:example|world)/assets/(.+)")
"""A path of the embedded study's files; their folder was called `world` before."""


def located(path: Path) -> Path:
    """-> where a file or folder lies now: one of this package's that is gone is looked for in the package.

    An environment was made anew, or a checkout was moved. Whether it is the same file its digest says.
    """
    embedded = EMBEDDED.fullmatch(str(path))
    return path if embedded is None or path.exists() else FOLDER / "example" / "assets" / embedded[1]


def version() -> str:
    return importlib.metadata.version("ablate")


@cache
def code_digest() -> str:
    """-> sha256 of the version and of every module and template: whatever is changed of the code, it is another."""
    digest = hashlib.sha256(version().encode())
    for path in sorted(path for path in FOLDER.rglob("*") if path.suffix in CODE):
        digest.update(f"{path.relative_to(FOLDER)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
