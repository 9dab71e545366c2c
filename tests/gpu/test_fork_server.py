"""The warm start where there is a card: forks use it, the process that they come from never does."""

import time

import pytest
import torch
from support.toys import ordered, toy, wait_for

from ablate.core import disk
from ablate.execution.executors.launch import ForkServer
from ablate.machine import gpus
from ablate.machine.slots import Slot
from ablate.store.store import Store


@pytest.fixture
def fork_server():
    server = ForkServer()
    yield server
    server.close()


def test_every_fork_has_the_card_and_starts_in_no_time(tmp_path, fork_server):
    slot = Slot("gpu 0", frozenset({"heavy"}), "cuda", gpus.visible_here()[0].uuid)
    waited = []
    for seed in range(4):
        stage = toy(seed=seed)
        attempt, asked_at = ordered(tmp_path, stage, slot=slot.record()), time.monotonic()
        fork_server.ask(attempt)
        wait_for(attempt.worker.is_file, 120)
        waited.append(time.monotonic() - asked_at)
        wait_for(lambda attempt=attempt: attempt.exit)
        assert list(fork_server.refused()) == []
        record = disk.read_json(Store(tmp_path).folder(stage) / "stage.json")
        assert record["provenance"]["device"] == torch.cuda.get_device_name(0)
    print("seconds until a worker signed:", [round(seconds, 3) for seconds in waited])
    assert min(waited[1:]) < 0.5
