"""The teacher's kept answers: the same loss and gradient, made once, and never in the way."""

import hashlib
import json
import random
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import reference
from support import tiny_models as tiny
from support.faulty import KILLS, killed, operations

from ablate.core import disk
from ablate.core.errors import Interrupted, StageError
from ablate.losses import LOSSES, parse
from ablate.stages.inputs import source
from ablate.store.job import read_metrics
from ablate.store.kind import KINDS
from ablate.study.teacher_top_k import bytes_a_token
from ablate.training import capture_plan, teacher_cache, teacher_capture
from ablate.training.asked_teachers import live_outputs as of_live
from ablate.training.giving_way import training_memory
from ablate.training.head import Head
from ablate.training.holdout import holdout_losses
from ablate.training.loss import Objective
from ablate.training.model_parts import split_model
from ablate.training.teacher_top_k import COSTS

LORA = {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj", "v_proj"]}
RECIPE = {"max_steps": 4, "batch_size": 4, "warmup_steps": 1, "lr": 1e-2, "lora": LORA}
ROWS = tiny.random_rows(reference.LENGTHS, reference.PROMPTS)
HOLDOUT = tiny.random_rows([7, 8], seed=9)


def wider(family: str, seed: int):
    """-> a teacher of another width, whose head is padded to another size."""
    name, settings = tiny.FAMILIES[family]
    import transformers

    torch.manual_seed(seed)
    config = getattr(transformers, name)(**settings | {"hidden_size": 36, "vocab_size": tiny.VOCABULARY + 19})
    return transformers.AutoModelForCausalLM.from_config(config).eval()


SPLITS = {"train": ROWS, "holdout": HOLDOUT}
READ = {part: range(len(rows)) for part, rows in SPLITS.items()}
FORMS = ["vector", "hidden"]
TOP_K = {"form": "top_k", "k": 6, "dtype": "float32"}


def asked(training, form="vector", temperature=1.0, teacher=None):
    vector = capture_plan.VectorTarget(training.student.head, temperature) if form == "vector" else None
    return capture_plan.CapturePlan(("teacher",), "float32", teacher or training.teacher, vector, SPLITS, READ)


def wanted(training, **other):
    needs = teacher_cache.CacheNeeds(("teacher",), "float32", SPLITS, training.objective, training.student.head)
    return replace(needs, **other)


def captured(folder: Path, training, form="vector", temperature=1.0) -> teacher_cache.CachedTeacher:
    job = tiny.job(folder)
    teacher_capture.capture_teacher(job, asked(training, form, temperature))
    teacher_cache.check_cache(folder)
    index = teacher_cache.CacheIndex(job.out)
    assert index.misfit(wanted(training)) is None
    return teacher_cache.CachedTeacher(index, SPLITS, "cpu")


# the same numbers


def same_as_live(training, cache):
    """Loss, gradient and held-out losses, within 1e-5."""
    kept = replace(training, teacher=cache)
    (losses, grads), (again, same) = reference.step(training), reference.step(kept)
    assert again == pytest.approx(losses, rel=1e-5)
    assert reference.relative(same, grads) < 1e-5
    asks = (lambda b: of_live(training.teacher, b)), (lambda b: cache.hidden_outputs("holdout", b))
    held = [holdout_losses(training.student, HOLDOUT, 100, "cpu", ask) for ask in asks]
    assert held[1] == pytest.approx(held[0], rel=1e-5)
    assert held[0].keys() == {"class_loss", "forward_kl", "reverse_kl", "teacher_entropy"}


@pytest.mark.parametrize("family", ["llama", "llama_tied", "qwen2", "granite", "cohere"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("kd_ratio", [0.0, 0.3, 1.0])
def test_kept_vectors_give_the_loss_and_gradient_of_the_live_teacher(family, kd_ratio, temperature, tmp_path):
    objective = Objective(kd_ratio, parse("forward_kl"), temperature, scale_by_t2=temperature != 1.0)
    training = reference.training_of(family, objective, ROWS)
    training = replace(training, teacher=split_model(wider(family, 2), tiny.VOCABULARY))
    same_as_live(training, captured(tmp_path, training, "vector", temperature))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "phi", "granite"])
def test_one_cache_of_hidden_states_serves_every_loss_and_temperature(family, tmp_path):
    training = reference.training_of(family, Objective(0.5, parse("forward_kl")), ROWS)
    cache = captured(tmp_path, training, "hidden")
    for name in (name for name in LOSSES if not LOSSES[name].crosses_tokenizers):
        for temperature in (1.0, 2.0):
            same_as_live(replace(training, objective=Objective(0.5, parse(name), temperature)), cache)


def test_hidden_states_serve_a_student_all_of_which_is_trained(tmp_path):
    settings = reference.recipe("llama_tied", lora=None)
    training = reference.training_of("llama_tied", Objective(0.5, parse("jsd")), ROWS, settings=settings)
    same_as_live(training, captured(tmp_path, training, "hidden"))


@pytest.mark.parametrize("form", FORMS)
def test_a_student_that_is_its_teacher_has_no_kd_loss_and_no_gradient(form, tmp_path):
    training = reference.training_of("llama", Objective(1.0, parse("forward_kl")), ROWS)
    training = replace(training, teacher=training.student)
    losses, grads = reference.step(replace(training, teacher=captured(tmp_path, training, form)))
    assert losses["kd_loss"] == pytest.approx(0, abs=1e-6)
    assert max(float(grad.abs().max()) for grad in grads.values()) < 1e-5


@pytest.mark.parametrize(("form", "difference"), [("vector", 5e-2), ("hidden", 2e-2)])
def test_in_16_bits_kept_answers_differ_from_live_ones_by_rounding(form, difference, tmp_path):
    training = reference.training_of("llama", Objective(0.5, parse("forward_kl")), ROWS)
    student, teacher = (part.model.to(torch.bfloat16) for part in (training.student, training.teacher))
    training = replace(
        training, student=split_model(student, tiny.VOCABULARY), teacher=split_model(teacher, tiny.VOCABULARY)
    )
    (losses, grads), (again, same) = (
        reference.step(one) for one in (training, replace(training, teacher=captured(tmp_path, training, form)))
    )
    assert again == pytest.approx(losses, rel=1e-2)
    assert reference.relative(same, grads) < difference


def test_bfloat16_logits_are_as_exact_as_in_float32_and_the_switch_is_put_back():
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 320, generator=generator).bfloat16() for n in (256, 4104))
    before = torch.backends.mkldnn.matmul.fp32_precision
    logits = Head(weight.float(), 4104, is_bfloat16=True).logits(hidden)
    exact = hidden.double() @ weight.double().T
    assert float((logits - exact).abs().max() / exact.abs().max()) < 1.5e-6
    assert torch.backends.mkldnn.matmul.fp32_precision == before
    of_float32 = Head(weight.float(), 4104, is_bfloat16=True).logits(hidden.float() + 1e-3)
    exact = (hidden.float() + 1e-3).double() @ weight.double().T
    assert float((of_float32 - exact).abs().max() / exact.abs().max()) < 1.5e-6


def test_a_kept_teachers_head_is_counted_among_what_is_on_the_card(tmp_path):
    training = reference.training_of("llama", Objective(0.5, parse("forward_kl")), ROWS)
    cache = captured(tmp_path, training, "hidden")
    memory = training_memory(replace(training, teacher=cache))
    head = training.teacher.head
    assert memory.teacher == 4 * head.vocabulary * head.weight.shape[1]
    assert memory.beside.output_bytes == 4 * head.weight.shape[1]


# never the wrong ones


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "phi"])
def test_a_head_that_vectors_cannot_serve_is_told(family):
    why = teacher_cache.why_no_vectors(split_model(tiny.make(family, 1).requires_grad_(False), tiny.VOCABULARY).head)
    assert (why is None) == (family == "gpt2")


def test_kept_answers_do_not_stand_for_another_teacher_dtype_head_rows_temperature_or_loss(tmp_path):
    training = reference.training_of("llama", Objective(0.3, parse("forward_kl")), ROWS)
    cache, forward = captured(tmp_path, training), parse("forward_kl")
    assert cache.index.misfit(wanted(training, objective=Objective(0.9, forward))) is None
    another = split_model(tiny.make("llama", 7).requires_grad_(False), 61).head
    trained = split_model(tiny.make("llama", 1).requires_grad_(True), 61).head
    for other, why in (
        ({"objective": Objective(0.3, forward, 2.0)}, "another temperature"),
        ({"objective": Objective(0.3, parse("reverse_kl"))}, "reverse_kl needs"),
        ({"splits": SPLITS | {"train": HOLDOUT}}, "or rows"),
        ({"teacher": ("teacher", "finetune-2")}, "another teacher"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"head": another}, "or head"),
        ({"head": trained}, "is trained"),
    ):
        assert why in cache.index.misfit(wanted(training, **other)), other


def test_a_cache_that_does_not_agree_with_its_teacher_is_refused(tmp_path):
    training = reference.training_of("llama", Objective(0.3, parse("forward_kl")), ROWS)
    for form in FORMS:
        job = tiny.job(tmp_path / form)
        teacher_capture.capture_teacher(job, asked(training, form))
        shard = (job.out / "train-00000.safetensors").read_bytes()
        job.checkpoints.save(1, lambda folder, shard=shard: (folder / "train-00000.safetensors").write_bytes(shard))
        other = asked(training, form, teacher=split_model(tiny.make("llama", 3), tiny.VOCABULARY))
        with pytest.raises(StageError, match=r"train-00000\.safetensors, asked of the teacher once more, differs"):
            teacher_capture.capture_teacher(tiny.job(tmp_path / form), other)


# the stages


def run(folder, kind, settings, inputs, job=None):
    stage = KINDS[kind]
    job = job or tiny.job(folder)
    job.settings, job.inputs = stage.Settings.model_validate(settings), inputs
    stage.run(job)
    stage.check(folder)
    return job


@pytest.fixture
def inputs(tmp_path):
    return tiny.stage_inputs(tmp_path, ROWS, HOLDOUT)


def distilled(folder, inputs, **recipe):
    return run(folder, "distill", {"recipe": RECIPE | recipe, "dtype": "float32", "seed": 0}, inputs)


def test_a_teacher_that_was_trained_again_is_another_one_though_its_name_is_the_same(inputs, tmp_path):
    job = tiny.job(tmp_path / "job", None, **inputs, teacher_adapter=tmp_path / "finetune-0123456789ab")
    names = []
    for weights in ("a", "b", "a"):
        folder = job.inputs["teacher_adapter"]
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "out").mkdir(parents=True)
        (folder / "out/adapter_model.safetensors").write_text(weights)
        listing = {"out/adapter_model.safetensors": {"size": 1, "sha256": hashlib.sha256(weights.encode()).hexdigest()}}
        disk.write_sealed(folder / "done.json", {"files": listing, "content": "", "attempt": 1})
        names.append(source(job, "teacher").made_by)
    assert names[0] == names[2] != names[1]
    assert names[0][1].startswith("finetune-0123456789ab ")


@pytest.mark.parametrize("form", FORMS)
def test_a_distillation_from_the_cache_has_the_curve_of_one_with_the_teacher_beside(form, inputs, tmp_path):
    run(tmp_path / "cache", "teacher_cache", {"form": form, "dtype": "float32"}, inputs)
    beside = distilled(tmp_path / "beside", inputs)
    (tmp_path / "teacher-model/model.safetensors").unlink()  # it is not even loaded, for the held-out rows neither
    cached = distilled(tmp_path / "cached", inputs | {"teacher_cache": tmp_path / "cache"})
    assert cached.notes["teacher"] == "its answers were read from cache"
    for ours, live in zip(read_metrics(cached.metrics.path), read_metrics(beside.metrics.path), strict=True):
        for name in ("loss", "class_loss", "kd_loss", "teacher_entropy", "grad_norm"):
            assert ours[name] == pytest.approx(live[name], rel=1e-4)
    kept, live = (json.loads((job.out / "holdout.json").read_text()) for job in (cached, beside))
    assert kept == pytest.approx(live, rel=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_every_micro_batch_is_read_ahead_by_a_thread_that_ends_with_the_training(form, inputs, tmp_path, monkeypatch):
    run(tmp_path / "cache", "teacher_cache", {"form": form, "dtype": "float32"}, inputs)
    readers, read = [], teacher_cache.CachedTeacher._read_on_host

    def noting(self, asked):
        if asked[0] == "train":
            readers.append(threading.current_thread())
        return read(self, asked)

    monkeypatch.setattr(teacher_cache.CachedTeacher, "_read_on_host", noting)
    distilled(tmp_path / "kd", inputs | {"teacher_cache": tmp_path / "cache"}, micro_batch_tokens=8, max_steps=6)
    assert len(readers) > 6
    assert threading.main_thread() not in readers
    assert not any(thread.is_alive() for thread in readers)


@pytest.mark.parametrize("rest", ["event", "zero"])
def test_a_distillation_from_kept_likeliest_tokens_has_the_curve_of_one_with_the_teacher_beside(rest, inputs, tmp_path):
    run(tmp_path / "cache", "teacher_cache", TOP_K | {"temperature": 2.0}, inputs)
    run(tmp_path / "whole", "teacher_cache", {"form": "hidden", "dtype": "float32"}, inputs)
    cut = {"teacher_top_k": 6, "teacher_top_k_rest": rest, "temperature": 2.0, "loss": "jsd"}
    beside = distilled(tmp_path / "beside", inputs, **cut)
    (tmp_path / "teacher-model/model.safetensors").unlink()
    for cache in ("cache", "whole"):
        cached = distilled(tmp_path / f"from-{cache}", inputs | {"teacher_cache": tmp_path / cache}, **cut)
        assert cached.notes["teacher"] == f"its answers were read from {cache}"
        for ours, live in zip(read_metrics(cached.metrics.path), read_metrics(beside.metrics.path), strict=True):
            assert {name for name in live if name.startswith("teacher_")} == {"teacher_entropy", *COSTS}
            for name in ("loss", "class_loss", "kd_loss", "teacher_entropy", "grad_norm", *COSTS):
                assert ours[name] == pytest.approx(live[name], rel=1e-4)
        kept, live = (json.loads((job.out / "holdout.json").read_text()) for job in (cached, beside))
        assert kept == pytest.approx(live, rel=1e-4)  # of the whole teacher


def test_likeliest_tokens_do_not_stand_for_more_or_fewer_of_them_nor_for_all(inputs, tmp_path):
    run(tmp_path / "cache", "teacher_cache", TOP_K, inputs)
    run(tmp_path / "vectors", "teacher_cache", {"form": "vector", "dtype": "float32"}, inputs)
    whole = inputs | {"teacher_cache": tmp_path / "cache"}
    for number, recipe in enumerate(({"teacher_top_k": 5}, {}, {"teacher_top_k": 6, "temperature": 2.0})):
        job = distilled(tmp_path / str(number), whole, **recipe)
        assert job.notes["teacher"] == "ran beside: it was made of more or fewer of the teacher's likeliest tokens"
    job = distilled(tmp_path / "v", inputs | {"teacher_cache": tmp_path / "vectors"}, teacher_top_k=6)
    assert job.notes["teacher"].startswith("ran beside: it was made of more")


@pytest.mark.parametrize(("dtype", "num_bytes"), [("float32", 6 * 8 + 12), ("bfloat16", 6 * 6 + 12)])
def test_likeliest_tokens_take_as_many_bytes_as_the_plan_says(dtype, num_bytes, inputs, tmp_path):
    job = run(tmp_path / "cache", "teacher_cache", TOP_K | {"dtype": dtype}, inputs)
    kept = teacher_cache.CacheIndex(job.out).record["widths"]["top_k"]
    tensors = load_file(job.out / "train-00000.safetensors")
    assert {name: list(tensor.shape[1:]) for name, tensor in tensors.items()} == kept
    assert sum(tensor.nbytes for tensor in tensors.values()) == ROWS.counts.loss_tokens * num_bytes
    assert bytes_a_token(6, dtype) == num_bytes
    assert (job.out / "head.safetensors").is_file()  # of the held-out rows all is kept


def test_a_teacher_whose_logits_are_made_whole_is_cut_too(inputs, tmp_path):
    tiny.save(tmp_path / "teacher-model", "gpt2", 1)
    job = run(tmp_path / "cache", "teacher_cache", TOP_K, inputs)
    assert "no cache" not in job.notes
    distilling = distilled(tmp_path / "kd", inputs | {"teacher_cache": tmp_path / "cache"}, teacher_top_k=6)
    assert distilling.notes["teacher"] == "its answers were read from cache"


def test_a_loss_that_needs_more_than_vectors_runs_with_the_teacher_beside_and_says_so(inputs, tmp_path):
    run(tmp_path / "cache", "teacher_cache", {"form": "vector", "dtype": "float32"}, inputs)
    cached = distilled(tmp_path / "a", inputs | {"teacher_cache": tmp_path / "cache"}, loss="jsd")
    beside = distilled(tmp_path / "b", inputs, loss="jsd")
    assert cached.notes["teacher"] == "ran beside: jsd needs the teacher's logits"
    weights = [(job.out / "adapter_model.safetensors").read_bytes() for job in (cached, beside)]
    assert weights[0] == weights[1]


def test_only_the_rows_that_are_read_are_asked_about(inputs, tmp_path):
    use = {"seed": 0, "batch_size": 2, "num_steps": 2, "drop_last": True}
    run(tmp_path / "cache", "teacher_cache", {"form": "vector", "dtype": "float32", "reads": [use]}, inputs)
    index = json.loads((tmp_path / "cache/out/index.json").read_text())
    assert [len(shard["rows"]) for shard in index["shards"] if shard["part"] == "train"] == [4]
    distilled(tmp_path / "kd", inputs | {"teacher_cache": tmp_path / "cache"}, max_steps=2, batch_size=2)
    with pytest.raises(StageError, match="is not in the teacher's cache"):
        distilled(tmp_path / "kd3", inputs | {"teacher_cache": tmp_path / "cache"}, max_steps=4, batch_size=2)


def test_a_head_that_cannot_be_served_leaves_a_cache_that_says_why(inputs, tmp_path):
    tiny.save(tmp_path / "student-model", "phi", 2)
    job = run(tmp_path / "cache", "teacher_cache", {"form": "vector", "dtype": "float32"}, inputs)
    assert job.notes["no cache"] == "the student's head has a bias or caps its logits"
    lora = LORA | {"target_modules": ["q_proj"]}
    distilling = distilled(tmp_path / "kd", inputs | {"teacher_cache": tmp_path / "cache"}, lora=lora)
    assert distilling.notes["teacher"] == "ran beside: the student's head has a bias or caps its logits"


@pytest.mark.parametrize("stop_after", [1, 3, 4])
def test_a_capture_stopped_in_the_middle_goes_on_to_the_same_bytes(inputs, tmp_path, monkeypatch, stop_after):
    monkeypatch.setattr(capture_plan, "SHARD_ROWS", 2)
    whole = run(tmp_path / "a", "teacher_cache", {"form": "vector", "dtype": "float32"}, inputs)
    asked = []
    first = tiny.job(tmp_path / "b")
    first.is_stopping = lambda: asked.append(1) or len(asked) > 2 * stop_after
    with pytest.raises(Interrupted):
        run(tmp_path / "b", "teacher_cache", {"form": "vector", "dtype": "float32"}, inputs, first)
    (tmp_path / "b/out/train-00000.safetensors").write_bytes(b"torn")  # a new attempt starts with an empty folder
    again = run(tmp_path / "b", "teacher_cache", {"form": "vector", "dtype": "float32"}, inputs)
    names = sorted(path.name for path in whole.out.iterdir())
    assert names == sorted(path.name for path in again.out.iterdir())
    for name in names:
        assert (whole.out / name).read_bytes() == (again.out / name).read_bytes()


@pytest.mark.parametrize("num_kills", [8, pytest.param(1000, marks=pytest.mark.soak)])
def test_a_capture_killed_inside_its_writes_goes_on_to_the_same_bytes(inputs, tmp_path, monkeypatch, num_kills):
    """Each time by a new attempt, which takes over what the last one has saved, as a worker does."""
    monkeypatch.setattr(capture_plan, "SHARD_ROWS", 2)
    monkeypatch.setattr(teacher_capture, "CHECKPOINT_EVERY_S", 0.0)
    settings = {"form": "vector", "dtype": "float32"}
    whole = run(tmp_path / "whole", "teacher_cache", settings, inputs)
    shutil.rmtree(tmp_path / "noted", ignore_errors=True)
    done = operations(lambda: run(tmp_path / "noted", "teacher_cache", settings, inputs))
    pairs = [(n, how) for how in ("before", "torn", "after") for n, one in enumerate(done) if one.name in KILLS[how]]
    for number, how in random.Random(20261130).sample(pairs, min(num_kills, len(pairs))):
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        killed(lambda: run(tmp_path / "cache", "teacher_cache", settings, inputs), tmp_path, number, how)
        shutil.rmtree(tmp_path / "cache/out", ignore_errors=True)
        again = run(tmp_path / "cache", "teacher_cache", settings, inputs)
        assert contents_of(again.out) == contents_of(whole.out), (number, how)


def contents_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_damaged_cache_is_not_committed(inputs, tmp_path):
    job = run(tmp_path / "cache", "teacher_cache", {"form": "vector", "dtype": "float32"}, inputs)
    shard = job.out / "train-00000.safetensors"
    raw = bytearray(shard.read_bytes())
    raw[-8:] = np.float64("nan").tobytes()
    raw[-4 * 24 :] = np.full(24, np.nan, np.float32).tobytes()
    shard.write_bytes(raw)
    with pytest.raises(StageError, match="not finite"):
        KINDS["teacher_cache"].check(tmp_path / "cache")
    shard.write_bytes(raw[:40])
    with pytest.raises(StageError, match="no readable shard"):
        KINDS["teacher_cache"].check(tmp_path / "cache")
