"""What a supervisor says of a worker that it cannot end."""

from types import SimpleNamespace

import pytest
from support.toys import ordered, toy

from ablate.execution.supervisor import Supervisor
from ablate.machine.slots import Slot

HEAVY = frozenset({"heavy"})


@pytest.mark.parametrize(
    ("slot", "failure"),
    [
        (Slot("gpu 0", HEAVY, "cuda", "GPU-1"), "gpu_fault"),
        (Slot("job 0", HEAVY, "cuda"), "gpu_fault"),  # a cluster has assigned the card
        (Slot("cpu 0", HEAVY), "stalled"),
    ],
)
def test_a_worker_that_no_kill_ends_hangs_on_its_card_where_it_has_one(tmp_path, slot, failure):
    attempt = ordered(tmp_path, toy(), slot=slot.record())
    supervisor = Supervisor(attempt, attempt.request)
    supervisor.worker = SimpleNamespace(pid=7)
    assert supervisor._stuck().failure == failure
