"""A model that is loaded twice under one key is the same model, or that is told."""

import contextlib
import errno
import json
import multiprocessing
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import damages
from support import tiny_models as tiny

from ablate.core import disk
from ablate.core.errors import StageError
from ablate.core.failures import FAILURES, ending_of
from ablate.maintenance import verify
from ablate.store import fingerprints
from ablate.store.store import Store
from ablate.training.fingerprint import require_same
from ablate.training.model_source import ModelSource

MADE_BY = ("fetch-0123456789ab",)


@pytest.fixture
def source(tmp_path) -> ModelSource:
    return ModelSource(tiny.save(tmp_path / "model", "llama", 1), MADE_BY)


def kept(checks: Path) -> list[Path]:
    return sorted((checks / "models").iterdir())


def move_weights(folder: Path, by: float) -> None:
    """What another version of a library would make of the same files."""
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.self_attn.v_proj.weight"
    noise = torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(0))
    save_file(tensors | {name: tensors[name] + by * noise}, folder / "model.safetensors")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_model_is_the_same_when_it_is_loaded_again(source, dtype, tmp_path):
    for _ in range(2):
        source.load(dtype, "cpu", tmp_path / "checks")
    (path,) = kept(tmp_path / "checks")
    record = json.loads(path.read_text())
    with torch.no_grad():
        ids = torch.arange(12)[None] * 7919 % (tiny.VOCABULARY + 3)
        logits = tiny.make("llama", 1)(input_ids=ids).logits.double()
    rounding = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.02}[dtype]
    assert record["absolute_sum"] == pytest.approx(float(logits.abs().sum()), rel=rounding)
    assert record["sum"] == pytest.approx(float(logits.sum()), abs=rounding * float(logits.abs().sum()))


@pytest.mark.parametrize("hurt", [damages.link_out, damages.pipe, damages.loop, damages.swapped])
@pytest.mark.parametrize("place", ["checks", "checks/models"])
def test_a_model_is_loaded_whatever_lies_where_answers_are_kept_and_nothing_is_written_outside(
    source, tmp_path, place, hurt
):
    runs = tmp_path / "root/runs"
    (runs / "checks/models").mkdir(parents=True)
    hurt(runs / place)
    outside = damages.contents(tmp_path)
    assert source.load("float32", "cpu", runs / "checks").model is not None
    assert damages.contents(tmp_path) == outside


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_model_of_a_root_that_can_only_be_read_is_loaded(source, tmp_path, monkeypatch, number):
    """As an export does; a disk that is full is told as ever."""

    def refuse(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(disk, "make_folder", refuse)
    with pytest.raises(OSError, match="space") if number == errno.ENOSPC else contextlib.nullcontext():
        source.load("float32", "cpu", tmp_path / "checks")
    assert not (tmp_path / "checks").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_another_model_under_the_same_key_is_an_error_of_its_own_class(source, dtype, tmp_path):
    source.load(dtype, "cpu", tmp_path / "checks")
    first = json.loads(kept(tmp_path / "checks")[0].read_text())["sum"]
    move_weights(source.folder, 0.5)
    with pytest.raises(StageError) as caught:
        source.load(dtype, "cpu", tmp_path / "checks")
    assert ending_of(caught.value).failure == "other_model"
    assert FAILURES["other_model"].num_retries == 0
    assert f"{first:.6g}" in str(caught.value)
    assert MADE_BY[0] in str(caught.value)


def test_rounding_of_another_machine_is_no_other_model(source, tmp_path):
    source.load("bfloat16", "cpu", tmp_path / "checks")
    model = tiny.make("llama", 1).bfloat16().float()  # the weights, and arithmetic that never rounds to 16 bits
    require_same(model, MADE_BY, "bfloat16", tmp_path / "checks")


def test_dtypes_and_trainings_have_fingerprints_of_their_own(source, tmp_path):
    source.load("float32", "cpu", tmp_path / "checks")
    source.load("bfloat16", "cpu", tmp_path / "checks")
    move_weights(source.folder, 0.5)
    trained = ModelSource(source.folder, (*MADE_BY, "finetune-0123456789ab 0123456789ab"))
    trained.load("float32", "cpu", tmp_path / "checks")
    assert len(kept(tmp_path / "checks")) == 3


def first_or_mine(checks: Path, number: int) -> float:
    return float(fingerprints.kept_or_first(checks, MADE_BY, "float32", {"sum": float(number)})["sum"])


def test_of_several_that_load_at_once_one_is_kept(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        sums = pool.map(partial(first_or_mine, tmp_path), range(32), chunksize=1)
    assert len(set(sums)) == 1


def test_a_fingerprint_is_looked_after_by_verify_and_written_anew_when_it_is_damaged(source, tmp_path):
    store = Store(tmp_path)
    source.load("float32", "cpu", store.checks)
    assert verify.verify(verify.parts(store)) == []
    (path,) = kept(store.checks)
    path.write_text(path.read_text().replace('"sum": ', '"sum": 1'))
    (damage,) = verify.verify(verify.parts(store))
    assert damage.place == f"checks/models/{path.name}"
    source.load("float32", "cpu", store.checks)
    assert verify.verify(verify.parts(store)) == []


def test_a_model_of_unknown_origin_is_compared_with_nothing(tmp_path):
    folder = tiny.save(tmp_path / "model")
    ModelSource(folder).load("float32", "cpu", tmp_path / "checks")
    ModelSource(folder, MADE_BY).load("float32", "cpu", None)
    assert not (tmp_path / "checks").exists()
