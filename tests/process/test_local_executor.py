"""Slots of this machine: cards as NVIDIA's library tells (a stand-in here), cores where there is none."""

import contextlib
import getpass
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from support.executors import QuickLocal
from support.fake_nvml import GIB, Device, FakeNvml, Process
from support.toys import ordered, toy, wait_for

from ablate.core import disk
from ablate.core.errors import AblateError
from ablate.execution import fork_server
from ablate.execution.executors import launch, machine
from ablate.execution.executors.launch import start_fresh
from ablate.execution.executors.local import Local
from ablate.machine.slots import SHARES, Placing, Slot, joined


@pytest.fixture
def two_cards(monkeypatch) -> FakeNvml:
    """A machine with two cards."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return FakeNvml([Device("GPU-aaaa"), Device("GPU-bbbb", total=24 * GIB)])


@pytest.fixture
def no_card(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def cards(nvml: FakeNvml | None = None, **placing) -> list[str | None]:
    slots = Local(Placing(uses_fork_server=False, **placing), nvml).slots()
    return [slot.gpu for slot in slots if "heavy" in slot.takes]


def test_every_card_is_a_slot(two_cards):
    assert cards(two_cards) == ["GPU-aaaa", "GPU-bbbb"]


def test_a_card_is_for_heavy_stages_alone(two_cards):
    for slot in machine.slots(Placing(), two_cards):
        assert (slot.device == "cuda") == (slot.takes == {"heavy"})


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("1", ["GPU-bbbb"]), ("GPU-bbbb,GPU-aaaa", ["GPU-bbbb", "GPU-aaaa"]), ("", [None]), ("-1", [None])],
)
def test_only_visible_cards_are_used(two_cards, monkeypatch, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert cards(two_cards, num_jobs=1) == expected


def test_cards_are_chosen_by_number_or_name_among_the_visible(two_cards, monkeypatch):
    assert cards(two_cards, gpus=("1",)) == ["GPU-bbbb"]
    assert cards(two_cards, gpus=("GPU-aaaa",)) == ["GPU-aaaa"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert cards(two_cards, gpus=("0",)) == ["GPU-bbbb"]


def test_a_card_that_is_not_there_is_told_with_those_that_are(two_cards):
    with pytest.raises(AblateError, match=r"--gpus names 7, but .* are: 0 \(GPU-aaaa\), 1 \(GPU-bbbb\)"):
        cards(two_cards, gpus=("0", "7"))


def test_without_a_card_there_are_as_many_slots_as_asked_for(no_card):
    assert cards(num_jobs=3) == [None] * 3
    assert len(cards()) >= 1


def test_a_card_asked_for_where_there_is_none_is_refused(no_card):
    with pytest.raises(AblateError, match="visible here are: none"):
        cards(gpus=("0",))


def test_a_card_has_shares_by_its_memory(two_cards):
    large, small = (slot for slot in machine.slots(Placing(), two_cards) if slot.gpu)
    sizes = (None, GIB, 16 * GIB, 20 * GIB, 50 * GIB, 100 * GIB)
    assert [large.shares_of(size) for size in sizes] == [SHARES, 1, 1, 2, 4, 4]
    assert [small.shares_of(size) for size in sizes] == [SHARES, 1, 4, 4, 4, 4]
    assert [small.holds(size * GIB) for size in (24, 25)] == [True, False]


# who else is on the cards


@pytest.fixture
def stranger():
    """A process of somebody else's, as far as the attempts at hand know."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    yield process.pid
    process.kill()
    process.wait()


def test_memory_held_by_others_is_told_with_pid_user_and_mib(two_cards, stranger):
    two_cards.devices[1].processes.append(Process(stranger, 10 * GIB))
    taken = Local(Placing(), two_cards).taken([])
    assert list(taken) == ["gpu 1"]
    assert taken["gpu 1"].shares == 2
    who = f"pid {stranger} of {psutil.Process().username()} (10,240 MiB)"
    assert getpass.getuser() in who
    assert taken["gpu 1"].why == f"card 1 is in use by {who}"


def test_what_a_screen_holds_takes_no_share(two_cards, stranger):
    two_cards.devices[0].processes.append(Process(stranger, GIB // 2))
    assert Local(Placing(), two_cards).taken([]) == {}


def test_memory_held_by_a_process_that_cannot_be_seen_counts_too(two_cards):
    two_cards.devices[0].is_blind, two_cards.devices[0].unseen = True, 30 * GIB
    taken = Local(Placing(), two_cards).taken([])["gpu 0"]
    assert (taken.shares, taken.why) == (
        2,
        "card 0 is in use by a process that cannot be seen from here (30,720 MiB)",
    )


def test_what_our_own_stages_hold_is_not_others(two_cards, tmp_path):
    attempt = ordered(tmp_path, toy(steps=1000, step_s=0.05), slot=Slot("gpu 0", frozenset(), gpu="GPU-aaaa").record())
    supervisor = start_fresh(attempt)
    wait_for(attempt.metrics.is_file)
    (worker,) = psutil.Process(supervisor.pid).children()
    two_cards.devices[0].processes += [Process(worker.pid, 50 * GIB), Process(2**22 + 1, 50 * GIB)]
    assert Local(Placing(), two_cards).taken([attempt]) == {}
    assert list(Local(Placing(), two_cards).taken([])) == ["gpu 0"]
    supervisor.kill()
    supervisor.wait()


def test_what_a_stage_of_ours_holds_on_its_other_cards_is_not_others_either(two_cards, tmp_path):
    slot = joined([slot for slot in machine.slots(Placing(), two_cards) if slot.gpu])
    attempt = ordered(tmp_path, toy(steps=1000, step_s=0.05), slot=slot.record())
    two_cards.devices[1].processes.append(Process(2**22 + 1, 50 * GIB))  # by its number in another container
    assert Local(Placing(), two_cards).taken([attempt]) == {}
    assert list(Local(Placing(), two_cards).taken([])) == ["gpu 1"]


# a card is leased


def one_card(shares: int = SHARES) -> dict:
    """A slot on a card that no other test has; the toy itself needs none."""
    slot = Slot("gpu 0", frozenset({"heavy"}), gpu=f"GPU-{time.time_ns()}", num_shares=SHARES, memory_bytes=8 * GIB)
    return slot.record(shares)


def test_two_workers_never_have_one_card_at_the_same_time(tmp_path):
    slot = one_card()
    first, second = (ordered(tmp_path, toy(seed=seed, steps=30, step_s=0.02), slot=slot) for seed in (1, 2))
    workers = [start_fresh(first)]
    wait_for(first.metrics.is_file)
    workers.append(start_fresh(second))
    overlaps: list[Path] = []
    watcher = threading.Thread(target=_watch, args=(first, second, overlaps))
    watcher.start()
    assert [worker.wait(30) for worker in workers] == [0, 0]
    watcher.join()
    assert overlaps == []
    assert "waits for card" in second.log.read_text()


def _watch(first, second, overlaps):
    while first.exit is None:
        if second.out.exists() and first.exit is None:
            overlaps.append(second.out)
        time.sleep(0.01)


def test_a_worker_that_waits_for_one_of_its_cards_keeps_no_other_from_anybody(tmp_path):
    name = f"GPU-{time.time_ns()}"
    first, second = (Slot(f"gpu {n}", frozenset({"heavy"}), gpu=f"{name}-{n}", can_join=True) for n in (1, 2))
    holder = ordered(tmp_path, toy(seed=1, fault="hang"), slot=second.record(), grace_s=0)
    waiter = ordered(tmp_path, toy(seed=2), slot=joined([first, second]).record())
    passer_by = ordered(tmp_path, toy(seed=3), slot=first.record())
    workers = [started(holder), start_fresh(waiter)]
    wait_for(lambda: waiter.log.is_file() and f"waits for card {name}-2" in waiter.log.read_text())
    assert start_fresh(passer_by).wait(60) == 0
    assert waiter.exit is None
    disk.write_volatile(holder.stop_request, "now")
    for worker in workers:
        worker.wait(60)
    assert (holder.exit["failure"], waiter.exit["failure"]) == ("cancelled", "ok")


def test_a_worker_that_waits_for_a_card_can_be_stopped(tmp_path):
    slot = one_card()
    holder, waiter = (ordered(tmp_path, toy(seed=seed, fault="hang"), slot=slot, grace_s=0) for seed in (1, 2))
    workers = [start_fresh(holder)]
    wait_for(holder.metrics.is_file)
    workers.append(start_fresh(waiter))
    wait_for(lambda: waiter.log.is_file() and "waits for card" in waiter.log.read_text())
    disk.write_volatile(waiter.stop_request, "")
    wait_for(lambda: waiter.exit)
    assert waiter.exit["failure"] == "cancelled"
    disk.write_volatile(holder.stop_request, "now")
    for worker in workers:
        worker.wait(10)


def started(attempt):
    worker = start_fresh(attempt)
    wait_for(attempt.metrics.is_file)
    return worker


def waiting(attempt):
    worker = start_fresh(attempt)
    wait_for(lambda: attempt.log.is_file() and "waits for card" in attempt.log.read_text())
    return worker


def ended(*attempts):
    for attempt in attempts:
        disk.write_volatile(attempt.stop_request, "now")


def test_small_stages_of_two_roots_share_a_card_and_a_fifth_waits(tmp_path):
    slot = one_card(shares=1)
    sharing = [ordered(tmp_path / str(seed % 2), toy(seed=seed, fault="hang"), slot=slot) for seed in range(SHARES)]
    workers = [started(attempt) for attempt in sharing]
    fifth = ordered(tmp_path, toy(seed=9, steps=1), slot=slot)
    workers.append(waiting(fifth))
    assert not fifth.metrics.exists()
    os.killpg(workers[0].pid, 9)  # the kernel frees what a killed worker held
    wait_for(lambda: fifth.exit)
    assert fifth.exit["failure"] == "ok"
    ended(*sharing[1:])
    for worker in workers:
        worker.wait(20)


def test_a_large_stage_that_waits_is_not_overtaken_by_small_ones(tmp_path):
    slot = one_card()
    holder, small = (ordered(tmp_path, toy(seed=seed, fault="hang"), slot=slot | {"shares": 1}) for seed in (1, 2))
    large = ordered(tmp_path, toy(seed=3, steps=1), slot=slot)
    workers = [started(holder), waiting(large), waiting(small)]
    assert not small.metrics.exists()
    ended(holder)
    wait_for(lambda: large.exit)
    assert large.exit["failure"] == "ok"
    wait_for(small.metrics.is_file)
    ended(small)
    for worker in workers:
        worker.wait(20)


def test_a_worker_of_another_driver_that_waits_for_its_fork_server_is_not_given_up(tmp_path, monkeypatch):
    attempt, executor = ordered(tmp_path, toy()), Local(Placing(num_jobs=1, uses_fork_server=False))
    begun = time.monotonic()
    for seconds, contact in ((0, "alive"), (launch.READY_S, "alive"), (launch.READY_S + 120, "gone")):
        monkeypatch.setattr(time, "monotonic", lambda at=begun + seconds: at)
        assert executor.poll(attempt) == contact


def test_a_forked_worker_that_is_killed_before_it_signs_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(fork_server, "_become_worker", lambda *_: time.sleep(60))  # in the fork server's forks
    attempt, executor = ordered(tmp_path, toy()), QuickLocal(Placing(num_jobs=1))
    with contextlib.closing(executor):
        executor.submit(attempt)
        wait_for(lambda: executor.poll(attempt) == "alive" and executor._fork_server._forked)
        assert executor.poll(attempt) == "alive"
        os.kill(executor._fork_server._forked[attempt.path], signal.SIGKILL)
        wait_for(lambda: executor.poll(attempt) == "gone", seconds=5)
