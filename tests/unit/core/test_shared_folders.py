"""What file systems that several machines share do otherwise than a disk of one's own, one thing a test."""

import errno
import os
import time
from pathlib import Path

import pytest

from ablate.core import disk, file_digests, plain_files, shared_folders, tree_removal
from ablate.core.disk_operations import through
from ablate.store.manifest import durable_listing

SILLY = ".nfs000000000012ab3400000001"


def at(name: str, number: int, code: int, *, is_done: bool = False):
    """Operation `number` of a name (from 0) fails."""
    count = -1

    def around(operation, paths, act):
        nonlocal count
        count += operation == name
        if operation != name or count != number:
            return act()
        if is_done:
            act()
        raise OSError(code, os.strerror(code), str(paths[-1]))

    return around


@pytest.mark.parametrize("write", [disk.write, disk.write_volatile])
def test_a_rename_that_was_done_but_answered_with_no_such_file_is_done(tmp_path, write):
    with through(at("rename", 0, errno.ENOENT, is_done=True)):
        write(tmp_path / "heartbeat", "1")
    assert (tmp_path / "heartbeat").read_text() == "1"
    (tmp_path / "made").mkdir()
    with through(at("rename", 0, errno.ENOENT, is_done=True)):
        disk.rename(tmp_path / "made", tmp_path / "stage")
    assert (tmp_path / "stage").is_dir()


def test_a_rename_that_was_not_done_is_none(tmp_path):
    (tmp_path / "made").mkdir()
    with through(at("rename", 0, errno.ENOENT)), pytest.raises(FileNotFoundError):
        disk.rename(tmp_path / "made", tmp_path / "stage")
    with pytest.raises(FileNotFoundError):
        disk.rename(tmp_path / "none", tmp_path / "made")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_folders_cannot_be_synced_files_are_written_all_the_same(tmp_path, code):
    with through(at("fsync_folder", 0, code)):
        disk.write(tmp_path / "a", "x")
    with through(at("fsync_folder", 0, errno.EIO)), pytest.raises(OSError, match="Input/output"):
        disk.write(tmp_path / "a", "y")


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_where_there_are_no_hard_links_one_alone_makes_a_file(tmp_path, code):
    wins = []
    for name in ("me", "you"):
        with through(at("link", 0, code)):
            wins.append(disk.create(tmp_path / "worker.json", name))
    assert wins == [True, False]
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("worker.json", "me")]


def _unlink_as_over_nfs(monkeypatch, is_open) -> None:
    """Has files that are open renamed instead of removed, by whoever removes them; what is so named is busy."""
    unlink = os.unlink

    def silly(path, *, dir_fd=None):
        name = Path(path).name
        if name == SILLY:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), path)
        if not is_open(name):
            return unlink(path, dir_fd=dir_fd)
        return os.rename(path, SILLY, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", silly)


def test_a_folder_of_which_a_file_is_open_somewhere_is_removed_but_for_that(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    (folder / "step-5").mkdir(parents=True)
    for name in ("manifest.json", "model.safetensors"):
        (folder / "step-5" / name).write_text(name)
    (folder / "step-4").mkdir()
    _unlink_as_over_nfs(monkeypatch, lambda name: name == "model.safetensors")
    for _ in range(2):
        tree_removal.remove(folder)
        assert [path.relative_to(folder).as_posix() for path in folder.rglob("*")] == ["step-5", f"step-5/{SILLY}"]


@pytest.mark.parametrize("is_gone", [False, True], ids=["closed", "removed by another"])
def test_a_folder_whose_last_file_is_closed_while_it_is_removed_goes_with_all_beside_it(tmp_path, monkeypatch, is_gone):
    folder = tmp_path / "checkpoints"
    for name in ("step-4", "step-5"):
        (folder / name).mkdir(parents=True)
    rmdir, late = os.rmdir, ["step-4", "step-5"]

    def closed_too_late(path, *, dir_fd=None):
        if Path(path).name not in late:
            return rmdir(path, dir_fd=dir_fd)
        late.remove(Path(path).name)
        if is_gone:
            rmdir(path, dir_fd=dir_fd)
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)

    monkeypatch.setattr(os, "rmdir", closed_too_late)
    tree_removal.remove(folder)
    assert not folder.exists()


def test_a_folder_that_is_not_empty_for_another_reason_is_told(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_text("x")
    (tmp_path / "folder" / SILLY).write_text("x")
    monkeypatch.setattr(os, "unlink", lambda *_, **__: None)
    with pytest.raises(OSError, match="not empty"):
        tree_removal.remove(tmp_path / "folder")


@pytest.mark.parametrize("name", [SILLY, ".fuse_hidden0000002b00000001"])
def test_what_is_deleted_while_somebody_reads_it_is_no_part_of_a_result(tmp_path, name):
    (tmp_path / "out").mkdir()
    for file in (f"out/{name}", "out/model.safetensors"):
        (tmp_path / file).write_text("x")
    assert [*durable_listing(tmp_path)] == ["out/model.safetensors"]
    assert not plain_files.is_deleted_in_use("nfs.json")


def test_a_handle_that_another_machine_made_stale_is_looked_up_once_more(tmp_path, monkeypatch):
    (tmp_path / "heartbeat").write_text("7")
    opened, answers = os.open, [errno.ESTALE]

    def stale(path, flags, *rest, **more):
        if answers:
            raise OSError(answers[0], os.strerror(answers.pop()), str(path))
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", stale)
    assert plain_files.read_text(tmp_path / "heartbeat") == "7"


def test_a_file_that_changes_while_it_is_read_is_not_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"a" * file_digests.REMEMBERED_BYTES)
    os.utime(rows, (1, 1))
    # the file system's clock is an hour behind ours: to us all of it is old
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 3600)
    read = plain_files.opened

    def edited(path, **more):
        file = read(path, **more)
        if path == rows:
            data = file.read()
            rows.write_bytes(b"b" * len(data))
            file.seek(0)
        return file

    monkeypatch.setattr(plain_files, "opened", edited)
    file_digests.sha256(rows)
    assert not (tmp_path / "cache").exists()


def test_what_another_machine_made_is_awaited_and_what_nobody_makes_for_so_long_alone(tmp_path):
    looks = []
    assert shared_folders.awaited(lambda: looks.append(1) or (len(looks) > 2 or None), tmp_path) is True
    assert shared_folders.awaited(lambda: None, tmp_path, 0.0) is None
    shared_folders.look_afresh(tmp_path / "none")
