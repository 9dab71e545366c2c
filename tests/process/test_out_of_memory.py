"""Out of memory in the middle of a training: only its speed changes, and whoever reads the results is told."""

import contextlib
import json
import re
from dataclasses import dataclass, field

import pytest
import torch
from support import tiny_models as tiny
from support.report_study import Work, bench
from support.toys import ordered
from torch.nn.modules.module import register_module_forward_hook
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from ablate.cli.explain_view import print_lineage
from ablate.core import disk
from ablate.core.errors import Interrupted, StageError
from ablate.core.local_files import local_digest
from ablate.data import tokens
from ablate.data.tokens import lay
from ablate.execution import worker
from ablate.planning.plan import Cell, Plan
from ablate.report.write import write_report
from ablate.store.job import read_metrics
from ablate.store.kind import KINDS
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.training_recipes import Distill
from ablate.training import adapters, trainable
from ablate.training.giving_way import GAVE_WAY, ORDER, gave_way
from ablate.training.loss import objective
from ablate.training.model_parts import split_model
from ablate.training.train import train
from ablate.training.training import Training

LENGTHS = [9, 17, 5, 12, 17, 3, 11, 8, 20, 6, 14, 7, 9, 18, 16, 19]
ROWS = tiny.random_rows(LENGTHS)
STEPS = 55
BUDGET, FITTING = 160, 40
"""Tokens a micro-batch: what the recipe asks for, and what the card holds."""
LORA = {"rank": 4, "alpha": 8.0, "target_modules": list(tiny.targets("llama")), "dropout": 0.1}
COMMON = {"batch_size": 8, "warmup_steps": 3, "micro_batch_tokens": BUDGET}


def training_of(rows=ROWS, **settings):
    recipe = Distill.model_validate(COMMON | {"max_steps": STEPS, "lora": LORA} | settings)
    student = tiny.make("llama", 1)
    weights = trainable.make_trainable(student, recipe, 3, adapters.Origin())
    return Training(
        recipe=recipe,
        seed=3,
        rows=rows,
        student=split_model(student, tiny.VOCABULARY),
        trainable=weights,
        objective=objective(recipe),
        teacher=split_model(tiny.make("llama", 2), tiny.VOCABULARY),
    )


@dataclass
class Card:
    """A card whose memory holds `FITTING` tokens of a layer, whatever is run on it."""

    is_backward: bool = False
    """The gradients are what does not fit."""
    refused: list[int] = field(default_factory=list)
    """Tokens of the micro-batches that did not fit."""
    held: list[int] = field(default_factory=list)
    """Of those that did."""

    def __call__(self, layer, _, output):
        """After each layer's forward."""
        if not isinstance(layer, LlamaDecoderLayer):
            return
        num = output.shape[0] * output.shape[1]
        if num <= FITTING:
            self.held.append(num)
        elif not self.is_backward:
            self.refuse(num)
        elif output.requires_grad and layer.self_attn.layer_idx == 0:  # the layers above have their gradients already
            output.register_hook(lambda _: self.refuse(num))

    def refuse(self, num):
        self.refused.append(num)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@contextlib.contextmanager
def smaller(card, model=None):
    """Runs a model, or every model, on a card that is too small."""
    layers = [part for part in model.modules() if isinstance(part, LlamaDecoderLayer)] if model else []
    hooks = [layer.register_forward_hook(card) for layer in layers] or [register_module_forward_hook(card)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def trained(folder, training, *, small_at=None, where="forward"):
    """Trains, at one step on a card that is too small. -> the job, the card."""
    job, card = tiny.job(folder), Card(is_backward=where == "backward")
    model = (training.teacher if where == "teacher" else training.student).model
    with contextlib.ExitStack() as at_this_step:

        def is_stopping():  # asked after every step but the last
            at_this_step.close()
            if len(curve(job)) + 1 == small_at:
                at_this_step.enter_context(smaller(card, model))
            return False

        job.is_stopping = is_stopping
        if small_at == 1:
            is_stopping()
        train(job, training)
    return job, card


def curve(job):
    return [
        {name: value for name, value in record.items() if name not in ("seconds", "peak_memory")}
        for record in read_metrics(job.metrics.path)
    ]


@pytest.fixture(scope="module", params=["lora", "everything"])
def undisturbed(request, tmp_path_factory):
    """-> the settings of a training that had memory enough, and its curve."""
    settings = {} if request.param == "lora" else {"lora": None}
    job, _ = trained(tmp_path_factory.mktemp("undisturbed"), training_of(**settings))
    assert "out of memory" not in job.notes
    return settings, curve(job)


@pytest.mark.parametrize("where", ["forward", "backward", "teacher"])
@pytest.mark.parametrize("step", [1, 50])
def test_out_of_memory_at_any_step_leaves_the_curve_as_it_was(undisturbed, step, where, tmp_path):
    settings, whole = undisturbed
    job, card = trained(tmp_path, training_of(**settings), small_at=step, where=where)
    assert card.refused
    assert max(card.held) <= FITTING
    assert len(curve(job)) == STEPS
    for ours, theirs in zip(curve(job), whole, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert job.notes["out of memory"] == [
        f"step {step}: micro-batches of {size} tokens halved to {size // 2}" for size in card.refused
    ]


def test_a_training_that_ran_out_of_memory_goes_on_with_what_fitted(tmp_path):
    whole, _ = trained(tmp_path / "whole", training_of())
    first, again = Card(), Card()
    with smaller(first):
        job = tiny.job(tmp_path / "stopped")
        job.is_stopping = lambda: len(curve(job)) == 2
        with pytest.raises(Interrupted):
            train(job, training_of())
    assert first.refused
    with smaller(again):
        resumed, _ = trained(tmp_path / "stopped", training_of())
    assert not again.refused
    for ours, theirs in zip(curve(resumed), curve(whole), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_one_row_too_long_for_the_memory_is_told_with_what_to_do(tmp_path):
    training = training_of(tiny.random_rows([50, 50, 50, 50]))
    training.teacher.model.requires_grad_(False)
    with smaller(Card()), pytest.raises(StageError, match="one row of 50 tokens") as caught:
        train(tiny.job(tmp_path), training)
    assert caught.value.failure == "oom"
    assert "with gradient checkpointing, logits of fewer tokens at once, the teacher's layers" in str(caught.value)


@contextlib.contextmanager
def of_one_row(training, num_fitting):
    """Trains on a card where a forward pass of one row fits once so much has given way."""

    def refuse(_, inputs, kwargs):
        if len(gave_way(training)) < num_fitting:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = training.student.model.register_forward_pre_hook(refuse, with_kwargs=True)
    body = training.student.model.base_model.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
        body.remove()


@pytest.mark.parametrize("num_fitting", [1, 2, 3])
def test_with_one_row_at_a_time_something_else_gives_way_and_the_curve_stays(undisturbed, num_fitting, tmp_path):
    settings, whole = undisturbed
    training, job = training_of(**settings), tiny.job(tmp_path)
    training.teacher.model.requires_grad_(False)
    with of_one_row(training, num_fitting):
        train(job, training)
    assert list(gave_way(training)) == list(ORDER[:num_fitting]) == job.notes[GAVE_WAY]
    assert job.notes["out of memory"][-num_fitting:] == [f"step 1: {change}" for change in ORDER[:num_fitting]]
    for ours, theirs in zip(curve(job), whole, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_what_gave_way_stays_so_when_a_training_goes_on(tmp_path):
    job, training = tiny.job(tmp_path), training_of()
    job.is_stopping = lambda: len(curve(job)) == 2
    with of_one_row(training, 2), pytest.raises(Interrupted):
        train(job, training)
    again = training_of()
    resumed, _ = trained(tmp_path, again)
    assert gave_way(again) == ORDER[:2]
    assert resumed.notes[GAVE_WAY] == list(ORDER[:2])


# what a reader is told


def worked(stage, root):
    """Has the inner process of a worker do a stage, in this process."""
    attempt = ordered(root, stage)
    worker.work(attempt, attempt.request, lambda: False)


def made_up_rows(root, student):
    """-> a committed stage of rows."""
    settings, store = KINDS["rows"].Settings(data={"source": "rows.jsonl"}), Store(root)
    stage = Stage("rows", 1, settings, {"student": student})
    attempt = store.claim(stage.key12)
    attempt.out.mkdir(parents=True)
    tokens.save(ROWS, attempt.out / "train.safetensors")
    tokens.save(lay([]), attempt.out / "holdout.safetensors")
    disk.write_json(attempt.out / "summary.json", {"vocabulary": tiny.VOCABULARY, "longest": max(LENGTHS)})
    disk.write_json(attempt.staging / "stage.json", {"payload": stage.payload, "provenance": {}})
    store.commit(attempt, stage.folder, None)
    return stage


def finetuning(root):
    """-> a fine-tuning whose model and rows are there."""
    path = tiny.save(root / "model")
    model = Stage(
        "fetch",
        1,
        KINDS["fetch"].Settings(source="local", repo_type="model", path=str(path), sha256=local_digest(path)),
    )
    worked(model, root)
    settings = KINDS["finetune"].Settings.model_validate(
        {"recipe": COMMON | {"max_steps": 4, "lora": LORA}, "dtype": "float32", "seed": 0}
    )
    return Stage("finetune", KINDS["finetune"].version, settings, {"model": model, "rows": made_up_rows(root, model)})


def plan_of(root, trained_stage):
    """-> a plan of one cell."""
    study = bench(root)
    row = study.plan().cells[-1].row
    inputs = {"model": trained_stage.inputs["model"], "adapter_0": trained_stage}
    return Plan(study.study, study.store, (Cell(row, 0, Stage("evaluate", 1, Work(name="x"), inputs), trained_stage),))


def test_the_results_say_of_a_row_that_memory_ran_out_and_what_was_changed(tmp_path, capsys):
    stage = finetuning(tmp_path)
    with smaller(Card()):
        worked(stage, tmp_path)
    plan = plan_of(tmp_path, stage)
    results = json.loads((write_report(plan) / "results.json").read_text())
    behind = [results["stages"][folder] for folder in results["cells"][0]["stages"]]
    notes = behind[-2]["provenance"]["notes"]["out of memory"]
    assert re.fullmatch(r"step 1: micro-batches of \d+ tokens halved to \d+", notes[0])
    assert results["cells"][0]["changed"] == [f"out of memory at {one}" for one in notes]
    page = (write_report(plan) / "report.md").read_text()
    assert all(f"out of memory at {one}" in page for one in notes)
    print_lineage(plan, plan.cells[0])
    assert notes[0] in capsys.readouterr().out


def test_what_was_changed_is_still_told_after_a_resume(tmp_path):
    stage = finetuning(tmp_path)
    first = ordered(tmp_path, stage)
    with smaller(Card()), pytest.raises(Interrupted):
        worker.work(first, first.request, lambda: len(list(read_metrics(first.metrics))) == 2)
    worked(stage, tmp_path)
    notes = disk.read_json(Store(tmp_path).folder(stage) / "stage.json")["provenance"]["notes"]
    assert "out of memory" in notes
