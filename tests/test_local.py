"""Slots of this machine: cards as its driver tells, cores where there is none. A stand-in plays nvidia-smi."""

import stat
import threading
import time
from pathlib import Path

import pytest
from toys import ordered, toy, wait_for

from ablate import disk
from ablate.errors import AblateError
from ablate.executors.base import EXECUTORS, Placing
from ablate.executors.launch import start_fresh
from ablate.executors.local import Local


@pytest.fixture
def two_cards(tmp_path, monkeypatch):
    """A machine with two cards."""
    script = tmp_path / "bin" / "nvidia-smi"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho '0, GPU-aaaa'\necho '1, GPU-bbbb'\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def no_card(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def cards(**placing) -> list[str | None]:
    return [slot.gpu for slot in Local(Placing(is_warm=False, **placing)).slots() if "heavy" in slot.takes]


def test_every_card_is_a_slot(two_cards):
    assert cards() == ["GPU-aaaa", "GPU-bbbb"]


def test_a_card_is_for_heavy_stages_alone(two_cards):
    for slot in EXECUTORS["local"](Placing()).slots():
        assert (slot.device == "cuda") == (slot.takes == {"heavy"})


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("1", ["GPU-bbbb"]), ("GPU-bbbb,GPU-aaaa", ["GPU-bbbb", "GPU-aaaa"]), ("", [None]), ("-1", [None])],
)
def test_only_visible_cards_are_used(two_cards, monkeypatch, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert cards(num_jobs=1) == expected


def test_cards_are_chosen_by_number_or_name_among_the_visible(two_cards, monkeypatch):
    assert cards(gpus=("1",)) == ["GPU-bbbb"]
    assert cards(gpus=("GPU-aaaa",)) == ["GPU-aaaa"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert cards(gpus=("0",)) == ["GPU-bbbb"]


def test_a_card_that_is_not_there_is_told_with_those_that_are(two_cards):
    with pytest.raises(AblateError, match=r"--gpus names 7, but .* are: 0 \(GPU-aaaa\), 1 \(GPU-bbbb\)"):
        cards(gpus=("0", "7"))


def test_without_a_card_there_are_as_many_slots_as_asked_for(no_card):
    assert cards(num_jobs=3) == [None] * 3
    assert len(cards()) >= 1


def test_a_card_asked_for_where_there_is_none_is_refused(no_card):
    with pytest.raises(AblateError, match="visible here are: none"):
        cards(gpus=("0",))


def one_card() -> dict:
    """A slot on a card that no other test has; the toy itself needs none."""
    return {"name": "gpu 0", "takes": ["heavy"], "device": "cpu", "gpu": f"GPU-{time.time_ns()}", "threads": 1}


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


def test_a_worker_that_waits_for_a_card_can_be_stopped(tmp_path):
    slot = one_card()
    holder, waiter = (ordered(tmp_path, toy(seed=seed, fault="hang"), slot=slot, grace_s=0) for seed in (1, 2))
    workers = [start_fresh(holder)]
    wait_for(holder.metrics.is_file)
    workers.append(start_fresh(waiter))
    wait_for(lambda: waiter.log.is_file() and "waits for card" in waiter.log.read_text())
    disk.tell(waiter.stop_request, "")
    wait_for(lambda: waiter.exit)
    assert waiter.exit["failure"] == "cancelled"
    disk.tell(holder.stop_request, "now")
    for worker in workers:
        worker.wait(10)
