"""This package itself: where it lies, and which code it is."""

import hashlib
import importlib.metadata
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parents[1]
"""Of all its modules and data files."""
CODE = frozenset({".py", ".html", ".md", ".css", ".js", ".yaml"})
"""Suffixes of what decides how results are computed and shown."""


def version() -> str:
    return importlib.metadata.version("ablate")


@cache
def code_digest() -> str:
    """-> sha256 of the version and of every module and template: whatever is changed of the code, it is another."""
    digest = hashlib.sha256(version().encode())
    for path in sorted(path for path in FOLDER.rglob("*") if path.suffix in CODE):
        digest.update(f"{path.relative_to(FOLDER)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
