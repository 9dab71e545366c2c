"""A person removes parts of runs/ while a study runs: it is told, nothing is mixed up, the same command ends well."""

import shutil
import threading
from pathlib import Path

import pytest
from support.toys import chain, checkpointed, drive, metrics_of, ordered, ours, toy, value_of, wait_for

from ablate.execution import study_lock
from ablate.execution.executors.launch import start_fresh
from ablate.store.store import Store


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> int:
    """What the last of two toys counts to."""
    root, stages = tmp_path_factory.mktemp("undisturbed"), chain(2, steps=20)
    drive(root, stages)
    return value_of(root, stages[-1])


def _attempts(root: Path, stages) -> Path:
    wait_for(lambda: checkpointed(root))
    return root / "runs/attempts"


def _attempt(root: Path, stages) -> Path:
    wait_for(lambda: checkpointed(root))
    return Store(root).attempts(stages[0].key12)[0].path


def _checkpoints(root: Path, stages) -> Path:
    return _attempt(root, stages) / "checkpoints"


def _runs(root: Path, stages) -> Path:
    wait_for(lambda: checkpointed(root))
    return root / "runs"


def _studies(root: Path, stages) -> Path:
    wait_for(lambda: checkpointed(root))
    return root / "runs/studies"


def _stage(root: Path, stages) -> Path:
    wait_for(lambda: Store(root).done(stages[0]))
    return Store(root).folder(stages[0])


def _stages(root: Path, stages) -> Path:
    return _stage(root, stages).parent


LONG = [pytest.param(which, marks=pytest.mark.soak) for which in (_attempts, _checkpoints, _stages)]


@pytest.mark.parametrize("which", [_attempt, _runs, _studies, _stage, *LONG])
def test_what_is_removed_is_made_again_by_the_run_or_by_the_next_one(tmp_path, undisturbed, which):
    stages, codes, lines = chain(2, steps=20, step_s=0.05), [], []
    run = threading.Thread(target=lambda: codes.append(drive(tmp_path, stages, write=lines.append).exit_code))
    run.start()
    shutil.rmtree(which(tmp_path, stages), ignore_errors=True)
    run.join(60)
    assert codes in ([0], [1]), lines  # it came to its end in order, and said how
    if which in (_attempts, _attempt, _runs):
        assert codes == [0]
        assert any("was removed while it ran" in line for line in lines)
        assert Store(tmp_path).attempts(stages[0].key12)[-1].number == 2  # no name is given twice
    assert drive(tmp_path, stages).exit_code == 0
    assert value_of(tmp_path, stages[-1]) == undisturbed
    assert metrics_of(tmp_path, stages[0]) == metrics_of(tmp_path, stages[1]) == list(range(1, 21))
    assert ours(tmp_path) == []


def test_a_worker_whose_folder_was_removed_writes_nothing_where_another_takes_its_name(tmp_path):
    (stage,) = chain(1, steps=400, step_s=0.05)
    run = threading.Thread(target=lambda: drive(tmp_path, [stage], study="first"))
    run.start()
    wait_for(lambda: checkpointed(tmp_path))
    folder = Store(tmp_path).attempts(stage.key12)[0].path
    before = {process.pid for process in ours(tmp_path)}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)  # as another run would, in the same instant
    wait_for(lambda: not before & {process.pid for process in ours(tmp_path)}, 20)
    left = {path.name for path in folder.rglob("*")}
    assert not left & {"exit.json", "metrics.jsonl", "checkpoints"}, left
    request = study_lock.stop_request(Store(tmp_path), "first")
    request.write_text("now")
    run.join(60)
    assert not run.is_alive()


def test_a_worker_that_writes_nothing_for_long_ends_soon_after_its_folder_was_removed(tmp_path):
    attempt = ordered(tmp_path, toy(steps=2, step_s=60))
    supervisor = start_fresh(attempt)
    wait_for(lambda: attempt.progress.is_file())
    shutil.rmtree(attempt.path, ignore_errors=True)
    supervisor.wait(20)
    assert not attempt.path.exists()
    assert ours(tmp_path) == []
