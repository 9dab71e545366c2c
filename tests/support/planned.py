"""The tutorial's study planned offline, with the sizes of its real models and rows: no weight is ever read."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from ablate.core import disk
from ablate.planning.builder import make_plan
from ablate.planning.plan import Plan
from ablate.store.hub_lock import Pins
from ablate.store.stage import Stage
from ablate.store.store import Store
from ablate.study.cells import Row, rows
from ablate.study.load import load
from ablate.study.schema import Study
from ablate.study.sources import repositories
from support.paths import STUDIES

TUTORIAL = STUDIES / "kd_llama.yaml"
# weights, then what config.json says
MODELS = {
    "meta-llama/Llama-3.1-8B-Instruct": (8_030_261_248, 4096, 128_256, False, 32, 14_336, 32, 8),
    "meta-llama/Llama-3.2-1B-Instruct": (1_235_814_400, 2048, 128_256, True, 16, 8192, 32, 8),
    "Qwen/Qwen2-1.5B-Instruct": (1_543_714_304, 1536, 151_936, True, 28, 8960, 12, 2),
    "Qwen/Qwen2-0.5B-Instruct": (494_032_768, 896, 151_936, True, 24, 4864, 14, 2),
}
CONFIG = (
    "hidden_size",
    "vocab_size",
    "tie_word_embeddings",
    "num_hidden_layers",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
)
TRAIN = {"rows": 51_760, "tokens": 10_900_000, "loss_tokens": 10_900_000, "without_loss": 0}


def tutorial_plan(root: Path, *overrides: str, is_fetched: bool = True) -> Plan:
    """-> the plan of studies/kd_llama.yaml once its models and rows are there, or before; nothing else is done."""
    return offline_plan(load(TUTORIAL, overrides), root, is_fetched=is_fetched)


def offline_plan(study: Study, root: Path, *, is_fetched: bool = True, row_notes: Sequence[str] = ()) -> Plan:
    """-> the plan of a study of these models, likewise; `row_notes`: what was odd about its rows."""
    store, lines = Store(root), rows(study)
    pins = pins_of(lines)
    for kind in ("fetch", "rows") if is_fetched else ():
        for stage in make_plan(study, lines, pins, store).stages:
            if stage.kind == kind and not store.done(stage):
                _make(root, store, stage, row_notes)
    return make_plan(study, lines, pins, store)


def pins_of(lines: Sequence[Row]) -> Pins:
    """-> made-up revisions of all that the rows of tables name."""
    return Pins(dict.fromkeys(repositories(lines), "0" * 40), {}, ())


def _make(root: Path, store: Store, stage: Stage, row_notes: Sequence[str]) -> None:
    if stage.kind == "fetch":
        path = _model(root, stage.settings.repo)
        files = {file.name: {"size": file.stat().st_size, "sha256": ""} for file in path.iterdir()}
        return commit(store, stage, manifest={"path": str(path), "files": files})
    summary = {"train": TRAIN, "holdout": TRAIN | {"rows": 0, "tokens": 0, "loss_tokens": 0}}
    return commit(store, stage, stage.key, notes={"rows": [*row_notes]}, summary=summary)


def _model(root: Path, repo: str) -> Path:
    """A folder with a config.json and the header of a safetensors file, for what is a model."""
    folder = root / "models" / repo
    folder.mkdir(parents=True, exist_ok=True)
    num_weights, *sizes = MODELS.get(repo, (0, *CONFIG))
    disk.write_json(folder / "config.json", dict(zip(CONFIG, sizes, strict=True)))
    if repo in MODELS:
        sizes_by_name = dict(zip(CONFIG, sizes, strict=True))
        header = json.dumps(_tensors(num_weights, sizes_by_name["num_hidden_layers"])).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


def _tensors(num_weights: int, num_layers: int) -> dict[str, object]:
    """-> header of a file: half of the weights in layers."""
    of_layer = num_weights // 2 // num_layers
    numbers = {f"model.layers.{number}.weights": of_layer for number in range(num_layers)}
    numbers["model.weights"] = num_weights - num_layers * of_layer
    return {name: {"dtype": "BF16", "shape": [num], "data_offsets": [0, 0]} for name, num in numbers.items()}


def finish(plan: Plan) -> None:
    """Commits results for all stages whose keys are final, as if each had been worked on."""
    for stage in plan.stages:
        if plan.store.done(stage) or stage.is_provisional:
            continue
        if stage.kind == "fetch":
            path = Path(stage.settings.path)
            files = [file for file in path.rglob("*") if file.is_file()]
            sizes = {file.relative_to(path).as_posix(): {"size": file.stat().st_size, "sha256": ""} for file in files}
            commit(plan.store, stage, manifest={"path": str(path), "files": sizes})
        elif stage.kind == "rows":
            commit(plan.store, stage, stage.key, summary={"train": TRAIN, "holdout": TRAIN | {"rows": 0}})
        elif stage.kind == "evaluate":
            task = {"version": 1, "n": 0, "num_fewshot": 0, "questions": "", "prompts": "", "finer": {}}
            scores = {"metrics": {"acc": {"value": 0.5, "stderr": 0.1}}, "higher_is_better": {"acc": True}}
            tasks = dict.fromkeys(stage.settings.recipe.task_names, task | scores)
            commit(plan.store, stage, results={"lm_eval": stage.settings.lm_eval, "tasks": tasks})
        else:
            commit(plan.store, stage)


def commit(
    store: Store,
    stage: Stage,
    content: str | None = None,
    seconds: float = 1.0,
    notes: Mapping[str, object] | None = None,
    device: str = "a processor",
    place: Mapping[str, object] | None = None,
    **files: object,
) -> None:
    """Commits a result without making it: files in out/ as JSON."""
    attempt = store.claim(stage.key12)
    attempt.out.mkdir(parents=True)
    for name, value in files.items():
        disk.write_json(attempt.out / f"{name}.json", value)
    provenance = (
        {"seconds": seconds, "attempts": 1, "device": device} | ({"notes": notes} if notes else {}) | dict(place or {})
    )
    disk.write_json(attempt.staging / "stage.json", {"payload": stage.payload, "provenance": provenance})
    store.commit(attempt, stage.folder, content)
