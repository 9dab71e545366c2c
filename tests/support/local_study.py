"""A study whose models and rows lie on this machine."""

from pathlib import Path

import pytest
import yaml

from support.stub_models import stub_model


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """A study of local models and rows; its questions alone are on the hub."""
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    for name in ("teacher", "student"):
        stub_model(tmp_path / name, name=name)
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n')
    data = {
        "name": "named",
        "data": {"source": "rows.jsonl"},
        "pairs": {"p": {"teacher": {"model": "./teacher"}, "student": {"model": "./student"}}},
        "evaluate": {"tasks": ["hellaswag"]},
        "ablations": {"ratio": {"grid": {"distill.kd_ratio": [0.25, 0.5]}}},
    }
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path
