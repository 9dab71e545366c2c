"""A teacher's answers whose writing is killed at random moments, each time gone on with: the same bytes."""

import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from support import tiny_models as tiny

from ablate.store.job import Job
from ablate.store.kind import KINDS
from ablate.training import decode_loop, teacher_answers

SEED = 20261201
DICE = random.Random(SEED)
LENGTHS = [DICE.randint(3, 30) for _ in range(40)]
ROWS = tiny.random_rows(LENGTHS, [DICE.randint(1, length - 1) for length in LENGTHS])


def generated(folder: Path, inputs: dict[str, Path]) -> Job:
    kind = KINDS["generate"]
    sampling = {"max_new_tokens": 20, "num_answers": 2}
    settings = kind.Settings.model_validate({"sampling": sampling, "dtype": "float32", "seed": 4})
    job = tiny.job(folder, settings, **inputs)
    kind.run(job)
    kind.check(folder)
    return job


def in_a_process(scenario: Callable[[], object], killed_after: float | None) -> bool:
    """-> whether it came to its end before it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            scenario()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if killed_after is not None:
        time.sleep(killed_after)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or status == 0
    return status == 0


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


@pytest.mark.parametrize("num_kills", [6, pytest.param(40, marks=pytest.mark.soak)])
def test_answers_whose_writing_is_killed_at_random_moments_are_the_same_bytes(tmp_path, monkeypatch, num_kills):
    print("seed", SEED)
    monkeypatch.setattr(decode_loop, "most_together", lambda num_bytes: 4)
    monkeypatch.setattr(teacher_answers, "CHECKPOINT_EVERY_S", 0.0)
    made = tiny.stage_inputs(tmp_path, ROWS, tiny.random_rows([5], [2]))
    inputs = {name: made[name] for name in ("teacher", "rows")}
    summary = made["rows"] / "out/summary.json"
    holdout = {"rows": 1, "tokens": 5, "loss_tokens": 3, "without_loss": 0}
    summary.write_text(summary.read_text().replace("{", f'{{"holdout": {str(holdout).replace(chr(39), chr(34))}, ', 1))
    began = time.monotonic()
    assert in_a_process(lambda: generated(tmp_path / "calm", inputs), None)
    length = time.monotonic() - began
    dice, num_done = random.Random(SEED), 0
    for _ in range(num_kills):
        num_done += in_a_process(lambda: generated(tmp_path / "rough", inputs), dice.uniform(0.1, 0.6) * length)
        shutil.rmtree(tmp_path / "rough/out", ignore_errors=True)
    assert num_done < num_kills
    assert in_a_process(lambda: generated(tmp_path / "rough", inputs), None)
    assert contents_of(tmp_path / "rough") == contents_of(tmp_path / "calm")
