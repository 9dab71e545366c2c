"""runs/: what counts as a result, and what never does."""

import contextlib
import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ablate.core import disk
from ablate.core.errors import AblateError
from ablate.execution import attempts, worker
from ablate.stages.toy import ToySettings
from ablate.store.attempt import Attempt
from ablate.store.checkpoints import Checkpoints
from ablate.store.stage import Stage
from ablate.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def stage() -> Stage:
    return Stage("toy", 1, ToySettings())


def built(store: Store, stage: Stage, text: str = "result") -> Attempt:
    """An attempt that has built its result."""
    attempt = store.claim(stage.key12)
    attempt.out.mkdir(parents=True)
    (attempt.out / "result.txt").write_text(text)
    disk.write_json(attempt.staging / "stage.json", {"payload": stage.payload})
    return attempt


def test_a_committed_stage_is_done(store, stage):
    assert store.done(stage) is None
    assert store.commit(built(store, stage), stage.folder, None)
    assert set(store.done(stage)["files"]) == {"out/result.txt", "stage.json"}


def test_a_second_commit_loses_and_changes_nothing(store, stage):
    first, second = built(store, stage, "first"), built(store, stage, "second")
    assert store.commit(first, stage.folder, None)
    assert not store.commit(second, stage.folder, None)
    assert (store.folder(stage) / "out/result.txt").read_text() == "first"
    assert store.done(stage)["attempt"] == 1
    assert not second.staging.exists()


def test_two_claims_never_get_the_same_folder(store, stage):
    assert [store.claim(stage.key12).number for _ in range(3)] == [1, 2, 3]


def test_a_folder_with_another_payload_is_a_miss(store, stage):
    store.commit(built(store, stage), stage.folder, None)
    disk.write_json(store.folder(stage) / "stage.json", {"payload": stage.payload | {"version": 2}})
    assert store.done(stage) is None


@pytest.mark.parametrize("text", ["", "resul", "result and more"])
def test_a_file_of_another_size_is_a_miss(store, stage, text):
    store.commit(built(store, stage), stage.folder, None)
    (store.folder(stage) / "out/result.txt").write_text(text)
    assert store.done(stage) is None


@pytest.mark.parametrize("name", ["out/result.txt", "stage.json", "done.json"])
def test_a_missing_file_is_a_miss(store, stage, name):
    store.commit(built(store, stage), stage.folder, None)
    (store.folder(stage) / name).unlink()
    assert store.done(stage) is None


@pytest.mark.parametrize("torn", ["", "{", '{"files": {'])
def test_a_torn_manifest_is_a_miss(store, stage, torn):
    store.commit(built(store, stage), stage.folder, None)
    (store.folder(stage) / "done.json").write_text(torn)
    assert store.done(stage) is None


def test_what_is_no_result_can_be_set_aside_and_made_again(store, stage):
    store.commit(built(store, stage, "broken"), stage.folder, None)
    (store.folder(stage) / "out/result.txt").unlink()
    store.set_aside(stage)
    assert store.commit(built(store, stage), stage.folder, None)
    assert store.done(stage)
    assert len(list((store.runs / "aside").iterdir())) == 1


def test_content_names_what_was_made(store, stage):
    store.commit(built(store, stage), stage.folder, "0123")
    assert store.content(stage) == "0123"


def test_the_checkpoints_of_a_committed_attempt_go(store, stage):
    attempt = built(store, stage)
    save(attempt.checkpoints, 1)
    store.commit(attempt, stage.folder, None)
    assert not attempt.checkpoints.exists()


def save(folder: Path, step: int) -> None:
    Checkpoints(folder).save(step, lambda path: (path / "state").write_text(f"at {step}"))


def steps(folder: Path) -> list[int]:
    return [step for step, _ in Checkpoints(folder).complete()]


def test_the_last_two_checkpoints_are_kept(tmp_path):
    for step in (3, 20, 100):
        save(tmp_path, step)
    assert steps(tmp_path) == [20, 100]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-100", "step-20"]


def test_a_part_of_a_step_is_further_than_the_step_before_and_less_far_than_the_step(store, stage):
    first, second, third = (store.claim(stage.key12) for _ in range(3))
    save(first.checkpoints, 3)
    for part in (2, 9, 10):
        Checkpoints(second.checkpoints).save(3, lambda path: (path / "state").write_text("at 3"), part)
    assert Checkpoints(second.checkpoints).latest() == (3, second.checkpoints / "step-3.000010")
    Checkpoints(third.checkpoints).adopt(Checkpoints(second.checkpoints))
    assert Checkpoints(third.checkpoints).latest() == (3, third.checkpoints / "step-3.000010")
    assert [attempts.is_further(store, one) for one in (first, second, third)] == [True, True, False]
    save(third.checkpoints, 4)
    assert Checkpoints(third.checkpoints).latest() == (4, third.checkpoints / "step-4")
    assert attempts.is_further(store, third)


@pytest.mark.parametrize("hurt", ["no manifest", "torn manifest", "no file", "short file", "flipped byte"])
def test_an_incomplete_checkpoint_is_ignored_and_the_one_before_is_used(tmp_path, hurt):
    save(tmp_path, 1)
    save(tmp_path, 2)
    last = tmp_path / "step-2"
    {
        "no manifest": (last / "manifest.json").unlink,
        "torn manifest": lambda: (last / "manifest.json").write_text("{"),
        "no file": (last / "state").unlink,
        "short file": lambda: (last / "state").write_text("at"),
        "flipped byte": lambda: (last / "state").write_text("at 3"),
    }[hurt]()
    assert Checkpoints(tmp_path).latest() == (1, tmp_path / "step-1")


def test_a_save_that_fails_leaves_the_checkpoint_before(tmp_path):
    save(tmp_path, 1)

    def fail(path: Path) -> None:
        (path / "state").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        Checkpoints(tmp_path).save(2, fail)
    assert Checkpoints(tmp_path).latest() == (1, tmp_path / "step-1")


LIMITED = """
import resource, signal, sys
from pathlib import Path
from ablate.core import disk
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
disk.append(Path(sys.argv[1]), "x" * 59 + "\\n")
try:
    disk.append(Path(sys.argv[1]), "y" * 59 + "\\n")
except OSError as error:
    print(error.errno)
"""


def test_a_line_for_which_there_is_no_room_is_not_there_by_half(tmp_path):
    path = tmp_path / "metrics.jsonl"
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(errno.ENOSPC)
    assert path.read_text() == "x" * 59 + "\n"


@pytest.mark.parametrize(("code", "is_survived"), [(errno.ENOENT, True), (errno.EIO, False), (errno.EDQUOT, False)])
def test_a_checkpoint_that_cannot_be_read_for_now_is_not_given_up(store, stage, monkeypatch, code, is_survived):
    first, second = store.claim(stage.key12), store.claim(stage.key12)
    first.write_request({"key": stage.key})
    Checkpoints(first.checkpoints).save(3, lambda folder: (folder / "state").write_text("3"))

    def adopt(self, other):
        raise OSError(code, "said")

    monkeypatch.setattr(Checkpoints, "adopt", adopt)
    with contextlib.nullcontext() if is_survived else pytest.raises(OSError, match="said"):
        worker._adopt(store, second, {"key": stage.key})


def test_an_adopted_checkpoint_outlives_the_attempt_it_comes_from(tmp_path):
    save(tmp_path / "one", 7)
    (tmp_path / "two").mkdir()
    Checkpoints(tmp_path / "two").adopt(Checkpoints(tmp_path / "one"))
    disk.remove_tree(tmp_path / "one")
    assert steps(tmp_path / "two") == [7]


def test_a_study_is_recorded_as_the_one_run_last(store):
    store.record_study("one", {"name": "one"})
    store.record_study("two", {"name": "two"})
    assert store.recorded_study() == {"name": "two"}
    assert store.recorded_study("one") == {"name": "one"}
    with pytest.raises(AblateError, match="no study three was run under"):
        store.recorded_study("three")


def test_a_file_is_old_or_new_but_never_half(tmp_path):
    path = tmp_path / "value.json"
    disk.write_json(path, 1)
    disk.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_created_once(tmp_path):
    path = tmp_path / "worker.json"
    assert disk.create(path, "first")
    assert not disk.create(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
