"""A model is copied to a node's disk once, whole or not at all; where that cannot be, it is read where it lies."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.paths import ROOT
from support.toys import wait_for

from ablate.core import file_digests
from ablate.core.errors import StageError
from ablate.execution.executors.base import environment
from ablate.store import node_copies
from ablate.store.manifest import misfit

SHARED = """
import sys, time
from pathlib import Path
from ablate.core.local_files import file_digests
from ablate.store import node_copies
node_copies.SAY_S = 0.1
folder, wait_s, chunk_s = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
names = sorted(path.name for path in folder.iterdir())
digests = file_digests(folder, names)
files = {name: {"size": (folder / name).stat().st_size, "sha256": sha} for name, sha in digests.items()}
if chunk_s:
    copy = node_copies._copy_file
    def slowly(*words):
        time.sleep(chunk_s)
        copy(*words)
    node_copies._copy_file = slowly
print("at", node_copies.near(folder, files), flush=True)
time.sleep(wait_s)
"""


@pytest.fixture(autouse=True)
def _node(tmp_path, monkeypatch):
    (tmp_path / "node").mkdir()
    monkeypatch.setenv(node_copies.PLACE, "local")
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "node"))
    monkeypatch.setattr(node_copies, "_in_use", {})


def model(folder: Path, num_bytes: int = 5000) -> Path:
    """As the hub's cache has one: links to blobs."""
    folder.mkdir()
    blobs = folder.with_name(f"{folder.name}-blobs")
    blobs.mkdir()
    for name, data in {"config.json": b"{}", "model.safetensors": os.urandom(num_bytes)}.items():
        (blobs / name).write_bytes(data)
        (folder / name).symlink_to(blobs / name)
    return folder


def listing(folder: Path) -> dict[str, dict]:
    data = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {name: {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in data.items()}


def near(folder: Path) -> Path:
    return node_copies.near(folder, listing(folder))


def worker(folder: Path, wait_s: float = 0.0, chunk_s: float = 0.0) -> "subprocess.Popen[str]":
    words = [str(folder), str(wait_s), str(chunk_s)]
    settings = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen([sys.executable, "-c", SHARED, *words], stdout=subprocess.PIPE, text=True, env=settings)


def said(runs: Sequence["subprocess.Popen[str]"]) -> list[str]:
    return [line for run in runs for line in run.communicate(timeout=60)[0].splitlines()]


def copies(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "node").glob("ablate-models-*/*") if path.is_dir()]


def test_a_model_is_read_from_the_nodes_own_disk_and_is_the_same_there(tmp_path, capsys):
    folder = model(tmp_path / "snapshot")
    copy = near(folder)
    assert copy.is_relative_to(tmp_path / "node")
    assert listing(folder).items() <= listing(copy).items()
    assert not any(path.is_symlink() for path in copy.iterdir())
    assert "copies" in capsys.readouterr().out
    assert near(folder) == copy
    assert capsys.readouterr().out == ""


def test_a_copy_that_takes_long_says_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(node_copies, "SAY_S", 0.0)
    near(model(tmp_path / "snapshot"))
    assert "stage_in: model.safetensors: 5 kB of 5 kB" in capsys.readouterr().out


def test_of_several_workers_of_a_node_one_copies_and_the_others_wait(tmp_path):
    folder = model(tmp_path / "snapshot")
    lines = said([worker(folder, chunk_s=0.5) for _ in range(3)])
    assert sum("] stage_in: copies" in line for line in lines) == 1
    assert any("waits for another worker's copy" in line for line in lines)  # silence would count as stalled
    assert {line for line in lines if line.startswith("at")} == {f"at {copies(tmp_path)[0]}"}


def test_a_copy_that_was_broken_off_is_never_used(tmp_path):
    folder = model(tmp_path / "snapshot")
    broken = worker(folder, chunk_s=0.3)
    wait_for(lambda: list((tmp_path / "node").glob("*/*.new/config.json")))
    broken.send_signal(signal.SIGKILL)
    broken.wait()
    assert copies(tmp_path)[0].name.endswith(".new")
    copy = near(folder)
    assert listing(folder).items() <= listing(copy).items()
    assert copies(tmp_path) == [copy]


def test_a_copy_that_somebody_changed_is_made_anew(tmp_path, monkeypatch):
    folder = model(tmp_path / "snapshot")
    copy = near(folder)
    stat = (copy / "model.safetensors").stat()
    (copy / "model.safetensors").write_bytes(bytes(stat.st_size))
    os.utime(copy / "model.safetensors", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    os.close(node_copies._in_use.pop(copy))
    assert listing(folder).items() <= listing(near(folder)).items()


def test_a_copy_that_somebody_removes_under_its_reader_is_read_no_more(tmp_path, capsys):
    folder = model(tmp_path / "snapshot")
    shutil.rmtree(near(folder))
    assert near(folder) == folder
    assert "was removed or changed" in capsys.readouterr().out


def test_nothing_is_made_of_what_is_not_what_was_fetched_though_it_was_remembered_to_be(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = model(tmp_path / "snapshot", file_digests.REMEMBERED_BYTES)
    files, weights = listing(folder), folder / "model.safetensors"
    weights.write_bytes(bytes(file_digests.REMEMBERED_BYTES))  # as a disk loses bits, which no time of a file shows
    file_digests.remember_sha256(weights, files[weights.name]["sha256"])
    assert misfit(weights, files[weights.name]) is None
    with pytest.raises(StageError, match="has other content than was fetched") as error:
        node_copies.near(folder, files)
    assert error.value.failure == "missing_input"
    assert "other content" in misfit(weights, files[weights.name])
    assert copies(tmp_path) == []


def test_what_was_not_read_for_longest_goes_first_and_what_is_read_stays(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(node_copies.MOST_GB, str(14_000 / 1e9))
    old, newer, newest = (model(tmp_path / name) for name in ("old", "newer", "newest"))
    for number, folder in enumerate((old, newer), 1):
        copy = near(folder)
        os.utime(copy / node_copies.STAMPS, (number, number))
        os.close(node_copies._in_use.pop(copy))
    kept = near(newest)
    assert set(copies(tmp_path)) == {kept, copy}
    reads = worker(newer, wait_s=60)
    try:
        assert reads.stdout.readline().startswith("at")
        assert near(old) == old  # both others are being read
        assert "stage_in_gb is full" in capsys.readouterr().out
    finally:
        reads.kill()
        reads.wait()
    assert set(copies(tmp_path)) == {kept, copy}


@pytest.mark.parametrize("case", ["too large", "full disk", "no folder", "another's folder"])
def test_where_there_can_be_no_copy_the_model_is_read_where_it_is_and_the_log_says_why(
    tmp_path, monkeypatch, capsys, case
):
    folder = model(tmp_path / "snapshot")
    match case:
        case "too large":
            monkeypatch.setenv(node_copies.MOST_GB, "0.000001")
        case "full disk":
            monkeypatch.setattr(node_copies, "SPARE_BYTES", 1 << 60)
        case "no folder":
            monkeypatch.setenv(node_copies.PLACE, "$NO_SUCH_VARIABLE/models")
        case _:
            theirs = tmp_path / "node" / f"ablate-models-{os.getuid()}"
            theirs.mkdir()
            theirs.chmod(0o777)
    assert near(folder) == folder
    assert "[ablate] stage_in: " in capsys.readouterr().out
    assert copies(tmp_path) == []


def test_without_a_profile_that_says_so_nothing_is_copied(tmp_path, monkeypatch):
    monkeypatch.delenv(node_copies.PLACE)
    folder = model(tmp_path / "snapshot")
    assert near(folder) == folder
    request = {"slot": {"device": "cpu", "gpu": None, "threads": 1}, "is_online": False}
    assert node_copies.PLACE not in environment(request)
    profile = {"name": "a100", "options": {"stage_in": "$SCRATCH", "stage_in_gb": 7}}
    settings = environment(request | {"profile": profile})
    assert (settings[node_copies.PLACE], settings[node_copies.MOST_GB]) == ("$SCRATCH", "7")
