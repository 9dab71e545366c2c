"""Shares of a card: for all users of a host, never one twice, free as soon as who had them is gone."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from ablate.machine import lock_folders
from ablate.machine.gpu_leases import CardLeases, Lease

HOLD = """
import os, sys, time
from pathlib import Path
from ablate.machine import gpu_leases, lock_folders
lock_folders.SHARED = Path(sys.argv[1]) / "shared"
lock_folders.TEMPORARY = Path(sys.argv[1])
os.setuid(int(sys.argv[2])) if int(sys.argv[2]) else None
lease = gpu_leases.Lease("GPU-a", int(sys.argv[3]), 4)
print(lease.is_had(), lease.folder.path, *lease.folder.problems, flush=True)
time.sleep(60)
"""
OTHER = 12_345
AS_ANOTHER = pytest.mark.skipif(os.getuid() != 0, reason="wants to be another user")


@pytest.fixture
def locks(monkeypatch):
    with tempfile.TemporaryDirectory(prefix="ablate-tests-") as folder:
        Path(folder).chmod(0o1777)  # for another user to look into
        monkeypatch.setattr(lock_folders, "TEMPORARY", Path(folder))
        monkeypatch.setattr(lock_folders, "SHARED", Path(folder) / "shared")
        monkeypatch.setenv("XDG_CACHE_HOME", f"{folder}/cache")
        yield Path(folder)


@pytest.fixture
def shared(locks):
    """As an administrator makes it."""
    (locks / "shared").mkdir()
    (locks / "shared").chmod(0o1777)
    return locks / "shared"


def own(locks):
    return locks / f"ablate-locks-{os.getuid()}"


def holder(locks, shares, user=0):
    """-> a process, whether it had its shares, and where it locked what."""
    arguments = [sys.executable, "-c", HOLD, str(locks), str(user), str(shares)]
    started = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    return started, *started.stdout.readline().strip().split(" ", 1)


def test_shares_add_up_and_come_back(locks):
    one, two, all_of_it = Lease("GPU-a", 3, 4), Lease("GPU-a", 1, 4), Lease("GPU-a", 4, 4)
    assert one.is_had()
    assert two.is_had()
    assert Lease("GPU-b", 4, 4).is_had()
    one.release()
    assert not all_of_it.is_had()
    two.release()
    assert all_of_it.is_had()


def test_what_a_killed_process_had_is_free(locks):
    started, printed, _ = holder(locks, 4)
    assert printed == "True"
    mine = Lease("GPU-a", 1, 4)
    assert not mine.is_had()
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert mine.is_had()


def test_what_was_given_back_is_free_though_a_forked_child_has_the_file_open(locks):
    lease = Lease("GPU-a", 4, 4)
    assert lease.is_had()
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    lease.release()
    assert Lease("GPU-a", 4, 4).is_had()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_who_waits_for_one_of_several_cards_keeps_the_others_from_nobody(locks):
    theirs, mine = Lease("GPU-b", 1, 4), CardLeases(["GPU-c", "GPU-b", "GPU-a"], 4, 4)
    assert theirs.is_had()
    assert mine.missing() == "GPU-b"
    beside = Lease("GPU-a", 4, 4)
    assert beside.is_had()
    theirs.release()
    assert not Lease("GPU-b", 1, 4).is_had()  # it came later
    assert mine.missing() == "GPU-a"
    beside.release()
    assert mine.missing() is None
    mine.close()
    assert all(Lease(f"GPU-{name}", 4, 4).is_had() for name in "abc")


def test_stages_that_want_the_same_cards_in_any_order_never_wait_for_each_other(locks):
    wishes = ["abc", "cab", "bc", "ca", "b"]
    children = []
    for names in wishes:
        child = os.fork()
        if child == 0:
            _take_turns(locks, [f"GPU-{name}" for name in names])
        children.append(child)
    until = time.monotonic() + 60
    codes = []
    while children and time.monotonic() < until:
        for child in list(children):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                children.remove(child)
                codes.append(status)
        time.sleep(0.01)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert codes == [0] * len(wishes)


def _take_turns(folder, names):
    """Has its cards twenty times, each time by itself: what it writes for each is there until it gives them back."""
    code = 1
    try:
        for _ in range(20):
            leases = CardLeases(names, 4, 4)
            while leases.missing():
                time.sleep(0.001)
            for name in names:
                (folder / f"{name}.user").touch(exist_ok=False)
            time.sleep(0.002)
            for name in names:
                (folder / f"{name}.user").unlink()
            leases.close()
        code = 0
    finally:
        os._exit(code)


def test_a_folder_of_ones_own_lets_nobody_else_in_whatever_mode_it_had(locks):
    own(locks).mkdir()
    own(locks).chmod(0o777)
    assert Lease("GPU-a", 1, 4).folder.path == own(locks)
    assert stat.S_IMODE(own(locks).stat().st_mode) == 0o700


# for all users


@AS_ANOTHER
def test_another_user_of_ablate_is_told_where_no_folder_is_for_all(locks):
    assert Lease("GPU-a", 1, 4).folder.problems == ()
    for uid in (OTHER, 1):  # what nobody owns whose name it has says nothing of users
        (locks / f"ablate-locks-{uid}").mkdir()
    os.chown(locks / f"ablate-locks-{OTHER}", OTHER, OTHER)
    folder = Lease("GPU-a", 1, 4).folder
    assert folder.path == own(locks)
    assert [problem.partition(":")[0] for problem in folder.problems] == [
        f"uid {OTHER} ran ablate on this machine too, and there is no {locks}/shared"
    ]


@AS_ANOTHER
def test_users_share_a_card_whoever_made_its_files(locks, shared):
    theirs, printed, _ = holder(locks, 2, OTHER)
    assert printed == "True"
    assert {path.stat().st_uid for path in shared.iterdir()} == {OTHER}
    mine = Lease("GPU-a", 2, 4)
    assert mine.is_had()
    waiting = Lease("GPU-a", 1, 4)
    assert not waiting.is_had()
    theirs.kill()
    theirs.wait()
    assert waiting.is_had()


def _belongs_to_another(folder):
    folder.mkdir()
    folder.chmod(0o1777)
    os.chown(folder, OTHER, OTHER)


def _is_open_without_being_sticky(folder):
    folder.mkdir()
    folder.chmod(0o777)


def _is_a_link(folder):
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir()
    elsewhere.chmod(0o1777)
    folder.symlink_to(elsewhere)


def _is_a_file(folder):
    folder.write_text("")


@AS_ANOTHER
@pytest.mark.parametrize(
    "planted", [_belongs_to_another, _is_open_without_being_sticky, _is_a_link, _is_a_file, os.mkfifo]
)
def test_a_folder_for_all_that_no_administrator_made_is_told_and_not_used(locks, planted):
    planted(locks / "shared")
    before = (locks / "shared").lstat()
    lease = Lease("GPU-a", 4, 4)
    assert lease.is_had()
    assert lease.folder.path == own(locks)
    (problem,) = lease.folder.problems
    assert str(locks / "shared") in problem
    assert problem.endswith("cards are shared by locks with your own runs alone")
    assert (locks / "shared").lstat().st_mode == before.st_mode  # never changed: it is not ours
    assert not [path for path in (locks / "shared", locks / "elsewhere") if path.is_dir() and any(path.iterdir())]


@AS_ANOTHER
@pytest.mark.parametrize("planted", [_belongs_to_another, _is_a_link, _is_a_file, os.mkfifo])
def test_what_another_user_laid_in_the_place_of_ones_own_folder_is_told_and_not_used(locks, planted):
    planted(own(locks))
    before = own(locks).lstat()
    lease = Lease("GPU-a", 4, 4)
    assert lease.is_had()
    assert not Lease("GPU-a", 1, 4).is_had()  # of the same user: one place for all his runs
    assert lease.folder.path.is_relative_to(locks / "cache")
    (problem,) = lease.folder.problems
    assert str(own(locks)) in problem
    assert (own(locks).lstat().st_mode, own(locks).lstat().st_uid) == (before.st_mode, before.st_uid)


@AS_ANOTHER
@pytest.mark.parametrize("plant", [lambda path: path.symlink_to("/dev/zero"), os.mkfifo, lambda path: path.mkdir()])
def test_a_lock_that_another_user_planted_among_those_for_all_is_told_and_passed_by(locks, shared, plant):
    plant(shared / "GPU-a.2.lock")
    lease = Lease("GPU-a", 4, 4)
    assert lease.is_had()
    assert lease.folder.path == own(locks)
    assert str(shared / "GPU-a.2.lock") in lease.folder.problems[0]
    assert Lease("GPU-b", 4, 4).folder == (shared, True, ())


@AS_ANOTHER
def test_a_lock_that_another_user_closed_to_all_is_told_and_passed_by(locks, shared):
    theirs, _, _ = holder(locks, 2, OTHER)
    for path in shared.iterdir():
        path.chmod(0o600)
    other, printed, where = holder(locks, 1, OTHER + 1)
    assert printed == "True"
    assert where.startswith(
        f"{locks}/ablate-locks-{OTHER + 1} {shared}/GPU-a.0.lock cannot be used (Permission denied)"
    )
    for one in (theirs, other):
        one.kill()
        one.wait()
