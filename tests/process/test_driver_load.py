"""What a study on a cluster costs the machine that its driver is on, which it may share with a hundred people."""

import time
from pathlib import Path

import pytest
from support.played_cluster import OPTIONS, pilots_played, played_executor
from support.toys import quiet, toy

from ablate.execution.driver import driving
from ablate.execution.fleet import fleet_with
from ablate.store.store import Store


@pytest.mark.parametrize(
    ("num_stages", "num_jobs", "stage_s"),
    [(80, 40, 0.3), pytest.param(500, 200, 5.0, marks=pytest.mark.soak)],
)
def test_a_stage_on_a_cluster_costs_its_driver_less_than_50_ms_however_many_are_in_flight(
    tmp_path: Path, num_stages: int, num_jobs: int, stage_s: float
):
    executor = played_executor(OPTIONS.model_copy(update={"max_jobs": num_jobs}))
    cluster, most, view = executor._cluster, [0], quiet()
    view.tick = lambda running: most.append(len(running))
    with (
        pilots_played(tmp_path, "toys", stage_s),
        driving(Store(tmp_path), "toys", fleet_with(executor), view) as driver,
    ):
        began, began_at = time.process_time(), time.monotonic()
        summary = driver.run([toy(seed=seed) for seed in range(num_stages)], lambda _: stage_s)
        cpu_s, wall_s = time.process_time() - began, time.monotonic() - began_at
    assert (summary.exit_code, summary.num_started) == (0, num_stages)
    assert max(most) == num_jobs
    assert cpu_s / num_stages < 0.05  # 10 ms on a core of 2026
    assert cluster.num_calls <= 2 * (wall_s / OPTIONS.look_s + 2)  # one question and one submission a look
