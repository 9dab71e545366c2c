"""The checkpoints of an attempt: complete or ignored, the last two kept."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ablate.core import disk
from ablate.store.manifest import durable_listing, is_as_listed, is_listing

CHECKPOINTS_KEPT = 2


class Checkpoints:
    """The checkpoints of one attempt: step-<n> folders, complete or ignored, the last two kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.save_s = 0.0
        """How long the last save took."""

    def complete(self) -> list[tuple[int, Path]]:
        """Oldest first; only those whose every file has the size and digest its manifest says."""
        return sorted((int(path.name.removeprefix("step-")), path) for path in self._steps() if _is_complete(path))

    def _steps(self) -> list[Path]:
        try:
            return list(self.folder.glob("step-*"))
        except FileNotFoundError:  # removed meanwhile, by whoever committed the stage
            return []

    def latest(self) -> tuple[int, Path] | None:
        complete = self.complete()
        return complete[-1] if complete else None

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """`write` fills an empty folder; it counts once its manifest is there. Older ones go only then."""
        path, began = self.folder / f"step-{step}", time.monotonic()
        disk.remove_tree(path)
        disk.make_folder(path)
        write(path)
        disk.write_json(path / "manifest.json", durable_listing(path))
        disk.sync_folder(self.folder)
        self.save_s = time.monotonic() - began
        for _, old in self.complete()[:-CHECKPOINTS_KEPT]:
            disk.unlink(old / "manifest.json")
            disk.remove_tree(old)

    def adopt(self, others: "Checkpoints") -> None:
        """Takes over the latest checkpoint of an earlier attempt; the files are shared, never changed."""
        latest = others.latest()
        if latest is None:
            return
        step, source = latest
        path = self.folder / f"step-{step}"
        disk.make_folder(path)
        for file in sorted(source.iterdir(), key=lambda file: file.name == "manifest.json"):
            disk.link(file, path / file.name)
        disk.sync_folder(path)


def _is_complete(folder: Path) -> bool:
    listing: Any = disk.read_json(folder / "manifest.json")
    if not listing or not is_listing(listing):
        return False
    return all(is_as_listed(folder / name, listed) for name, listed in listing.items())
