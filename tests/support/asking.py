"""Tasks of our own in a folder, and evaluate stages run in this process: what tests of the evaluation share."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import LlamaConfig, LlamaForCausalLM

from ablate.core import local_files
from ablate.evaluation.forest_scorer import Response
from ablate.evaluation.model import SharingLM
from ablate.evaluation.written_texts import NamedText
from ablate.stages.evaluate import Evaluate, EvaluateSettings
from ablate.store.job import Job
from ablate.study.catalog import lm_eval_version
from ablate.study.evaluation_settings import Evaluate as Recipe
from ablate.study.training_recipes import Lora
from ablate.training import adapters as lora
from support import tiny_models

ENDINGS = """
task: own_endings
dataset_path: json
dataset_kwargs: {data_files: {train: data/train.jsonl, test: data/test.jsonl}}
training_split: train
fewshot_split: train
test_split: test
output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: "{{endings}}"
doc_to_target: "{{label}}"
metric_list:
- {metric: acc, aggregation: mean, higher_is_better: true}
- {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 2.5}
"""
LETTERS = ENDINGS.replace("own_endings", "own_letters").replace("{{endings}}", "{{['A', 'B', 'C']}}")
GROUP = """
group: own
task: [own_endings, own_letters]
aggregate_metric_list: [{metric: acc, weight_by_size: true}]
"""


def write_tasks(folder: Path, **files: str) -> Path:
    """-> a folder with the tasks own_endings and own_letters, their group own, and further task files."""
    (folder / "data").mkdir(parents=True)
    for name, text in {"endings": ENDINGS, "letters": LETTERS, "group": GROUP, **files}.items():
        (folder / f"{name}.yaml").write_text(text)
    for split, number in (("train", 5), ("test", 9)):
        rows = [question(split, index) for index in range(number)]
        (folder / "data" / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def question(split: str, index: int) -> dict[str, Any]:
    names = ("Ada", "Bo", "Cy")
    return {
        "context": f"{names[index % 3]} of {split} {index} likes",
        "endings": [f"tea {index}", f"warm milk and {index} cakes", "a walk"],
        "label": index * 7 % 3,
        "cluster": names[index % 3],
    }


def save_model(folder: Path, seed: int = 0) -> Path:
    """-> a model folder whose embedding holds every letter of the tiny tokenizer."""
    tokenizer = tiny_models.tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(**tiny_models.SMALL | {"vocab_size": len(tokenizer) + 3, "max_position_embeddings": 256})
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def fetched(folder: Path, path: Path, repo: str | None = None) -> Path:
    """-> the folder of a fetch stage that points to a folder on this disk."""
    (folder / "out").mkdir(parents=True)
    files = {
        name: {"sha256": sha} for name, sha in local_files.file_digests(path, local_files.visible_files(path)).items()
    }
    manifest = {"path": str(path), "repo": repo, "revision": None, "trust_remote_code": False, "files": files}
    (folder / "out" / "manifest.json").write_text(json.dumps(manifest))
    return folder


def evaluation_inputs(root: Path, model: Path) -> dict[str, Path]:
    """-> the stages that an evaluation of our own tasks is given: a model folder and the tasks, fetched."""
    tasks = write_tasks(root / "tasks")
    return {"model": fetched(root / "fetched", model), "include": fetched(root / "included", tasks)}


def adapter(model: Path, folder: Path, seed: int = 1, **settings: Any) -> Path:
    """-> the folder of a training whose adapter says something."""
    from transformers import AutoModelForCausalLM

    recipe = Lora(**{"rank": 2, "alpha": 4.0, "target_modules": ("q_proj", "v_proj")} | settings)
    attached = lora.attach(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), recipe, seed)
    torch.manual_seed(seed)
    for one in attached.values():
        torch.nn.init.normal_(one.lora_B, std=0.3)
    (folder / "out").mkdir(parents=True)
    lora.save(folder / "out", attached, recipe, lora.Origin())
    return folder


def evaluated(
    folder: Path, inputs: Mapping[str, Path], *, is_stopping: Callable[[], bool] = lambda: False, **recipe: Any
) -> dict[str, Any]:
    """Runs and checks an evaluate stage in a folder, from its checkpoints where it has some. -> results.json."""
    settings = EvaluateSettings(recipe=Recipe(**{"dtype": "float32"} | recipe), lm_eval=lm_eval_version())
    job = tiny_models.job(folder, settings, **inputs)
    return run(folder, job, is_stopping)


def run(folder: Path, job: Job, is_stopping: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    job.is_stopping, job.progress_path = is_stopping, folder / "progress.json"
    Evaluate().run(job)
    Evaluate().check(folder)
    return json.loads((folder / "out" / "results.json").read_text())


def samples(folder: Path, task: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "samples" / f"{task}.jsonl").read_text().splitlines()]


@dataclass
class Ear:
    """Hears the answers of a model as they come."""

    answered: dict[int, Response] = field(default_factory=dict)
    num_of_lm_evals: int = 0
    """Answers that lm-eval's own class gave."""
    notes: dict[str, str] = field(default_factory=dict)

    def known_responses(self) -> Mapping[int, Response]:
        return {}

    def on_responses(self, responses: Mapping[int, Response]) -> None:
        self.answered |= responses

    def on_texts(self, texts: Sequence[NamedText]) -> None:
        self.num_of_lm_evals += len(texts)

    def on_lm_eval_response(self) -> None:
        self.num_of_lm_evals += 1

    def note(self, name: str, what: str) -> None:
        self.notes[name] = what


def instances(pairs: Sequence[tuple[str, str]]) -> list[Instance]:
    return [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]


def agree(model: Any, tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> Ear:
    """Has lm-eval's class and ours answer the same requests, one by one and together. -> what was heard of ours."""
    ear, asked = Ear(), instances(pairs)
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1).loglikelihood(asked, disable_tqdm=True)
    ours = SharingLM(model, tokenizer, 4, ear).loglikelihood(asked)
    assert [answer[0] for answer in ours] == pytest.approx([answer[0] for answer in theirs], rel=0, abs=1e-4)
    assert [answer[1] for answer in ours] == [answer[1] for answer in theirs]
    return ear
