"""One driver a study, of all machines that see its folder: no lock of the file system, no clock but one's own."""

import errno
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.nodes import on_node, toys_on
from support.toys import chain, checkpointed, drive, metrics_of, ours, toy, wait_for

from ablate.core import disk, processes
from ablate.core.disk_operations import through
from ablate.core.errors import HeldError
from ablate.execution import driver_records, study_lock
from ablate.execution.driver_records import DriverWatch
from ablate.store.store import Store

THIS = Path(__file__)
HOLD_S = 1.5
NUM_MACHINES = 6


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(driver_records, "PATIENCE_S", 2.5)
    monkeypatch.setattr(study_lock, "SAY_EVERY_S", 1.0)


def hold(root: str, journal: Path, seconds: str, study: str = "toys") -> None:
    """Holds a study for a while and writes when, or that another does."""
    with journal.open("a", buffering=1) as file:
        try:
            with study_lock.held(Store(Path(root)), study) as me:
                file.write(f"{time.monotonic()} begin {me.host}\n")
                time.sleep(float(seconds))
                file.write(f"{time.monotonic()} end {me.host}\n")
        except HeldError:
            file.write(f"{time.monotonic()} refused\n")


def hold_at_once(root: str, folder: str, seconds: str) -> None:
    """Holds the study as one of six: each waits with its claim until all have seen that nobody drives."""
    study_lock.BEAT_S = 0.1
    arrival = Path(folder) / f"ready-{os.getpid()}"

    def around(name: str, paths: tuple[Path, ...], act: Callable[[], Any]) -> Any:
        if name in ("link", "rename") and paths[-1].name == "driver.2.json" and not arrival.exists():
            arrival.touch()
            wait_for(lambda: len(list(Path(folder).glob("ready-*"))) == NUM_MACHINES)
        return act()

    with through(around):
        hold(root, Path(folder) / "journal", seconds)


def test_a_driver_on_another_machine_has_its_study_and_whoever_comes_is_told_where_it_is(store, tmp_path):
    run = on_node("node7", THIS, tmp_path, tmp_path / "journal", HOLD_S)
    wait_for(lambda: driver_records.last_record(store, "toys"))
    with pytest.raises(HeldError, match=rf"is being run by pid {run.pid} on node7 since 20") as caught:
        drive(tmp_path, [toy()])
    assert caught.value.exit_code == 4
    assert "ablate status --watch" in str(caught.value)
    assert run.wait(60) == 0, run.stdout.read()
    assert study_lock.driver_of(store, "toys") is None


def test_of_a_driver_that_was_killed_with_its_machine_the_wait_is_told_and_its_study_goes_on(store, tmp_path, quick):
    run = toys_on("node7", tmp_path, steps=90)
    wait_for(lambda: checkpointed(tmp_path))
    run.kill()
    run.wait()
    lines = []
    assert drive(tmp_path, chain(2, steps=90, step_s=0.001), write=lines.append).exit_code == 0
    waits = [line for line in lines if "gave no sign of life" in line]
    assert 1 <= len(waits) <= 2
    assert f"the study's driver, pid {run.pid} on node7, gave no sign of life for 1 s of 2.5" in waits[0]
    assert any("found at work" in line for line in lines)
    assert metrics_of(tmp_path, chain(2, steps=90)[1]) == list(range(1, 91))


def test_who_only_looks_waits_for_no_dead_driver_and_hears_how_long_it_has_been_silent(store, tmp_path, monkeypatch):
    run = on_node("node7", THIS, tmp_path, tmp_path / "journal", 600)
    wait_for(lambda: driver_records.last_record(store, "toys"))
    assert study_lock.sighting(store, "toys").is_sure
    run.kill()
    run.wait()
    seen = study_lock.sighting(store, "toys", patience_s=1.5)
    assert (seen.is_sure, seen.record.driver.host) == (False, "node7")
    assert 1.5 <= seen.silent_s < 20
    assert seen.patience_s == 30


def test_a_heart_that_beats_late_is_alive_and_one_that_has_stopped_is_not(store, tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(driver_records.time, "monotonic", lambda: clock[-1])
    run = on_node("node7", THIS, tmp_path, tmp_path / "journal", 600)
    wait_for(lambda: driver_records.heartbeat_of(store, "toys").exists())
    run.send_signal(signal.SIGSTOP)
    watch = DriverWatch(store, "toys")
    for number in range(5):
        clock.append(clock[-1] + 29)  # as where a file system shows a file late
        study_lock.beat(store, "toys", 100 + number)
        assert watch.look()
    clock.append(clock[-1] + 31)
    assert watch.look() is None
    run.kill()
    run.wait()


def test_of_drivers_that_take_over_on_six_machines_in_the_same_instant_one_has_the_study(store, tmp_path):
    dead = processes.identity().model_copy(update={"host": "node0", "pid": 17})
    disk.make_folder(store.study_folder("toys"))
    driver_records.claim(store, "toys", dead, None)
    nodes = [f"node{number}" for number in range(1, NUM_MACHINES + 1)]
    runs = [on_node(node, THIS, tmp_path, tmp_path, HOLD_S, "at once", patience_s=1.5) for node in nodes]
    assert [run.wait(60) for run in runs] == [0] * NUM_MACHINES, [run.stdout.read() for run in runs]
    lines = sorted((tmp_path / "journal").read_text().splitlines(), key=lambda line: float(line.split()[0]))
    words = [line.split()[1] for line in lines]
    assert words.count("begin") + words.count("refused") == NUM_MACHINES
    for number, word in enumerate(words):
        assert word != "begin" or words[:number].count("begin") == words[:number].count("end"), lines


def test_a_driver_that_counted_as_gone_leaves_its_study_to_the_next_and_ends_no_worker(store, tmp_path, quick):
    run = toys_on("node7", tmp_path, steps=90)
    wait_for(lambda: checkpointed(tmp_path))
    run.send_signal(signal.SIGSTOP)
    again = toys_on("node8", tmp_path, steps=90, patience_s=2.0)
    wait_for(lambda: driver_records.last_record(store, "toys").number == 2)
    run.send_signal(signal.SIGCONT)
    text, _ = run.communicate(timeout=60)
    assert run.returncode == 75
    assert "another run drives the study now: this driver goes, and what runs goes on" in text
    text, _ = again.communicate(timeout=120)
    assert again.returncode == 0, text
    assert text.count("started") == 1  # the first toy was found at work, and no second try at it was begun
    assert [path.name for path in tmp_path.glob("runs/attempts/*/*")] == ["1", "1"]
    assert ours(tmp_path) == []


def no_flock(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


if __name__ == "__main__":
    fcntl.flock = no_flock
    if "at once" in sys.argv:
        hold_at_once(*sys.argv[1:4])
    else:
        hold(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
