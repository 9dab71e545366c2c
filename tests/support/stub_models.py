"""Folders that a causal language model can be loaded from as far as names and headers of files tell."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file


def stub_model(folder: Path, num_weights: int = 1, **config: Any) -> Path:
    """-> the folder, with a config.json that says `config` too, one tensor of zeros, and an empty tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(kind | config))
    (folder / "tokenizer.json").write_text("{}")
    save_file({"w": np.zeros(num_weights, np.float32)}, folder / "model.safetensors")
    return folder
