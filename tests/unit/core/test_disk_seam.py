"""One seam writes under runs/: whatever else writes is named here, with its reason."""

import ast
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faulty import fails, operations
from support.paths import PACKAGE

from ablate.core import disk
from ablate.core.disk_operations import through

METHODS = {
    "write_text", "write_bytes", "mkdir", "touch", "rename", "unlink", "rmdir", "chmod", "symlink_to", "hardlink_to",
    "save_pretrained", "to_csv", "to_json", "to_parquet",
}  # fmt: skip
OF_MODULES = {
    "os": {"rename", "replace", "link", "symlink", "unlink", "remove", "mkdir", "makedirs", "rmdir", "chmod"},
    "shutil": {"copy", "copy2", "copyfile", "copytree", "move", "rmtree"},
}  # fmt: skip
NAMES = {"save_file", "FileLock", "SoftFileLock", "snapshot_download"}
ELSEWHERE = {
    "core/disk.py": "the seam",
    "core/temporary_files.py": "the seam's",
    "core/tree_removal.py": "the seam's",
    "example": "makes the embedded study's models and data, once, for the package",
    "core/new_file.py": "`ablate new` writes a file of the user's",
    "export.py": "a folder of the user's, made whole by the seam",
    "store/hub_download.py": "the cache of huggingface_hub",
    "store/node_copies.py": "copies of models on a node's own disk",
    "machine/lock_folders.py": "shares of a card: locks on this host, not under runs/",
    "machine/network.py": "who this process is in its own namespace, under /proc",
    "maintenance/filesystem_checks.py": "tries what the file system does, in a folder that goes again",
    "execution/remote_example/cluster.py": "the folder of a cluster that is none",
    "execution/worker.py": "its own streams",
    "training/vllm_writer.py": "the model that vLLM reads: an attempt's scratch, compared tensor by tensor, no result",
    "stages/toy.py": "a count of faults outside runs/",
}
"""File or folder -> why it may write without the seam."""


def writes(path: Path) -> Iterator[str]:
    """What a module does that changes a disk."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and (name := _written(node)):
            yield f"{path.relative_to(PACKAGE).as_posix()}:{node.lineno} {name}"


def _written(call: ast.Call) -> str | None:
    function = call.func
    if isinstance(function, ast.Name):
        return function.id if function.id in NAMES or (function.id == "open" and _is_to_write(call, 1)) else None
    if not isinstance(function, ast.Attribute):
        return None
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    if owner in ("disk", "temporary_files"):
        return None
    is_written = function.attr in OF_MODULES.get(owner, METHODS) or (function.attr == "open" and _is_to_write(call, 0))
    return function.attr if is_written or function.attr in NAMES else None


def _is_to_write(call: ast.Call, position: int) -> bool:
    modes = [word.value for word in call.keywords if word.arg == "mode"] + call.args[position : position + 1]
    return any(isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax+") for mode in modes)


def _is_elsewhere(path: Path) -> bool:
    name = path.relative_to(PACKAGE).as_posix()
    return name in ELSEWHERE or name.partition("/")[0] in ELSEWHERE


def test_nothing_but_the_seam_writes_under_runs():
    lines = [line for path in PACKAGE.rglob("*.py") if not _is_elsewhere(path) for line in writes(path)]
    assert lines == []


@pytest.mark.parametrize("name", ["core/disk.py", "core/temporary_files.py"])
def test_the_seam_itself_writes_by_operations_alone(name):
    tree = ast.parse((PACKAGE / name).read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    operations = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "operate"]
    inside = {node for operation in operations for node in ast.walk(operation)}
    past = [_written(call) for call in calls if _written(call) and call not in inside]
    assert past == []


def test_every_exception_still_writes():
    for name in ELSEWHERE:
        path = PACKAGE / name
        assert any([*writes(module)] for module in (path.rglob("*.py") if path.is_dir() else [path])), name


@pytest.mark.parametrize(
    "line",
    ["p.write_text('x')", "open(p, 'w')", "p.open('ab')", "p.open(mode='x')", "os.replace(p, q)", "shutil.move(p, q)",
     "save_file(t, p)", "p.mkdir(parents=True)"],
)  # fmt: skip
def test_what_writes_is_seen(line):
    assert _written(ast.parse(line).body[0].value)


@pytest.mark.parametrize(
    "line", ["p.open()", "p.open('rb')", "text.replace('a', 'b')", "disk.unlink(p)", "os.open(p, 0)"]
)
def test_what_only_reads_is_not(line):
    assert not _written(ast.parse(line).body[0].value)


def test_a_file_is_written_beside_synced_and_then_put_in_place(tmp_path):
    done = operations(lambda: disk.write(tmp_path / "a", "x"))
    assert [operation.name for operation in done] == ["write", "fsync", "rename", "fsync_folder"]
    assert done[0].paths != done[2].paths[1:] == (tmp_path / "a",)


def test_a_file_that_could_not_be_synced_is_dropped_and_never_synced_again(tmp_path):
    disk.write(tmp_path / "a", "old")
    with through(fails(1, 5, is_for_ever=False)), pytest.raises(OSError, match="Input/output"):
        disk.write(tmp_path / "a", "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_what_a_killed_writer_left_goes_with_the_next_one_and_a_living_ones_stays(tmp_path):
    disk.write_volatile(tmp_path / "a", "x")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    temporary = operations(lambda: disk.write(tmp_path / "a", "x"))[0].paths[0]
    beside = temporary.name.removesuffix(str(os.getpid()))
    for pid in (ended.pid, os.getppid()):
        (tmp_path / f"{beside}{pid}").write_text("half")
    (tmp_path / f".a.00000000.{ended.pid}").write_text("of another machine")
    disk.write(tmp_path / "a", "y")
    assert {path.name for path in tmp_path.iterdir()} == {"a", f"{beside}{os.getppid()}", f".a.00000000.{ended.pid}"}


def test_a_name_that_was_given_but_answered_with_exists_is_ours(tmp_path):
    with through(fails(2, 17, is_for_ever=False, is_done=True)):
        assert disk.create(tmp_path / "worker.json", "me")
    assert [path.name for path in tmp_path.iterdir()] == ["worker.json"]


@pytest.mark.parametrize("name", ["EXDEV", "EMLINK", "EPERM"])
def test_where_there_are_no_hard_links_a_copy_is_made_and_synced(tmp_path, name):
    (tmp_path / "a").write_text("x")
    with through(fails(0, getattr(errno, name), is_for_ever=False)):
        disk.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "x"


def test_a_full_disk_is_told_with_what_was_wanted_what_is_free_and_what_makes_room(tmp_path):
    with through(fails(0, 28, is_for_ever=False)), pytest.raises(OSError) as caught:
        disk.write(tmp_path / "a", "x" * 12_345)
    assert "12,345 bytes were to be written" in str(caught.value)
    assert "are free; `ablate gc` may make room" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
