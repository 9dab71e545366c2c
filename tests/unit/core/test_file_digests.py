"""When a file is read anew: always where it is small, once a process or once for all where it is large."""

import hashlib
import os
import threading
import time
from pathlib import Path

import pytest
from support.faulty import operations

from ablate.core import disk, file_digests
from ablate.core.disk_operations import through
from ablate.core.file_digests import ONCE_A_PROCESS_BYTES, REMEMBERED_BYTES
from ablate.core.temporary_files import writer_of
from ablate.store.manifest import durable_listing


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def changed_in_secret(path: Path) -> bytes:
    """Another content of the same size and time. -> it."""
    stat = path.stat()
    data = b"x" * stat.st_size
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return data


def test_a_large_file_is_read_once_a_process_by_whichever_link(tmp_path):
    path, link = tmp_path / "weights", tmp_path / "link"
    path.write_bytes(bytes(ONCE_A_PROCESS_BYTES))
    first = file_digests.sha256_once(path)
    assert first == sha256(bytes(ONCE_A_PROCESS_BYTES))
    link.hardlink_to(path)
    data = changed_in_secret(path)
    assert file_digests.sha256_once(path) == file_digests.sha256_once(link) == first
    os.utime(path)
    assert file_digests.sha256_once(path) == sha256(data)


def test_a_small_file_is_read_each_time(tmp_path):
    path = tmp_path / "state.json"
    path.write_bytes(b"y" * (REMEMBERED_BYTES - 1))
    file_digests.sha256_once(path), file_digests.sha256(path)
    data = changed_in_secret(path)
    assert file_digests.sha256_once(path) == file_digests.sha256(path) == sha256(data)
    assert file_digests.known_sha256(path) == sha256(data)
    assert not (tmp_path / "cache").exists()


def test_what_is_remembered_on_disk_counts_until_the_file_is_touched_and_is_put_right_by_a_reading(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(REMEMBERED_BYTES))
    assert file_digests.known_sha256(path) is None
    file_digests.remember_sha256(path, "remembered")
    assert file_digests.sha256(path) == file_digests.known_sha256(path) == "remembered"
    assert file_digests.reread_sha256(path) == sha256(bytes(REMEMBERED_BYTES)) == file_digests.known_sha256(path)
    data = changed_in_secret(path)  # but for the time of its inode
    assert file_digests.known_sha256(path) is None
    assert file_digests.sha256(path) == sha256(data)


def test_a_large_file_is_hashed_once_it_is_two_seconds_old(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"a" * (2 << 20))
    digest = file_digests.sha256(rows)
    assert file_digests.sha256(rows) == digest  # too young to be remembered
    assert not (tmp_path / "cache").exists()
    time.sleep(max(0.0, rows.stat().st_ctime + file_digests.MIN_AGE_S + 0.05 - time.time()))
    assert file_digests.sha256(rows) == digest
    (kept,) = (tmp_path / "cache").rglob("sha256/*")
    disk.write_sealed(kept, disk.read_sealed(kept, ()) | {"sha256": "remembered"})
    assert file_digests.sha256(rows) == "remembered"
    kept.write_text(kept.read_text().replace("remembered", "damaged"))
    assert file_digests.sha256(rows) == digest
    data = changed_in_secret(rows)  # but for the time of its inode
    assert file_digests.sha256(rows) == sha256(data)


def test_git_knows_a_file_by_the_same_name(tmp_path):
    (tmp_path / "a").write_bytes(b"hello\n")
    assert file_digests.git_sha1(tmp_path / "a") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_a_listing_is_of_files_that_are_durable_and_leaves_out_the_manifest_itself(tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("out/result.json", "stage.json", "done.json"):
        (tmp_path / name).write_text(name)
    listings = []
    done = operations(lambda: listings.append(durable_listing(tmp_path)))
    assert listings == [
        {name: {"size": len(name), "sha256": sha256(name.encode())} for name in ("out/result.json", "stage.json")}
    ]
    assert {(one.name, one.paths[0].name) for one in done} == {
        ("fsync_folder", "out"), ("fsync", "result.json"), ("fsync", "stage.json")
    }  # fmt: skip


# the door


def test_what_other_threads_write_goes_through_the_same_door_and_an_error_closes_it(tmp_path):
    names: list[str] = []

    def note(name, paths, act):
        names.append(name)
        return act()

    def write_in_a_thread_and_stop() -> None:
        thread = threading.Thread(target=disk.append, args=(tmp_path / "log", "line\n"))
        thread.start()
        thread.join()
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"), through(note):
        write_in_a_thread_and_stop()
    disk.append(tmp_path / "log", "line\n")
    assert names == ["append"]
    assert (tmp_path / "log").read_text() == "line\n" * 2


def test_a_file_that_is_being_written_says_by_whom(tmp_path):
    temporary = operations(lambda: disk.write(tmp_path / "a.json", "x"))[0].paths[0]
    assert writer_of(temporary) == os.getpid()
    assert writer_of(tmp_path / "a.json") is None
    assert writer_of(tmp_path / ".hidden") is None
