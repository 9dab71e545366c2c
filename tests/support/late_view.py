"""A shared folder as another machine sees it, late: a file system in user space over an ordinary folder (the server).

Each mount keeps what it has learnt for `late_s` seconds, in the kernel's own caches (names, names that are not there,
attributes) and in listings kept here: harsher than NFS. With `asks_when_opened` it is as NFS: whoever opens a folder
learns what has changed of its names, and whoever opens a file its size ("close-to-open").
What is deleted while it is open is renamed (.nfsXXXX), flock is local to a mount, so that it is given to every machine.
It speaks FUSE's protocol itself (linux/fuse.h, 7.31): nothing is to be installed; root and /dev/fuse are needed.
"""

import contextlib
import ctypes
import errno
import functools
import itertools
import os
import queue
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ablate.core import processes

HEADER, REPLY = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
ENTRY = struct.Struct("<QQQQII")
MAX_WRITE = 1 << 17
FORGET_ATTRIBUTES, FORGET_NAME = 2, 3
"""Codes of notices to the kernel."""
FORGETS = {2, 42}
KEPT = os.O_ACCMODE | os.O_APPEND | os.O_TRUNC
NEW_NAMES, PRIVATE = 0x20000 | 0x4000000, 0x4000 | 0x40000
"""Namespaces of mounts and of the host's name; a tree of mounts that tells no other of its changes."""
NODEV, NOSUID = 4, 2


@dataclass
class Node:
    """A file or folder that the kernel knows here, by a handle to it, whatever its name becomes."""

    handle: int
    num_known: int = 0
    num_open: int = 0
    silly: tuple[int, str] | None = None
    """Folder and name of what was deleted while it was open."""
    listing: tuple[float, list[tuple[str, int, int]]] | None = None
    missing: set[str] = field(default_factory=set)
    """Names that the kernel remembers as not there."""
    changed_ns: int = 0
    """When the folder had changed last, as it was opened."""


@dataclass
class LateView:
    """One mount, served by this process until it is unmounted."""

    server: Path
    late_s: float
    asks_when_opened: bool = False
    device: int = -1
    nodes: dict[int, Node] = field(default_factory=dict)
    by_inode: dict[tuple[int, int], int] = field(default_factory=dict)
    open_files: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Number -> node, handle."""
    listings: dict[int, list[tuple[str, int, int]]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(2))
    to_tell: "queue.SimpleQueue[tuple[int, list[bytes], threading.Event]]" = field(default_factory=queue.SimpleQueue)
    """Notices that have the kernel ask anew, each with its code."""

    def mount(self, place: Path) -> None:
        self.device = os.open("/dev/fuse", os.O_RDWR)
        self.nodes[1] = Node(os.open(self.server, os.O_PATH), 1)
        options = f"fd={self.device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},allow_other"
        if LIBC.mount(b"late", os.fsencode(place), b"fuse", NODEV | NOSUID, options.encode()):
            raise OSError(ctypes.get_errno(), "mount", str(place))

    def serve(self) -> None:
        threading.Thread(target=self._tell, daemon=True).start()
        while True:
            try:
                data = os.read(self.device, MAX_WRITE + 4096)
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.ECONNABORTED):
                    return
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                raise
            self._answer(data)

    def _answer(self, data: bytes) -> None:
        _, code, unique, node, *_ = HEADER.unpack_from(data)
        body, error, out = data[HEADER.size :], 0, b""
        try:
            act = ACTS.get(code)
            if act is None:
                raise OSError(errno.ENOSYS, "")
            out = act(self, node, body) or b""
        except OSError as failed:
            error = -(failed.errno or errno.EIO)
        if code not in FORGETS:
            try:
                os.write(self.device, REPLY.pack(REPLY.size + len(out), error, unique) + out)
            except OSError as failed:
                if failed.errno != errno.ENOENT:  # the question was withdrawn
                    raise

    # names

    def _at(self, node: int) -> int:
        return self.nodes[node].handle

    def _known(self, parent: int, name: str) -> bytes:
        """-> the answer to a look-up: the node, and how long that may be kept."""
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self._at(parent))
        status = os.fstat(handle)
        key = status.st_dev, status.st_ino
        number = self.by_inode.get(key)
        if number is None:
            number = self.by_inode[key] = next(self.numbers)
            self.nodes[number] = Node(handle)
        else:
            os.close(handle)
        self.nodes[number].num_known += 1
        return self._entry(number) + _attr(status)

    def _entry(self, number: int) -> bytes:
        seconds, nanos = _kept(self.late_s)
        return ENTRY.pack(number, 0, seconds, seconds, nanos, nanos)

    def lookup(self, parent: int, body: bytes) -> bytes:
        try:
            return self._known(parent, _name(body))
        except FileNotFoundError:
            self.nodes[parent].missing.add(_name(body))
            return self._entry(0) + bytes(ATTR.size)  # that it is not there is kept too

    def forget(self, node: int, body: bytes) -> None:
        self._forget(node, struct.unpack_from("<Q", body)[0])

    def batch_forget(self, _: int, body: bytes) -> None:
        (num,) = struct.unpack_from("<I", body)
        for place in range(num):
            self._forget(*struct.unpack_from("<QQ", body, 8 + 16 * place))

    def _forget(self, number: int, num: int) -> None:
        node = self.nodes.get(number)
        if node is None or number == 1:
            return
        node.num_known -= num
        if node.num_known <= 0:
            status = os.fstat(node.handle)
            self.by_inode.pop((status.st_dev, status.st_ino), None)
            os.close(node.handle)
            del self.nodes[number]

    def _changed(self, *folders: int) -> None:
        """What is done here is seen here at once."""
        for folder in folders:
            if folder in self.nodes:
                self.nodes[folder].listing = None

    def mkdir(self, parent: int, body: bytes) -> bytes:
        mode, umask = struct.unpack_from("<II", body)
        name = _name(body[8:])
        os.mkdir(name, mode & ~umask, dir_fd=self._at(parent))
        self._changed(parent)
        return self._known(parent, name)

    def symlink(self, parent: int, body: bytes) -> bytes:
        name, target = body.split(b"\0")[:2]
        os.symlink(target, name, dir_fd=self._at(parent))
        self._changed(parent)
        return self._known(parent, os.fsdecode(name))

    def readlink(self, node: int, _: bytes) -> bytes:
        return os.fsencode(os.readlink("", dir_fd=self._at(node)))

    def link(self, parent: int, body: bytes) -> bytes:
        (old,), name = struct.unpack_from("<Q", body), _name(body[8:])
        os.link(_path(self._at(old)), name, dst_dir_fd=self._at(parent), follow_symlinks=True)
        self._changed(parent)
        return self._known(parent, name)

    def unlink(self, parent: int, body: bytes) -> None:
        name = _name(body)
        status = os.stat(name, dir_fd=self._at(parent), follow_symlinks=False)
        number = self.by_inode.get((status.st_dev, status.st_ino))
        node = self.nodes[number] if number else None
        if node and node.silly:
            raise OSError(errno.EBUSY, "")
        if node and node.num_open and status.st_nlink == 1:
            silly = f".nfs{status.st_ino:016x}{number:08x}"
            os.rename(name, silly, src_dir_fd=self._at(parent), dst_dir_fd=self._at(parent))
            node.silly = parent, silly
            self.nodes[parent].num_known += 1
        else:
            os.unlink(name, dir_fd=self._at(parent))
        self._changed(parent)

    def rmdir(self, parent: int, body: bytes) -> None:
        os.rmdir(_name(body), dir_fd=self._at(parent))
        self._changed(parent)

    def rename(self, parent: int, body: bytes, size: int = 8) -> None:
        (target,) = struct.unpack_from("<Q", body)
        old, new = body[size:].split(b"\0")[:2]
        os.rename(old, new, src_dir_fd=self._at(parent), dst_dir_fd=self._at(target))
        self._changed(parent, target)

    def rename2(self, parent: int, body: bytes) -> None:
        if struct.unpack_from("<I", body, 8)[0]:
            raise OSError(errno.EINVAL, "")
        self.rename(parent, body, 16)

    # attributes

    def getattr(self, node: int, _: bytes) -> bytes:
        seconds, nanos = _kept(self.late_s)
        return struct.pack("<QII", seconds, nanos, 0) + _attr(os.fstat(self._at(node)))

    def setattr(self, node: int, body: bytes) -> bytes:
        valid, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode = struct.unpack_from("<IIQQQQQQIIII", body)
        path = _path(self._at(node))
        if valid & 1:
            os.chmod(path, stat.S_IMODE(mode))  # noqa: PTH101 (by handle)
        if valid & 8:
            os.truncate(path, size)
        if valid & 0x1B0:
            status, now = os.fstat(self._at(node)), time.time_ns()
            times = (
                now if valid & 0x80 else atime * 10**9 + atime_ns if valid & 0x10 else status.st_atime_ns,
                now if valid & 0x100 else mtime * 10**9 + mtime_ns if valid & 0x20 else status.st_mtime_ns,
            )
            os.utime(path, ns=times)
        return self.getattr(node, b"")

    def statfs(self, node: int, _: bytes) -> bytes:
        of = os.statvfs(_path(self._at(node)))
        counts = of.f_blocks, of.f_bfree, of.f_bavail, of.f_files, of.f_ffree
        return struct.pack("<QQQQQIIII24x", *counts, of.f_bsize, of.f_namemax, of.f_frsize, 0)

    # files

    def open(self, node: int, body: bytes) -> bytes:
        (flags,) = struct.unpack_from("<I", body)
        if os.fstat(self._at(node)).st_nlink == 0:
            raise OSError(errno.ESTALE, "")
        if self.asks_when_opened:
            self._have_asked(FORGET_ATTRIBUTES, [struct.pack("<Qqq", node, -1, 0)])
        return self._opened(node, os.open(_path(self._at(node)), flags & KEPT))

    def create(self, parent: int, body: bytes) -> bytes:
        flags, mode, umask, _ = struct.unpack_from("<IIII", body)
        name = _name(body[16:])
        only = os.O_CREAT | (flags & os.O_EXCL)
        handle = os.open(name, (flags & KEPT) | only, mode & ~umask, dir_fd=self._at(parent))
        self._changed(parent)
        entry = self._known(parent, name)
        return entry + self._opened(struct.unpack_from("<Q", entry)[0], handle)

    def _opened(self, node: int, handle: int) -> bytes:
        number = next(self.numbers)
        self.open_files[number] = node, handle
        self.nodes[node].num_open += 1
        return struct.pack("<QII", number, 0, 0)

    def read(self, _: int, body: bytes) -> bytes:
        number, offset, size = struct.unpack_from("<QQI", body)
        return os.pread(self.open_files[number][1], size, offset)

    def write(self, _: int, body: bytes) -> bytes:
        number, offset, size = struct.unpack_from("<QQI", body)
        return struct.pack("<II", os.pwrite(self.open_files[number][1], body[40 : 40 + size], offset), 0)

    def release(self, _: int, body: bytes) -> None:
        number, handle = self.open_files.pop(struct.unpack_from("<Q", body)[0])
        os.close(handle)
        node = self.nodes.get(number)
        if node is None:
            return
        node.num_open -= 1
        if node.silly and not node.num_open:
            parent, name = node.silly
            os.unlink(name, dir_fd=self._at(parent))
            node.silly = None
            self._changed(parent)
            self._forget(parent, 1)

    def fsync(self, _: int, body: bytes) -> None:
        os.fsync(self.open_files[struct.unpack_from("<Q", body)[0]][1])

    # folders

    def opendir(self, node: int, _: bytes) -> bytes:
        if self.asks_when_opened:
            self._look_afresh(node)
        known, now = self.nodes[node].listing, time.monotonic()
        if known is None or now - known[0] > self.late_s:
            with os.scandir(_path(self._at(node))) as inside:
                known = now, [(one.name, one.inode(), 4 if one.is_dir(follow_symlinks=False) else 8) for one in inside]
            self.nodes[node].listing = known
        number = next(self.numbers)
        self.listings[number] = known[1]
        return struct.pack("<QII", number, 0, 0)

    def _look_afresh(self, number: int) -> None:
        node, status = self.nodes[number], os.fstat(self._at(number))
        if status.st_mtime_ns == node.changed_ns:
            return
        node.changed_ns, node.listing = status.st_mtime_ns, None
        missing, node.missing = node.missing, set()
        names = map(os.fsencode, missing)
        self._have_asked(FORGET_NAME, [struct.pack("<QII", number, len(raw), 0) + raw + b"\0" for raw in names])

    def _have_asked(self, code: int, notices: list[bytes]) -> None:
        is_done = threading.Event()
        self.to_tell.put((code, notices, is_done))
        is_done.wait(0.05)  # no longer: the kernel may wait for our next answer before it can forget

    def _tell(self) -> None:
        while True:
            code, notices, is_done = self.to_tell.get()
            for notice in notices:
                with contextlib.suppress(OSError):
                    os.write(self.device, REPLY.pack(REPLY.size + len(notice), code, 0) + notice)
            is_done.set()

    def readdir(self, _: int, body: bytes) -> bytes:
        number, offset, size = struct.unpack_from("<QQI", body)
        out = b""
        for place, (name, inode, what) in enumerate(self.listings[number][offset:], offset + 1):
            raw = os.fsencode(name)
            entry = struct.pack("<QQII", inode, place, len(raw), what) + raw + bytes(-len(raw) % 8)
            if len(out) + len(entry) > size:
                break
            out += entry
        return out

    def releasedir(self, _: int, body: bytes) -> None:
        del self.listings[struct.unpack_from("<Q", body)[0]]

    def init(self, _: int, body: bytes) -> bytes:
        major, _, readahead, _ = struct.unpack_from("<IIII", body)
        big_writes = 1 << 5
        return struct.pack("<IIIIHHIIHHI28x", major, 31, readahead, big_writes, 12, 9, MAX_WRITE, 1, 32, 0, 0)

    def nothing(self, _: int, __: bytes) -> None:
        """What needs no answer but that it is done."""


ACTS: dict[int, Callable[[LateView, int, bytes], bytes | None]] = {
    1: LateView.lookup, 2: LateView.forget, 3: LateView.getattr, 4: LateView.setattr, 5: LateView.readlink,
    6: LateView.symlink, 9: LateView.mkdir, 10: LateView.unlink, 11: LateView.rmdir, 12: LateView.rename,
    13: LateView.link, 14: LateView.open, 15: LateView.read, 16: LateView.write, 17: LateView.statfs,
    18: LateView.release, 20: LateView.fsync, 25: LateView.nothing, 26: LateView.init, 27: LateView.opendir,
    28: LateView.readdir, 29: LateView.releasedir, 30: LateView.nothing, 35: LateView.create,
    42: LateView.batch_forget, 45: LateView.rename2,
}  # fmt: skip
"""FUSE's operation codes; any other is one that this file system does not have."""
LIBC = ctypes.CDLL(None, use_errno=True)


def _name(body: bytes) -> str:
    return os.fsdecode(body.split(b"\0", 1)[0])


def _path(handle: int) -> str:
    return f"/proc/self/fd/{handle}"


def _kept(seconds: float) -> tuple[int, int]:
    return int(seconds), int(seconds % 1 * 10**9)


def _attr(of: os.stat_result) -> bytes:
    times = [divmod(ns, 10**9) for ns in (of.st_atime_ns, of.st_mtime_ns, of.st_ctime_ns)]
    return ATTR.pack(
        of.st_ino, of.st_size, of.st_blocks, *(s for s, _ in times), *(ns for _, ns in times), of.st_mode, of.st_nlink,
        of.st_uid, of.st_gid, 0, of.st_blksize, 0,
    )  # fmt: skip


# as a machine of its own


@dataclass
class Machine:
    """What else than this process sees a folder: a host name, a mount, and the processes that are started there."""

    name: str
    server: Path
    place: Path
    late_s: float
    asks_when_opened: bool = False

    def __enter__(self) -> "Machine":
        words = [__file__, self.name, self.server, self.place, self.late_s, int(self.asks_when_opened)]
        self._process = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.PIPE)
        assert self._process.stdout
        if not self._process.stdout.readline():
            self._process.wait()
            raise OSError(errno.EPERM, "no such mount can be made here")
        return self

    def popen(self, command: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":
        """Starts a process that sees the folder as this machine does."""
        return subprocess.Popen(["nsenter", f"--target={self._process.pid}", "--mount", "--uts", *command], **options)

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()

    def kill(self) -> None:
        """As a power cut does: all that runs there, and then its view of the folder."""
        mount = os.stat(f"/proc/{self._process.pid}/ns/mnt").st_ino  # noqa: PTH116 (a link to no file)
        for one in psutil.pids():
            with contextlib.suppress(OSError):
                is_there = os.stat(f"/proc/{one}/ns/mnt").st_ino == mount  # noqa: PTH116 (a link to no file)
                if is_there and one != self._process.pid:
                    os.kill(one, signal.SIGKILL)
        self._process.kill()
        self._process.wait()


@functools.cache
def why_not() -> str | None:
    """-> why no other machine's view can be had here, or None."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or shutil.which("nsenter") is None:
        return "a late view of a folder wants root, /dev/fuse and nsenter"
    with tempfile.TemporaryDirectory() as folder:
        for name in ("server", "place"):
            (Path(folder) / name).mkdir()
        try:
            with Machine("probe", Path(folder) / "server", Path(folder) / "place", 1.0):
                return None
        except OSError as error:
            return f"no late view of a folder: {error}"


def main(name: str, server: str, place: str, late_s: str, asks_when_opened: str) -> None:
    processes.die_with_parent(os.getppid())
    if LIBC.unshare(NEW_NAMES):
        raise OSError(ctypes.get_errno(), "unshare")
    LIBC.mount(b"none", b"/", None, PRIVATE, None)
    socket.sethostname(name)
    view = LateView(Path(server), float(late_s), asks_when_opened == "1")
    view.mount(Path(place))
    print("mounted", flush=True)
    view.serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
