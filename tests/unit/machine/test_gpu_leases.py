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

from ablate.machine import gpu_leases
from ablate.machine.gpu_leases import Lease

HOLD = """
import os, sys, time
from pathlib import Path
from ablate.machine import gpu_leases
gpu_leases.LOCKS = Path(sys.argv[1])
os.setuid(int(sys.argv[2])) if int(sys.argv[2]) else None
lease = gpu_leases.Lease("GPU-a", int(sys.argv[3]), 4)
print(lease.is_had(), flush=True)
time.sleep(60)
"""
OTHER = 12_345


@pytest.fixture
def locks(monkeypatch):
    with tempfile.TemporaryDirectory(prefix="ablate-tests-") as folder:
        Path(folder).chmod(0o755)  # for another user to look into
        monkeypatch.setattr(gpu_leases, "LOCKS", Path(folder) / "locks")
        yield Path(folder) / "locks"


def holder(locks, shares, user=0):
    arguments = [sys.executable, "-c", HOLD, str(locks), str(user), str(shares)]
    started = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    return started, started.stdout.readline().strip()


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
    started, printed = holder(locks, 4)
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


def test_a_folder_that_a_kill_left_half_made_is_mended(locks):
    locks.mkdir(mode=0o755)
    Lease("GPU-a", 1, 4)
    assert stat.S_IMODE(locks.stat().st_mode) == gpu_leases.OPEN


@pytest.mark.skipif(os.getuid() != 0, reason="wants to be another user")
def test_users_share_a_card_whoever_made_its_files(locks):
    Lease("GPU-a", 4, 4)  # the folder is ours
    theirs, printed = holder(locks, 2, OTHER)
    assert printed == "True"
    assert {path.stat().st_uid for path in locks.iterdir()} == {OTHER}
    mine = Lease("GPU-a", 2, 4)
    assert mine.is_had()
    waiting = Lease("GPU-a", 1, 4)
    assert not waiting.is_had()
    theirs.kill()
    theirs.wait()
    assert waiting.is_had()
