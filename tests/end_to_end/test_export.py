import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from support import asking, tiny_models
from support.at_hub import fetched

from ablate.core import disk
from ablate.core.errors import AblateError
from ablate.core.hub import Repo
from ablate.export import export_cell
from ablate.planning.builder import make_plan
from ablate.stages.evaluate import Evaluate
from ablate.store.hub_lock import Pins
from ablate.store.store import Store
from ablate.study.cells import rows
from ablate.study.load import load

STUDENT = "meta-llama/Llama-3.2-1B-Instruct"
DATA = {
    "truthfulqa_mc2": "truthfulqa/truthful_qa",
    "hellaswag": "Rowan/hellaswag",
    "commonsense_qa": "tau/commonsense_qa",
}


def _plan(folder: Path, student: str, evaluate: dict, revisions: dict | None = None, overrides=()):
    (folder / "rows.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n')
    model = {"model": student}
    study = {
        "name": "s",
        "dtype": "float32",
        "data": {"source": "rows.jsonl"},
        "pairs": {"p": {"teacher": model, "student": model}},
        "finetune": {"lora": {"rank": 2, "alpha": 4, "target_modules": ["q_proj", "v_proj"]}},
        "evaluate": evaluate,
        "ablations": {
            "a": {"grid": {"distill.lr": [1e-3, 1e-4]}, "references": ["student/baseline", "student/finetuned"]}
        },
    }
    (folder / "s.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    study = load(folder / "s.yaml", overrides)
    return make_plan(study, rows(study), Pins(revisions or {}, {}, ()), Store(folder))


def _cell(plan, row="student/finetuned"):
    return next(cell for cell in plan.cells if cell.row.name == row)


def _commit(store, stage, fill: Callable[[Path], None]) -> Path:
    attempt = store.claim(stage.key12)
    attempt.out.mkdir(parents=True)
    fill(attempt.out)
    disk.write_json(
        attempt.staging / "stage.json", {"payload": stage.payload, "settings": stage.settings.model_dump(mode="json")}
    )
    assert store.commit(attempt, stage.folder, None)
    return store.folder(stage)


def _commit_fetch(store, stage, path: Path) -> Path:
    manifest = {"path": str(path), "repo": stage.settings.repo, "files": {}}
    return _commit(store, stage, lambda out: disk.write_json(out / "manifest.json", manifest))


def _commit_adapter(store, stage, model: Path, folder: Path) -> Path:
    adapter = asking.adapter(model, folder)
    return _commit(store, stage, lambda out: [disk.link(path, out / path.name) for path in (adapter / "out").iterdir()])


@pytest.fixture
def tiny(tmp_path):
    """The plan of a study of a tiny local model, its fine-tuned student's parts committed."""
    model = asking.save_model(tmp_path / "model")
    plan = _plan(
        tmp_path, "./model", {"tasks": ["own_endings"], "include_path": str(asking.write_tasks(tmp_path / "tasks"))}
    )
    inputs = _cell(plan).evaluate.inputs
    _commit_fetch(plan.store, inputs["model"], model)
    _commit_adapter(plan.store, inputs["adapter_0"], model, tmp_path / "made")
    return plan


def test_an_export_is_the_base_with_its_adapters_merged_and_its_tokenizer_as_it_was(tmp_path, tiny):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ablate.training.models import load_merged

    export_cell(tiny, _cell(tiny), tmp_path / "new" / "export")
    folder = tmp_path / "new" / "export"
    wanted = load_merged(tmp_path / "model", [tmp_path / "made" / "out"], "float32").model.state_dict()
    exported = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert exported.keys() == wanted.keys()
    assert all(exported[name].equal(wanted[name]) for name in wanted)
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == tiny_models.tokenizer().get_vocab()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (folder / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    assert not list(folder.parent.glob(".*"))


def test_the_model_card_says_what_it_was_made_of_and_what_it_scored(tmp_path, tiny):
    cell = _cell(tiny)
    export_cell(tiny, cell, tmp_path / "before")
    assert "Not evaluated yet." in (tmp_path / "before" / "README.md").read_text()
    results = {
        "lm_eval": "9.9",
        "batch_size": 16,
        "limit": 100,
        "tasks": {"own_endings": {"n": 9, "metrics": {"acc": {"value": 0.5, "stderr": 0.1}}}},
    }
    _commit(tiny.store, cell.evaluate, lambda out: disk.write_json(out / "results.json", results))
    export_cell(tiny, cell, tmp_path / "after")
    card = (tmp_path / "after" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "transformers"
    assert "Cell `s:a/student/finetuned@0`" in card
    assert cell.evaluate.inputs["adapter_0"].folder in card
    assert "lora.rank 2" in card
    assert "the first 100 questions of each task" in card
    assert "| own_endings | acc | 0.5 | 0.1 | 9 |" in card


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, tiny):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(AblateError, match="full has something in it"):
        export_cell(tiny, _cell(tiny), tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]
    with pytest.raises(AblateError, match="is a file"):
        export_cell(tiny, _cell(tiny), tmp_path / "full" / "mine")


def test_a_model_that_is_not_made_is_told(tmp_path, tiny):
    with pytest.raises(AblateError, match=r"a/lr=0\.001@0 is not made yet: distill"):
        export_cell(tiny, _cell(tiny, "lr=0.001"), tmp_path / "export")
    assert not (tmp_path / "export").exists()


@pytest.mark.hub
def test_the_lm_eval_command_on_an_export_gives_the_cells_numbers(plain_hub, tmp_path):
    model = fetched(plain_hub, tmp_path / "model", repo=STUDENT)
    data = {repo: fetched(plain_hub, tmp_path / repo, repo=repo, repo_type="tasks") for repo in DATA.values()}
    revisions = {Repo("model", STUDENT): model["revision"]} | {
        Repo("dataset", r): manifest["revision"] for r, manifest in data.items()
    }
    plan = _plan(tmp_path, STUDENT, {"tasks": list(DATA), "limit": 12}, revisions)
    cell = _cell(plan)
    folders = {
        name: _commit_fetch(plan.store, stage, Path((data | {STUDENT: model})[stage.settings.repo]["path"]))
        for name, stage in cell.evaluate.inputs.items()
        if stage.kind == "fetch"
    }
    adapter = cell.evaluate.inputs["adapter_0"]
    folders["adapter_0"] = _commit_adapter(plan.store, adapter, Path(model["path"]), tmp_path / "made")
    ours = asking.run(tmp_path / "stage", tiny_models.job(tmp_path / "stage", cell.evaluate.settings, **folders))

    export_cell(plan, cell, tmp_path / "export")
    command = f"--model hf --model_args pretrained={tmp_path / 'export'},dtype=float32 --batch_size 16 --limit 12"
    lm_eval = [
        Path(sys.executable).with_name("lm_eval"),
        *command.split(),
        "--device",
        "cpu",
        "--tasks",
        ",".join(DATA),
    ]
    subprocess.run(
        [*lm_eval, "--output_path", tmp_path / "theirs"], env=plain_hub.env(), check=True, capture_output=True
    )
    (path,) = (tmp_path / "theirs").rglob("results_*.json")
    theirs = json.loads(path.read_text())
    assert sorted(ours["tasks"]) == sorted(DATA)
    for task, result in ours["tasks"].items():
        assert result["n"] == 12
        for metric, score in result["metrics"].items():
            assert score["value"] == pytest.approx(theirs["results"][task][f"{metric},none"], abs=1e-6)
            assert score["stderr"] == pytest.approx(theirs["results"][task][f"{metric}_stderr,none"], abs=1e-6)
    Evaluate().check(tmp_path / "stage")


@pytest.mark.parametrize("form", ["nf4", "int8"])
def test_a_student_on_a_quantised_base_is_exported_in_16_bits_as_it_is_evaluated(tmp_path, form):
    from transformers import AutoModelForCausalLM

    from ablate.training.models import load_merged

    model = asking.save_model(tmp_path / "model")
    tasks = {"tasks": ["own_endings"], "include_path": str(asking.write_tasks(tmp_path / "tasks"))}
    plan = _plan(tmp_path, "./model", tasks | {"dtype": "bfloat16"}, overrides=[f"pairs.p.student.quantize={form}"])
    cell = _cell(plan)
    _commit_fetch(plan.store, cell.evaluate.inputs["model"], model)
    made = _commit_adapter(plan.store, cell.evaluate.inputs["adapter_0"], model, tmp_path / "made")
    export_cell(plan, cell, tmp_path / "export")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype="auto").eval()
    evaluated = load_merged(model, (), "bfloat16", quantize=form, trainings=[made / "out"]).model
    ids = torch.arange(12)[None]
    assert {weight.dtype for weight in exported.parameters()} == {torch.bfloat16}
    assert torch.equal(exported(ids).logits, evaluated(ids).logits)
    assert f"were kept in {form}" in (tmp_path / "export" / "README.md").read_text()
