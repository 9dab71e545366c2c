"""The world of the study that ships with ablate: a made-up universe, small enough to teach on any CPU."""

from importlib.resources import files
from pathlib import Path

__all__ = ["assets"]


def assets() -> Path:
    """-> the installed folder that `builtin:tiny/...` in a study stands for."""
    return Path(str(files(__name__) / "assets"))
