"""A report folder is the old one or the new one, whatever it is killed by; what is not ours in it stays."""

import os
import shutil

import pytest
from support.damages import REPLACING, contents, within
from support.faulty import KILLS, killed, operations, without_waiting

from ablate.core.disk_operations import through
from ablate.report import write

OLD = {"report.html": b"old", "results.csv": b"old", "figures/gone.png": b"old"}
NEW = {"report.html": b"new", "results.csv": b"new", "tables/more.csv": b"new"}
NOTE = "a person's.txt"


def folder(root):
    return root / "reports" / "small"


def write_new(root):
    write._write(folder(root), NEW, {"inputs": "new"})


def files(root):
    """-> what lies there, but for the record of what was written."""
    inside = contents(folder(root)).items() if folder(root).is_dir() else ()
    return {os.path.relpath(path, folder(root)): data for path, data in inside if not path.endswith(write.MADE)}


@pytest.fixture
def begin(tmp_path):
    root = tmp_path / "begin"
    write._write(folder(root), OLD, {"inputs": "old"})
    (folder(root) / NOTE).write_text("mine")
    return root


def names(root):
    return sorted(path.name for path in (root / "reports").iterdir())


@pytest.mark.parametrize("how", ["before", "torn", "after"])
def test_a_report_killed_at_any_operation_is_the_old_one_or_the_new_one_and_the_next_one_mends(begin, tmp_path, how):
    root = tmp_path / "root"
    shutil.copytree(begin, root)
    done = operations(lambda: write_new(root))
    old, new = files(begin), files(root)
    assert new == NEW | {NOTE: b"mine"}
    seen = set()
    for number, operation in enumerate(done):
        if operation.name not in KILLS[how]:
            continue
        shutil.rmtree(root)
        shutil.copytree(begin, root)
        killed(lambda: write_new(root), root, number, how)
        assert files(root) in (old, new)
        seen.add(files(root) == new)
        with through(without_waiting):
            write_new(root)
        assert files(root) == new
        assert names(root) == ["small"]
        assert write._is_current(folder(root), "new")
    assert seen == ({True, False} if how != "before" else {False})


@pytest.mark.parametrize("how", REPLACING)
@pytest.mark.parametrize("place", ["small", "small/report.html", "small/.made.json", "small/figures"])
def test_whatever_lies_in_the_place_of_a_report_is_replaced_and_nothing_outside_is_written(begin, tmp_path, place, how):
    REPLACING[how](begin / "reports" / place)
    decoys = contents(tmp_path / "begin.decoy")
    with within(20), through(without_waiting):
        assert not write._is_current(folder(begin), "old")
        write_new(begin)
    assert {name: files(begin)[name] for name in NEW} == NEW
    assert write._is_current(folder(begin), "new")
    assert contents(tmp_path / "begin.decoy") == decoys
    if how == "swapped" and place.endswith((".html", ".json")):
        assert (folder(begin) / f"{place.removeprefix('small/')}.aside/inside").read_text() == "a file"


def test_reports_behind_a_link_stay_there(begin, tmp_path):
    (begin / "reports").rename(tmp_path / "elsewhere")
    (begin / "reports").symlink_to(tmp_path / "elsewhere")
    write_new(begin)
    assert (begin / "reports").is_symlink()
    assert files(begin) == NEW | {NOTE: b"mine"}


def test_a_record_that_names_files_elsewhere_removes_none(begin, tmp_path):
    (tmp_path / "precious").write_text("mine")
    write._write(folder(begin), OLD, {"inputs": "old"})
    record = folder(begin) / write.MADE
    record.write_text(record.read_text().replace("figures/gone.png", "../../../precious"))
    write_new(begin)
    assert (tmp_path / "precious").read_text() == "mine"
