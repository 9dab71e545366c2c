"""Packages of strangers that offer us parts: a module and the metadata that an installer would write, in a folder."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support.paths import ROOT, TESTS

LOSS = '''
from typing import Annotated, Literal

from ablate.core.values import IDENTITY
from ablate.losses import Loss


class Half(Loss):
    """Half of forward KL."""

    name: Annotated[Literal["half"], IDENTITY] = "half"
    share: Annotated[float, IDENTITY] = 0.5

    def __call__(self, student_NV, teacher_NV):
        teacher_logp_NV = teacher_NV.log_softmax(-1)
        return self.share * (teacher_logp_NV.exp() * (teacher_logp_NV - student_NV.log_softmax(-1))).sum(-1)
'''


def package(
    folder: Path, name: str, modules: Mapping[str, str], entries: Mapping[str, Mapping[str, str]], version: str = "1.0"
) -> Path:
    """-> the folder, now with a package: file stem -> code, and entry point group -> name -> `module:object`."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    sections = (
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in of_group.items())
        for group, of_group in entries.items()
    )
    (info / "entry_points.txt").write_text("\n".join(sections))
    for stem, code in modules.items():
        (folder / f"{stem}.py").write_text(code)
    return folder


def with_half(folder: Path, version: str = "1.0") -> Path:
    """-> a package `half-loss` with the loss `half`."""
    return package(folder, "half-loss", {"half_loss": LOSS}, {"ablate.losses": {"half": "half_loss:Half"}}, version)


def python(code: str, *folders: Path) -> "subprocess.CompletedProcess[str]":
    """A fresh interpreter in which the packages of these folders are installed, as it were."""
    return _run([sys.executable, "-c", code], folders)


def ablate(*arguments: str, folders: tuple[Path, ...] = ()) -> "subprocess.CompletedProcess[str]":
    return _run([sys.executable, "-m", "ablate", *arguments], folders)


def _run(command: list[str], folders: tuple[Path, ...]) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join(map(str, (*folders, ROOT, TESTS)))
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
