"""The report that docs/example shows, of the embedded study, and what it is made from.

    python tests/example.py

That runs the study (minutes), keeps what a report reads of it in tests/golden/example.tar.xz, and writes docs/example.
With --report the report alone is written again, from what is kept: after a change of how a report looks.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from support.paths import GOLDEN, ROOT, TINY

from ablate.core import disk, file_digests
from ablate.planning.project import project_of
from ablate.report.write import MADE, write_report

KEPT = GOLDEN / "example.tar.xz"
SHOWN = ROOT / "docs" / "example"
RECORD = "studies/tiny/study.json"
PLACEHOLDER = "/checkout"


def keep(root: Path) -> None:
    """Packs a finished root, its weights as zeros."""
    with tempfile.TemporaryDirectory() as temporary:
        runs = Path(temporary) / "runs"
        shutil.copytree(root / "runs" / "stages", runs / "stages")
        (runs / "studies" / "tiny").mkdir(parents=True)
        shutil.copy(root / "runs" / RECORD, runs / RECORD)
        for path in runs.rglob("*.safetensors"):
            path.write_bytes(_without_weights(path.read_bytes()))
        _move(runs, str(ROOT), PLACEHOLDER)
        with tarfile.open(KEPT, "w:xz", preset=9) as packed:
            packed.add(runs, "runs", filter=_anonymous)


def unpack(root: Path) -> None:
    with tarfile.open(KEPT) as packed:
        packed.extractall(root, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # 3.11.4 has it
    _move(root / "runs", PLACEHOLDER, str(ROOT))


def _without_weights(data: bytes) -> bytes:
    """A file of safetensors begins with the size of its header, which names and shapes the tensors."""
    num = 8 + int.from_bytes(data[:8], "little")
    return data[:num] + bytes(len(data) - num)


def _move(runs: Path, old: str, new: str) -> None:
    """Has records speak of files in another checkout, and seals what is now in them."""
    for path in runs.rglob("*.json"):
        path.write_text(path.read_text().replace(old, new))
    for manifest in runs.glob("stages/*/done.json"):
        record = disk.read_json(manifest)
        for name, file in record["files"].items():
            path = manifest.parent / name
            file |= {"size": path.stat().st_size, "sha256": file_digests.sha256(path)}
        _seal(manifest, record)
    _seal(runs / RECORD, disk.read_json(runs / RECORD))


def _seal(path: Path, record: dict[str, Any]) -> None:
    disk.write_sealed(path, {name: value for name, value in record.items() if name != disk.SEAL})


def _anonymous(about: tarfile.TarInfo) -> tarfile.TarInfo:
    about.uid = about.gid = about.mtime = 0
    about.uname = about.gname = ""
    return about


def report(root: Path, folder: Path) -> Path:
    """-> the folder with the report of an unpacked root; its pictures once is enough."""
    write_report(project_of(Path("tiny"), root).plan(is_online=False), folder=folder)
    for path in (folder / MADE, *folder.glob("figures/*.svg")):
        path.unlink()
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", action="store_true", help="not the study, its report alone")
    is_report = parser.parse_args().report
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if not is_report:
            subprocess.run([sys.executable, "-m", "ablate", "--root", str(root / "run"), "run", str(TINY)], check=True)
            keep(root / "run")
        unpack(root)
        shutil.rmtree(SHOWN, ignore_errors=True)
        report(root, SHOWN)


if __name__ == "__main__":
    main()
