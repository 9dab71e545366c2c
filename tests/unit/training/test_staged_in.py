"""A training whose models are copied to its node's disk makes, byte for byte, what it makes of the shared ones."""

import hashlib
import json
from pathlib import Path

import pytest
from support import tiny_models as tiny

from ablate.store import node_copies
from ablate.store.kind import KINDS

RECIPE = {"max_steps": 2, "batch_size": 2, "warmup_steps": 1, "lora": {"rank": 2, "target_modules": ["q_proj"]}}


@pytest.fixture
def inputs(tmp_path) -> dict[str, Path]:
    """Fetched models with their files listed, as a fetch stage lists them."""
    inputs = tiny.stage_inputs(tmp_path, tiny.random_rows([9, 7, 5, 8]), tiny.random_rows([7], seed=9))
    for name in ("teacher", "student"):
        path = inputs[name] / "out/manifest.json"
        manifest = json.loads(path.read_text())
        files = {file.name: file.read_bytes() for file in Path(manifest["path"]).iterdir()}
        listing = {name: {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()} for name, raw in files.items()}
        path.write_text(json.dumps(manifest | {"files": listing}))
    return inputs


def distilled(folder: Path, inputs: dict[str, Path]) -> dict[str, bytes]:
    kind, job = KINDS["distill"], tiny.job(folder)
    settings = {"recipe": RECIPE, "dtype": "float32", "seed": 0}
    job.settings, job.inputs = kind.Settings.model_validate(settings), inputs
    kind.run(job)
    return {path.name: path.read_bytes() for path in job.out.iterdir()} | {"notes": json.dumps(job.notes).encode()}


def test_a_training_from_copies_on_its_nodes_disk_is_that_from_the_shared_folder(inputs, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv(node_copies.PLACE, raising=False)
    monkeypatch.setattr(node_copies, "_in_use", {})
    shared = distilled(tmp_path / "shared", inputs)
    monkeypatch.setenv(node_copies.PLACE, str(tmp_path))
    assert distilled(tmp_path / "near", inputs) == shared
    assert capsys.readouterr().out.count("stage_in: copies") == 2
    assert len(list(tmp_path.glob("ablate-models-*/*/model.safetensors"))) == 2
