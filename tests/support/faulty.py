"""Faults put under the seam that writes: at the n-th operation a kill, an error, or a loss of power."""

import contextlib
import os
import shutil
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ablate.core.disk_operations import through

Act = Callable[[], Any]
KILLS = {
    "before": ("write",),
    "torn": ("write", "append", "remove"),
    "after": ("write", "append", "mkdir", "rename", "link", "unlink", "remove", "fsync", "fsync_folder"),
    "unsynced lost": ("fsync", "fsync_folder"),
    "unsynced empty": ("append", "mkdir", "rename", "link", "unlink", "remove"),
}
"""How a process can end -> at which operations that differs from how it is after the operation before."""


class Operation(NamedTuple):
    name: str
    paths: tuple[Path, ...]


def without_waiting(name: str, paths: tuple[Path, ...], act: Act) -> Any:
    """Spares the disk: what was synced matters only to what is killed, and that keeps account of it."""
    return None if name in ("fsync", "fsync_folder") else act()


def operations(scenario: Callable[[], Any]) -> list[Operation]:
    """-> what an undisturbed scenario does to the disk, in order."""
    noted: list[Operation] = []

    def note(name: str, paths: tuple[Path, ...], act: Act) -> Any:
        noted.append(Operation(name, paths))
        return without_waiting(name, paths, act)

    with through(note):
        scenario()
    return noted


def fails(number: int, code: int, *, is_for_ever: bool, is_done: bool = False) -> Callable[..., Any]:
    """Operation `number` (from 0) fails, and every later one if it is for ever; `is_done`: but it was done."""
    count = -1

    def around(name: str, paths: tuple[Path, ...], act: Act) -> Any:
        nonlocal count
        count += 1
        if count < number or (count > number and not is_for_ever):
            return without_waiting(name, paths, act)
        if is_done:
            act()
        elif name in ("write", "append"):
            tear(name, paths, act)
        raise OSError(code, os.strerror(code), str(paths[-1]))

    return around


def tear(name: str, paths: tuple[Path, ...], act: Act) -> None:
    """Does half of an operation."""
    path = paths[-1]
    if name == "remove":
        files = sorted(file for file in path.rglob("*") if file.is_file())
        for file in files[: (len(files) + 1) // 2]:
            file.unlink()
        return
    before = path.stat().st_size if path.exists() else 0
    act()
    kept = before if name == "append" else 0
    os.truncate(path, kept + (path.stat().st_size - kept) // 2)


def killed(scenario: Callable[[], Any], root: Path, number: int, how: str) -> None:
    """Runs a scenario in a process of its own that dies at operation `number`; a loss of power is undergone by root."""
    pid = os.fork()
    if pid == 0:
        try:
            with through(_Killer(root, number, how)):
                scenario()
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "the scenario did not reach the operation, or failed before"
    lost = root.with_name(f"{root.name}.after")
    if lost.exists():
        shutil.rmtree(root)
        lost.rename(root)


class _Killer:
    def __init__(self, root: Path, number: int, how: str) -> None:
        self.root, self.number, self.how, self.count = root, number, how, -1
        self.platter = Platter(root) if how.startswith("unsynced") else None

    def __call__(self, name: str, paths: tuple[Path, ...], act: Act) -> Any:
        self.count += 1
        if self.count == self.number:
            self._die(name, paths, act)
        result = without_waiting(name, paths, act)
        if self.platter:
            self.platter.note(name, paths)
        return result

    def _die(self, name: str, paths: tuple[Path, ...], act: Act) -> None:
        if self.how == "torn":
            tear(name, paths, act)
        elif self.how != "before":
            with contextlib.suppress(OSError):  # an error that belongs to the scenario: a race that is lost
                act()
        if self.platter:
            self.platter.note(name, paths)
            self.platter.rebuild(self.root.with_name(f"{self.root.name}.after"), is_named=self.how == "unsynced empty")
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Platter:
    """What would be found after a loss of power: of each file the content last synced, of each folder the names.

    A file or folder is known by an identity of its own: the file system gives inode numbers again.
    """

    root: Path
    ids: dict[int, int] = field(default_factory=dict)
    """Inode -> identity."""
    contents: dict[int, bytes] = field(default_factory=dict)
    names: dict[int, dict[str, int]] = field(default_factory=dict)
    folders: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        for path in [self.root, *self.root.rglob("*")]:
            self._know(path)
        for path in [self.root, *self.root.rglob("*")]:
            self._sync(path)

    def note(self, name: str, paths: tuple[Path, ...]) -> None:
        """An operation was done."""
        path = paths[-1]
        if not path.is_relative_to(self.root):
            return
        if name in ("write", "append", "mkdir"):
            self._know(path)
        if name in ("fsync", "fsync_folder"):
            self._sync(path)
        if name in ("rename", "unlink", "remove"):
            self._forget()

    def _know(self, path: Path) -> int:
        inode = path.stat().st_ino
        if inode not in self.ids:
            self.ids[inode] = one = len(self.contents) + len(self.folders)
            if path.is_dir():
                self.folders.add(one)
                self.names[one] = {}
            else:
                self.contents[one] = b""
        return self.ids[inode]

    def _sync(self, path: Path) -> None:
        one = self.ids[path.stat().st_ino]
        if path.is_dir():
            self.names[one] = {inside.name: self._know(inside) for inside in path.iterdir()}
        else:
            self.contents[one] = path.read_bytes()

    def _forget(self) -> None:
        """Inodes that are gone may come again as something else."""
        living = {path.stat().st_ino for path in [self.root, *self.root.rglob("*")]}
        self.ids = {inode: one for inode, one in self.ids.items() if inode in living}

    def rebuild(self, target: Path, *, is_named: bool) -> None:
        """Makes the tree that is found; `is_named`: names were written out by chance, contents were not."""
        if is_named:
            self._build_named(self.root, target)
        else:
            self._build(self.ids[self.root.stat().st_ino], target)

    def _build(self, one: int, target: Path) -> None:
        if one not in self.folders:
            target.write_bytes(self.contents[one])
            return
        target.mkdir()
        for name, number in self.names[one].items():
            self._build(number, target / name)

    def _build_named(self, path: Path, target: Path) -> None:
        if path.is_file():
            target.write_bytes(self.contents[self._know(path)])
            return
        target.mkdir()
        for inside in path.iterdir():
            self._build_named(inside, target / inside.name)
