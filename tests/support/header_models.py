"""Models of real shapes on disk as far as a plan looks: config.json, and the headers of safetensors without numbers."""

import json
import struct
from pathlib import Path
from typing import Any


def header_model(folder: Path, model: Any) -> None:
    """Leaves what `plan` reads of a model on the meta device, in the place of what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    (folder / "tokenizer.json").write_text("{}")
    weights = {
        name: {"dtype": "BF16", "shape": list(weight.shape), "data_offsets": [0, 0]}
        for name, weight in model.named_parameters()
    }
    header = json.dumps(weights).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
