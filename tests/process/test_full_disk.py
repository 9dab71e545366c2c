"""A disk that is full, read-only or ill in the middle of a run: told, waited for, and gone on from."""

import dataclasses
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.executors import AtOnce
from support.faulty import fails, operations, without_waiting
from support.one_stage import CODES, STAGE, committed, require_nothing_half, work
from support.toys import TOYS, drive, quiet, toy, value_of

from ablate.core import plain_files
from ablate.core.disk_operations import through
from ablate.core.failures import FAILURES, ending_of
from ablate.execution.driver import Summary, driving
from ablate.execution.executors import local
from ablate.execution.run_context import Options
from ablate.machine.slots import Slot
from ablate.store.attempt import Attempt
from ablate.store.store import Store

HERE = [Slot("here", frozenset({"heavy"}))]


@pytest.fixture
def impatient(monkeypatch):
    """Ten minutes in a moment."""
    for name in ("nospace", "disk"):
        monkeypatch.setitem(FAILURES, name, dataclasses.replace(FAILURES[name], back_off_s=1e-4))
    monkeypatch.setattr(local, "CLAIM_S", 0.0)  # nobody else claims here


def at_once(attempt: Attempt) -> None:
    """Does the work itself, on a disk that is well."""
    with through(without_waiting):
        work(attempt, lambda: False)


def run(root: Path, lines: list[str] | None = None) -> Summary:
    view = quiet((lines if lines is not None else []).append)
    with driving(Store(root), "toys", AtOnce(HERE, at_once), view, Options(poll_s=0.0)) as driver:
        return driver.run([STAGE], lambda _: 1.0)


@pytest.fixture
def memory():
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="ablate-tests-", dir=place) as folder:
        yield Path(folder)


@pytest.mark.parametrize("is_for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("name", CODES)
def test_a_driver_whose_disk_fails_at_any_operation_ends_well_or_resumable(memory, impatient, name, is_for_ever):
    num = len(operations(lambda: run(memory / "undisturbed")))
    expected, code = committed(memory / "undisturbed"), getattr(errno, name)
    for number in range(num):
        root = memory / f"{number}"
        try:
            with through(fails(number, code, is_for_ever=is_for_ever)):
                exit_code = run(root).exit_code
        except OSError as error:  # before anything was begun, or after all: the command line says so and exits with 75
            exit_code = 75 if error.errno == code else 1
        assert exit_code in (0, 75), number
        require_nothing_half(root)
        with through(without_waiting):
            assert run(root).exit_code == 0
        assert committed(root) == expected


def first_in_an_attempt(root: Path) -> int:
    """-> number of a run's first operation in the folder of an attempt."""
    paths = [operation.paths[-1] for operation in operations(lambda: run(root))]
    return next(number for number, path in enumerate(paths) if "attempts" in str(path))


def test_a_full_disk_is_waited_for_and_the_run_goes_on_once_there_is_room(tmp_path, impatient):
    lines: list[str] = []
    first = first_in_an_attempt(tmp_path / "a")
    with through(fails(first, errno.ENOSPC, is_for_ever=False)):
        assert run(tmp_path / "b", lines).exit_code == 0
    assert any("to be tried again" in line and "bytes were to be written" in line for line in lines)


def test_a_disk_that_stays_full_stops_the_run_after_ten_minutes_and_fails_nothing(tmp_path, impatient):
    lines: list[str] = []
    first = first_in_an_attempt(tmp_path / "a")
    with through(fails(first, errno.ENOSPC, is_for_ever=True)):
        summary = run(tmp_path / "b", lines)
    assert (summary.exit_code, summary.outcomes[STAGE.key].phase) == (75, "stopped")
    assert sum("to be tried again" in line for line in lines) == FAILURES["nospace"].num_retries
    assert "`ablate gc`" in lines[-1]
    waited_s = sum(10 * 2**n for n in range(FAILURES["nospace"].num_retries))
    assert 600 <= waited_s < 700


@pytest.mark.parametrize(("code", "failure"), [(name, "nospace") for name in ("ENOSPC", "EDQUOT", "EFBIG")]
                         + [(name, "disk") for name in ("EIO", "ESTALE", "EMFILE", "ENFILE", "EROFS")])  # fmt: skip
def test_what_a_disk_says_has_a_class_that_is_never_the_stages_fault(code, failure):
    assert ending_of(OSError(getattr(errno, code), "said")).failure == failure
    assert not FAILURES[failure].is_fault


def test_a_result_that_another_run_committed_while_this_one_claimed_is_kept(tmp_path, monkeypatch):
    run(tmp_path / "other")
    claim = Store.claim

    def beaten(store: Store, key12: str) -> Attempt:
        attempt = claim(store, key12)
        shutil.copytree(Store(tmp_path / "other").folder(STAGE), store.folder(STAGE), dirs_exist_ok=True)
        return attempt

    (tmp_path / "one").mkdir()
    monkeypatch.setattr(Store, "claim", beaten)
    summary = run(tmp_path / "one")
    assert summary.exit_code == 0
    assert not list((tmp_path / "one").glob("runs/aside/*"))
    assert Store(tmp_path / "one").done(STAGE)["attempt"] == 1


@pytest.mark.parametrize("name", ["done.json", "out/result.json"])
def test_a_result_that_cannot_be_read_now_is_not_set_aside(tmp_path, name, monkeypatch):
    run(tmp_path)
    path, opened = Store(tmp_path).folder(STAGE) / name, plain_files.opened

    def failing(file, **options):
        if file == path:  # reading it is an error of the disk, but it is there
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(file))
        return opened(file, **options)

    monkeypatch.setattr(plain_files, "opened", failing)
    with pytest.raises(OSError, match="Input/output error"):
        Store(tmp_path).set_aside(STAGE)
    assert path.is_file()


ON_A_FULL_DISK = """
import dataclasses, errno, sys
from pathlib import Path
from support.toys import drive, toy, value_of
from ablate.core.failures import FAILURES

root, told = Path(sys.argv[1]), []
FAILURES["nospace"] = dataclasses.replace(FAILURES["nospace"], num_retries=1, back_off_s=0.05)


def run():
    try:
        return drive(root, [stage], write=told.append).exit_code
    except OSError as error:  # full before anything was begun
        assert error.errno == errno.ENOSPC
        return 75


for num_pages in map(int, sys.argv[2:]):
    stage, num_done = toy(seed=num_pages, steps=1500), len(list(root.glob("runs/stages/*")))
    (root / "kept").write_bytes(bytes(num_pages << 12))
    try:
        (root / "ballast").write_bytes(bytes(2 << 20))
    except OSError as error:
        assert error.errno == errno.ENOSPC
    (root / "kept").unlink()
    assert run() == 75, told
    assert len(list(root.glob("runs/stages/*"))) == num_done
    (root / "ballast").unlink()
    assert run() == 0, told
    print(value_of(root, stage))
"""


def test_on_a_real_disk_that_is_full_a_run_stops_resumable_and_goes_on_once_there_is_room(tmp_path):
    (tmp_path / "disk").mkdir()
    mounted = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=1m none "$0" && exec "$@"', tmp_path / "disk"]
    if subprocess.run([*mounted, "true"], capture_output=True, check=False).returncode:
        pytest.skip("wants a user namespace in which it may mount a disk of 1 MB")
    pages = (0, 9, 18)  # nothing can be written; a driver but no worker; a worker but no result
    command = [sys.executable, "-c", ON_A_FULL_DISK, tmp_path / "disk", *map(str, pages)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TOYS.parent), str(TOYS.parents[1])])}
    done = subprocess.run([*mounted, *command], capture_output=True, text=True, env=env, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    stages = [toy(seed=seed, steps=1500) for seed in pages]
    drive(tmp_path / "well", stages)
    assert list(map(int, done.stdout.split())) == [value_of(tmp_path / "well", stage) for stage in stages]
