"""finetune and distill as stages: from fetched folders and token rows to an adapter that loads."""

import json
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from support import tiny_models as tiny

from ablate.core.errors import Diverged, StageError
from ablate.data import tokens
from ablate.data.steps import rows_of_step
from ablate.store.job import read_metrics
from ablate.store.kind import KINDS
from ablate.training.merging import merge
from ablate.training.models import load_merged
from ablate.training.trainable import FULL_WEIGHTS

LORA = {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj", "v_proj"]}
RECIPE = {"max_steps": 4, "batch_size": 4, "warmup_steps": 1, "lr": 1e-2, "lora": LORA}
IDS = torch.arange(12)[None]


@pytest.fixture
def inputs(tmp_path):
    return tiny.stage_inputs(tmp_path, tiny.random_rows([9, 17, 5, 12, 17, 3, 11, 8]), tiny.random_rows([7, 8], seed=9))


def run(folder, kind, recipe, inputs, dtype="float32", checks=None):
    stage = KINDS[kind]
    settings = stage.Settings.model_validate({"recipe": recipe, "dtype": dtype, "seed": 0})
    stage.run(replace(tiny.job(folder, settings, **inputs), checks=checks))
    stage.check(folder)
    return folder


def finetuned(folder, inputs, name="student", **recipe):
    chosen = {"model": inputs[name], "rows": inputs["rows"]}
    return run(folder, "finetune", RECIPE | recipe, chosen)


def test_a_fine_tuning_leaves_an_adapter_of_the_model_it_was_given(inputs, tmp_path):
    folder = finetuned(tmp_path / "ft", inputs)
    assert json.loads((folder / "out/adapter_config.json").read_text())["base_model_name_or_path"] == "org/student"
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "holdout.json",
    ]
    assert [record["step"] for record in read_metrics(folder / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_first_training_checks_the_device_and_comes_to_the_same_result(inputs, tmp_path):
    chosen = {"model": inputs["student"], "rows": inputs["rows"]}
    recipe = RECIPE | {"lora": LORA | {"dropout": 0.5}}
    checked = run(tmp_path / "a", "finetune", recipe, chosen, checks=tmp_path / "checks")
    unchecked = run(tmp_path / "b", "finetune", recipe, chosen)
    assert len(list((tmp_path / "checks").glob("*.json"))) == 1
    weights = [(folder / "out/adapter_model.safetensors").read_bytes() for folder in (checked, unchecked)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("more", [{}, {"use_dora": True, "use_rslora": True, "modules_to_save": ["embed_tokens"]}])
def test_a_distillation_of_fine_tuned_models_stacks_its_adapter_on_the_students(inputs, tmp_path, more):
    recipe = RECIPE | {"lora": LORA | more}
    teacher = finetuned(tmp_path / "teacher-ft", inputs, "teacher", **recipe)
    student = finetuned(tmp_path / "student-ft", inputs, **recipe | {"max_steps": 8})
    chosen = {name: inputs[name] for name in ("teacher", "student", "rows")}
    distilled = run(
        tmp_path / "kd", "distill", recipe, chosen | {"teacher_adapter": teacher, "student_adapter": student}
    )
    first = next(read_metrics(distilled / "metrics.jsonl"))
    untuned = next(read_metrics(run(tmp_path / "kd0", "distill", RECIPE, chosen) / "metrics.jsonl"))
    assert first["class_loss"] < untuned["class_loss"]
    merged = load_merged(tmp_path / "student-model", [student / "out", distilled / "out"], "float32")
    by_hand = tiny.make("llama", 2)
    merge(by_hand, [student / "out"])
    merge(by_hand, [distilled / "out"])
    in_peft = tiny.make("llama", 2)
    for adapter in (student, distilled):
        in_peft = PeftModel.from_pretrained(in_peft, adapter / "out").merge_and_unload()
    torch.testing.assert_close(merged.model(input_ids=IDS).logits, in_peft(input_ids=IDS).logits)
    torch.testing.assert_close(merged.model(input_ids=IDS).logits, by_hand(input_ids=IDS).logits)


def class_loss(model, rows, indices):
    """-> summed over the tokens of the rows."""
    total = 0.0
    for index in indices:
        ids = torch.tensor(rows.row(index)[0].tolist())
        logits = model(input_ids=ids[None]).logits[0, :-1, : tiny.VOCABULARY]
        total += float(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum").detach())
    return total


DORA = {"use_dora": True, "use_rslora": True}
KINDS_OF_LORA = {
    "lora": {},
    "dora": DORA,
    "all-linear": DORA | {"target_modules": "all-linear"},
    "pattern": {"target_modules": [r".*\.1\..*(up|q)_proj"], "modules_to_save": ["lm_head", "norm"]},
}


@pytest.mark.parametrize("kind", KINDS_OF_LORA)
def test_what_is_evaluated_is_what_was_trained(inputs, tmp_path, kind):
    # the third step's class loss is the one that the model exported after two steps has on its rows
    recipe = {"schedule": "constant", "lora": LORA | KINDS_OF_LORA[kind]}
    longer = finetuned(tmp_path / "longer", inputs, max_steps=3, **recipe)
    short = finetuned(tmp_path / "short", inputs, max_steps=2, **recipe)
    model = load_merged(tmp_path / "student-model", [short / "out"], "float32").model
    rows = tokens.load(inputs["rows"] / "out/train.safetensors")
    total = class_loss(model, rows, rows_of_step(3, len(rows), 4, True, 0))
    third = list(read_metrics(longer / "metrics.jsonl"))[2]
    assert third["class_loss"] == pytest.approx(total / third["tokens"], rel=1e-5)


@torch.no_grad()
def true_kls(student, teacher, rows):
    """-> (KL(p || q), KL(q || p)), means over all rows' tokens."""
    logs = []
    for model in (student, teacher):
        ids = [torch.tensor(rows.row(index)[0].tolist())[None] for index in range(len(rows))]
        logs.append(torch.cat([model.double()(input_ids=one).logits[0, :-1, : tiny.VOCABULARY] for one in ids]))
    q, p = (log.log_softmax(-1) for log in logs)
    return float((p.exp() * (p - q)).sum(-1).mean()), float((q.exp() * (q - p)).sum(-1).mean())


def test_held_out_rows_get_the_losses_of_the_finished_model(inputs, tmp_path):
    chosen = {name: inputs[name] for name in ("teacher", "student", "rows")}
    dropout = RECIPE | {"lora": LORA | {"dropout": 0.5}}
    folder = run(tmp_path / "kd", "distill", dropout, chosen)
    record = json.loads((folder / "out/holdout.json").read_text())
    model = load_merged(tmp_path / "student-model", [folder / "out"], "float32").model
    rows = tokens.load(inputs["rows"] / "out/holdout.safetensors")
    assert record["class_loss"] == pytest.approx(class_loss(model, rows, range(2)) / record["tokens"], rel=1e-5)
    teacher = load_merged(tmp_path / "teacher-model", [], "float32").model
    assert (record["forward_kl"], record["reverse_kl"]) == pytest.approx(true_kls(model, teacher, rows), rel=1e-5)
    assert record.keys() == {"class_loss", "forward_kl", "reverse_kl", "teacher_entropy", "tokens"}
    tuned = finetuned(tmp_path / "ft", inputs)
    assert json.loads((tuned / "out/holdout.json").read_text()).keys() == {"class_loss", "tokens"}


def test_rows_longer_than_a_models_positions_are_refused_before_training(inputs, tmp_path):
    summary = inputs["rows"] / "out/summary.json"
    summary.write_text(summary.read_text().replace("17", "129"))
    with pytest.raises(StageError, match=r"129 tokens and the student .* has 128 positions: set data\.max_length"):
        finetuned(tmp_path / "ft", inputs)


def test_training_every_weight_leaves_them_all(inputs, tmp_path):
    folder = finetuned(tmp_path / "ft", inputs, lora=None, lr=1e-3)
    weights = load_file(folder / "out" / FULL_WEIGHTS)
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    distilled = run(
        tmp_path / "kd",
        "distill",
        RECIPE,
        {name: inputs[name] for name in ("teacher", "student", "rows")} | {"student_adapter": folder},
        "bfloat16",
    )
    load_merged(tmp_path / "student-model", [folder / "out", distilled / "out"], "bfloat16")


def test_a_diverged_training_is_a_result_that_says_so(inputs, tmp_path):
    with pytest.raises(Diverged):
        finetuned(tmp_path / "ft", inputs, lr=1e30, warmup_steps=0)
    record = json.loads((tmp_path / "ft/out/diverged.json").read_text())
    assert record["step"] == len(list(read_metrics(tmp_path / "ft/metrics.jsonl")))
    assert [path.name for path in (tmp_path / "ft/out").iterdir()] == ["diverged.json"]
    chosen = {name: inputs[name] for name in ("teacher", "student", "rows")}
    with pytest.raises(StageError, match=r"its student diverged \(ft\)"):
        run(tmp_path / "kd", "distill", RECIPE, chosen | {"student_adapter": tmp_path / "ft"})


def broken(folder, change):
    file = folder / "out/adapter_model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file)


def test_a_result_that_lacks_something_is_not_committed(inputs, tmp_path):
    check = KINDS["finetune"].check
    folder = finetuned(tmp_path / "ft", inputs)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    for bad in (lines[1:], [lines[0], *lines], []):
        (folder / "metrics.jsonl").write_text("".join(bad))
        with pytest.raises(StageError, match="each step once"):
            check(folder)
    (folder / "metrics.jsonl").write_text("".join(lines))
    broken(folder, lambda weights: weights.update({name: w * float("nan") for name, w in weights.items()}))
    with pytest.raises(StageError, match="not finite"):
        check(folder)
    broken(folder, lambda weights: weights.update({name: w[:2, :2].contiguous() for name, w in weights.items()}))
    with pytest.raises(StageError, match="its rank is to be 4"):
        check(folder)
    (folder / "out/adapter_model.safetensors").unlink()
    with pytest.raises(StageError, match="no readable adapter"):
        check(folder)
