"""Environments that hold what a package requires and nothing else, linked from this one: installing takes minutes."""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from support.paths import ROOT

WITHOUT_INDEX = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "false"}
"""Pip installs what it is given, builds with what is here, and asks nobody."""


def clean_env() -> dict[str, str]:
    """-> the environment of somebody who has just opened a shell: no code of this checkout, no hub."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV", "ABLATE_ROOT")
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    return kept | WITHOUT_INDEX | {"HF_HUB_OFFLINE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def build_wheel(folder: Path) -> Path:
    """-> the wheel that `make wheel` builds."""
    command = ["make", "wheel", f"VENV={sys.prefix}", f"DIST={folder}"]
    subprocess.run(command, cwd=ROOT, env=clean_env(), check=True, capture_output=True)
    (wheel,) = folder.glob("ablate-*.whl")
    return wheel


def installed(wheel: Path, folder: Path) -> Path:
    """-> the bin/ of a new environment with a wheel in it and what that requires."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", str(wheel)]
    subprocess.run(pip, env=clean_env(), check=True)
    link_requirements(folder, "ablate")
    return python.parent


def link_requirements(folder: Path, *names: str) -> None:
    """Puts links to distributions, and to all that they require, into an environment. One that it has stays."""
    (site,) = (folder / "lib").glob("python*/site-packages")
    for distribution in _required(site, names):
        for top in {path.parts[0] for path in distribution.files or ()} - {"..", "__pycache__"}:
            if not top.endswith(".pth") and not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))


def _required(site: Path, names: tuple[str, ...]) -> Iterator[importlib.metadata.Distribution]:
    """-> the distributions, as the environment has them or else this one, and theirs, each once."""
    wanted, seen = [Requirement(name) for name in names], set()
    while wanted:
        requirement = wanted.pop()
        if (key := (requirement.name, *sorted(requirement.extras))) in seen:
            continue
        seen.add(key)
        distribution = _distribution(site, requirement.name)
        yield distribution
        for text in distribution.requires or ():
            other = Requirement(text)
            extras = requirement.extras or {""}
            if not other.marker or any(other.marker.evaluate({"extra": extra}) for extra in extras):
                wanted.append(other)


def _distribution(site: Path, name: str) -> importlib.metadata.Distribution:
    there = list(importlib.metadata.distributions(name=name, path=[str(site)]))
    return there[0] if there else importlib.metadata.distribution(name)


if __name__ == "__main__":
    link_requirements(Path(sys.argv[1]), *sys.argv[2:])
