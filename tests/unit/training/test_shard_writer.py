"""A capture writes while it asks on, and what it has written is not read again; what goes wrong there is its error."""

import errno
import threading

import pytest
import torch
from support import tiny_models as tiny
from support.bytes_read import bytes_read
from support.faulty import fails

from ablate.core.disk_operations import through
from ablate.core.errors import StageError
from ablate.store.kind import KINDS
from ablate.store.manifest import durable_listing
from ablate.training import capture_plan
from ablate.training.shard_writer import FillingShard, ShardWriter

ROWS = tiny.random_rows([8] * 2000, [1] * 2000)
HOLDOUT = tiny.random_rows([7], seed=9)
FEW = tiny.random_rows([8] * 6, [1] * 6)


def capture(folder, rows=FEW, is_stopping=lambda: False):
    stage = KINDS["teacher_cache"]
    job = tiny.job(folder / "cache")
    job.settings = stage.Settings(form="hidden", dtype="float32")
    job.inputs, job.is_stopping = tiny.stage_inputs(folder, rows, HOLDOUT), is_stopping
    stage.run(job)
    stage.check(folder / "cache")
    return job.out


def test_no_byte_of_what_a_teacher_said_is_read_again_to_be_committed(tmp_path):
    out = capture(tmp_path, ROWS)
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    assert size > 1_000_000
    assert bytes_read(lambda: durable_listing(out)) < size / 10  # the index, and this count itself


def test_the_teacher_is_asked_on_while_a_shard_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(capture_plan, "SHARD_ROWS", 2)
    asked, is_on_the_second, names = [], threading.Event(), []

    def is_stopping():
        asked.append(1)
        if len(asked) == 3:  # within the first shard, after it, within the second
            is_on_the_second.set()
        return False

    def slow(name, paths, act):
        if name == "write" and paths[-1].name == "train-00000.safetensors":
            names.append(threading.current_thread().name)
            assert is_on_the_second.wait(60)
        return act()

    with through(slow):
        out = capture(tmp_path, is_stopping=is_stopping)
    assert names != [threading.main_thread().name]
    assert len(list(out.glob("train-*.safetensors"))) == 3


def test_a_disk_that_is_full_under_the_writer_ends_the_capture_as_it_did(tmp_path):
    def full(name, paths, act):
        if name == "write" and paths[-1].suffix == ".safetensors" and "cache" in paths[-1].parts:
            return fails(0, errno.ENOSPC, is_for_ever=False)(name, paths, act)
        return act()

    with through(full), pytest.raises(OSError, match="were to be written") as caught:
        capture(tmp_path)
    assert caught.value.errno == errno.ENOSPC


def test_a_shard_that_is_not_finite_is_refused_and_not_written(tmp_path):
    shard = FillingShard({"hidden": torch.empty(4, 2)}, "cpu")
    for begin, value in ((0, 1.0), (2, float("nan"))):
        values = torch.full((2, 2), value)
        shard.check(values)
        shard.put("hidden", begin, values)
    with ShardWriter() as writer:
        writer.write(shard, tmp_path / "train-00000.safetensors")
        with pytest.raises(StageError, match="not finite"):
            writer.wait()
    assert not list(tmp_path.iterdir())


def test_no_thread_outlives_its_capture(tmp_path):
    before = threading.active_count()
    capture(tmp_path)
    assert threading.active_count() == before
