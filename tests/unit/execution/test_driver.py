"""The driver on cards that are none: an executor that has every result at once, and toys on slots called cards."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.executors import Instant
from support.toys import quiet, toy

from ablate.execution.driver import Summary, driving
from ablate.execution.executors.local import Local
from ablate.execution.run_context import Options
from ablate.machine.slots import SHARES, Placing, Slot, Taken
from ablate.planning.timing import Timing
from ablate.store.attempt import Attempt
from ablate.store.stage import Stage
from ablate.store.store import Store

HEAVY = frozenset({"heavy"})
GIB = 1 << 30


def card(number: int, gib: int = 80) -> Slot:
    return Slot(f"gpu {number}", HEAVY, gpu=f"GPU-{time.time_ns()}", num_shares=SHARES, memory_bytes=gib * GIB)


def drive(root: Path, stages: Sequence[Stage], executor, lines=None, timing=None, **sizes) -> Summary:
    view = quiet((lines if lines is not None else []).append)
    with driving(Store(root), "toys", executor, view, Options(poll_s=0.001), timing=timing) as driver:
        return driver.run(stages, lambda _: 1.0, lambda stage: sizes.get(f"seed_{stage.settings.seed}", (None, 0)))


def test_a_stage_costs_the_driver_less_than_20_ms(tmp_path):
    stages = [toy(seed=seed) for seed in range(300)]
    began = time.process_time()
    summary = drive(tmp_path, stages, Instant([card(number) for number in range(8)]))
    assert (summary.exit_code, summary.num_started) == (0, 300)
    assert (time.process_time() - began) / 300 < 0.02  # 3 ms, and as much for the disk, on a core of 2026


def test_a_card_that_somebody_uses_is_passed_over_and_the_run_says_who(tmp_path):
    stages, lines = [toy(seed=seed) for seed in range(4)], []
    executor = Instant([card(0), card(1)])
    executor.others = [{"gpu 0": Taken(2, "card 0 is in use by pid 7 of ada (40,960 MiB)")}]
    assert drive(tmp_path, stages, executor, lines).exit_code == 0
    assert set(executor.placed.values()) == {"gpu 1"}
    assert sum("card 0 is in use by pid 7 of ada (40,960 MiB): what does not fit" in line for line in lines) == 1


def test_who_is_on_a_card_is_known_from_the_first_stage_of_every_round(tmp_path):
    executor = Instant([card(0), card(1)])
    executor.others = [{"gpu 0": Taken(4, "card 0 is in use by pid 7 of ada (81,920 MiB)")}]
    with driving(Store(tmp_path), "toys", executor, quiet(), Options(poll_s=0.001)) as driver:
        driver.run([toy(seed=1)], lambda _: 1.0)
        driver.run([toy(seed=2), toy(seed=3)], lambda _: 1.0)
    assert list(executor.placed.values()) == ["gpu 1"] * 3


def test_with_every_card_in_use_a_run_waits_says_so_and_goes_on_once_one_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr("ablate.execution.occupied_slots.LOOK_EVERY_S", 0.05)
    lines, executor = [], Instant([card(0)])
    executor.others = [{"gpu 0": Taken(4, "card 0 is in use by pid 7 of ada (81,920 MiB)")}] * 3 + [{}]
    assert drive(tmp_path, [toy()], executor, lines).exit_code == 0
    messages = [line[9:] for line in lines]
    assert messages[1].startswith("card 0 is in use by pid 7 of ada")
    assert messages[2] == "gpu 0 is free again"
    assert messages[3].startswith("started")


def test_a_stage_that_nothing_here_can_hold_fails_what_needs_it_and_the_rest_is_done(tmp_path):
    large, small = toy(seed=1), toy(seed=2)
    after = toy(large, seed=3)
    summary = drive(tmp_path, [large, small, after], Instant([card(0, 24)]), seed_1=(30 * GIB, 26 * GIB))
    assert [summary.outcomes[stage.key].phase for stage in (large, small, after)] == ["failed", "done", "blocked"]
    assert summary.outcomes[large.key].message == (
        "its weights alone take 27.9 GB, and nothing here has so much memory"
    )
    assert summary.exit_code == 1


def test_what_is_done_needs_no_card_that_could_hold_it(tmp_path):
    stage = toy(seed=1)
    assert drive(tmp_path, [stage], Instant([card(0, 80)]), seed_1=(30 * GIB, 26 * GIB)).exit_code == 0
    assert drive(tmp_path, [stage], Instant([card(0, 24)]), seed_1=(30 * GIB, 26 * GIB)).exit_code == 0


def test_what_stages_took_corrects_the_costs_of_the_rest(tmp_path):
    timing = Timing()
    drive(tmp_path, [toy(seed=seed) for seed in range(5)], Instant([card(0)], seconds=2.5), timing=timing)
    assert timing.ratio("toy") == 2.5


class Shared(Local):
    """Workers of this machine, on slots that are called cards."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        super().__init__(Placing(num_jobs=1, uses_fork_server=False))
        self._slots = list(slots)


@pytest.mark.slow
@pytest.mark.parametrize(("gib", "num_at_once"), [(10, 4), (70, 1)])
def test_small_stages_run_beside_each_other_on_one_card_and_large_ones_do_not(tmp_path, gib, num_at_once):
    stages = [toy(seed=seed, steps=20, step_s=0.05) for seed in range(4)]
    sizes = {f"seed_{seed}": (gib * GIB, 0) for seed in range(4)}
    most = [0]
    view = quiet()
    view.tick = lambda running: most.append(len(running))
    with driving(Store(tmp_path), "toys", Shared([card(0)]), view) as driver:
        sized = lambda stage: sizes[f"seed_{stage.settings.seed}"]  # noqa: E731
        assert driver.run(stages, lambda _: 1.0, sized).exit_code == 0
    assert max(most) == num_at_once
    held = [json.loads(path.read_text())["slot"]["shares"] for path in tmp_path.glob("runs/attempts/*/1/attempt.json")]
    assert held == [SHARES // num_at_once] * 4


class Queueing(Instant):
    """Its first slot's job never comes, and is later expected at each look; the second is there."""

    def __init__(self) -> None:
        super().__init__([Slot("far", HEAVY, "cuda", model="H100"), Slot("near", HEAVY, "cuda", model="A100")])
        self.ended: list[str] = []
        self._num_looks = 0

    def taken(self, at_work: Sequence[Attempt]) -> dict[str, Taken]:
        self._num_looks += 1
        return {"far": Taken(0, "", wait_s=60.0 * 10 ** min(self._num_looks, 6))}

    def submit(self, attempt: Attempt) -> None:
        if attempt.request["slot"]["name"] == "near":
            super().submit(attempt)

    def poll(self, attempt: Attempt) -> str:
        return "gone" if attempt.exit else "alive"

    def end(self, attempt: Attempt) -> None:
        self.ended.append(attempt.request["slot"]["name"])


def test_a_stage_whose_job_does_not_start_is_taken_back_once_another_place_has_nothing_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("ablate.execution.occupied_slots.LOOK_EVERY_S", 0.05)
    executor, lines = Queueing(), []
    view = quiet(lines.append)
    with driving(Store(tmp_path), "toys", executor, view, Options(poll_s=0.001)) as driver:
        assert driver.run([toy(seed=seed) for seed in range(2)], lambda _: 10_000.0).exit_code == 0
    assert executor.ended == ["far"]
    assert set(executor.placed.values()) == {"near"}
    assert sum("its job still queues, so it goes elsewhere" in line for line in lines) == 1
    exits = [json.loads(path.read_text()) for path in tmp_path.glob("runs/attempts/*/*/exit.json")]
    assert sorted(record["failure"] for record in exits) == ["cancelled", "ok", "ok"]
