"""How long the teacher takes from a warm disk to the device, ready to be asked."""

import time
from pathlib import Path
from typing import Any

from ablate.training.models import load_merged
from benchmarks import table
from benchmarks.card_sections import training_steps
from benchmarks.card_sections.sizes import Card


def measure(card: Card) -> dict[str, Any]:
    from transformers import AutoTokenizer

    from ablate.example import assets

    folder = Path(card.scratch) / "loaded"
    begun = time.perf_counter()
    training_steps.model(card, "teacher").save_pretrained(folder)
    AutoTokenizer.from_pretrained(assets() / "models" / "student", local_files_only=True).save_pretrained(folder)
    written = time.perf_counter() - begun
    num_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    seconds = [_loaded(folder, card) for _ in range(2)]
    return {"num_bytes": num_bytes, "seconds": seconds, "written_s": written}


def _loaded(folder: Path, card: Card) -> float:
    begun = time.perf_counter()
    load_merged(folder, [], card.dtype, card.device)
    return time.perf_counter() - begun


def show(measured: dict[str, Any]) -> str:
    num_bytes, seconds = measured["num_bytes"], measured["seconds"]
    rows = [[f"{num_bytes / 1e9:.2f}", *(f"{took:.2f} ({num_bytes / took / 1e9:.2f} GB/s)" for took in seconds)]]
    return table.markdown(["GB", "s, first", "s, again"], rows)
