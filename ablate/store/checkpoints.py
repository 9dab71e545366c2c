"""The checkpoints of an attempt: complete or ignored, the last two kept."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ablate.core import disk, plain_files
from ablate.store.manifest import durable_listing, has_size, is_as_listed, is_listing

CHECKPOINTS_KEPT = 2


class Checkpoints:
    """The checkpoints of one attempt: step-<n> folders, complete or ignored, the last two kept.

    step-<n>.<part> lies between step n and the next one, a higher part further on.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.save_s = 0.0
        """How long the last save took."""

    def complete(self) -> list[tuple[int, Path]]:
        """Oldest first; only those whose every file has the size and digest its manifest says."""
        return sorted((step, path) for step, path in self.steps() if _is_complete(path))

    def steps(self) -> list[tuple[int, Path]]:
        """Complete or not; none where they were removed meanwhile, by whoever committed the stage."""
        inside = plain_files.entries(self.folder.parent, self.folder.name)
        folders = (entry.path for entry in inside if entry.what == "a folder")
        numbered = ((path.name.removeprefix("step-"), path) for path in folders if path.name.startswith("step-"))
        return [(int(number), path) for name, path in numbered if (number := name.partition(".")[0]).isdecimal()]

    def latest(self) -> tuple[int, Path] | None:
        complete = self.complete()
        return complete[-1] if complete else None

    def listed(self) -> list[int]:
        """-> the steps of those that look complete, oldest first; their files are not read, which may be large."""
        return sorted(step for step, path in self.steps() if _has_sizes(path))

    def save(self, step: int, write: Callable[[Path], None], part: int = 0) -> None:
        """`write` fills an empty folder; it counts once its manifest is there. Older ones go only then."""
        name = f"step-{step}.{part:06}" if part else f"step-{step}"  # so that paths sort as parts do
        path, began = self.folder / name, time.monotonic()
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
        _, source = latest
        path = self.folder / source.name
        disk.make_folder(path)
        for name in (*(disk.read_json(source / "manifest.json") or ()), "manifest.json"):
            disk.link(source / name, path / name)
        disk.sync_folder(path)


class ReadCheckpoints(Checkpoints):
    """As a rank other than the first has them, which alone saves."""

    def save(self, step: int, write: Callable[[Path], None], part: int = 0) -> None:
        pass


def _is_complete(folder: Path) -> bool:
    listing = _listing(folder)
    return bool(listing) and all(is_as_listed(folder / name, listed) for name, listed in listing.items())


def _has_sizes(folder: Path) -> bool:
    listing = _listing(folder)
    return bool(listing) and all(has_size(folder / name, listed["size"]) for name, listed in listing.items())


def _listing(folder: Path) -> Mapping[str, Any]:
    """-> what a checkpoint's manifest lists; nothing where there is none yet."""
    listing: Any = disk.read_json(folder / "manifest.json")
    return listing if is_listing(listing) else {}
