"""Llamas of any size with random weights: the same files for every contender."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch

HEAD_WIDTH = 64
MLP_STEP = 32


class Size(NamedTuple):
    """As `LAYERSxWIDTH`: 10x640."""

    layers: int
    width: int

    @classmethod
    def parse(cls, text: str) -> "Size":
        layers, width = text.split("x")
        return cls(int(layers), int(width))


def config(size: Size, vocabulary: int, mlp: float, rope_factor: float, *, is_tied: bool) -> Any:
    """-> a config with the proportions of Llama 3: four or more queries a key, heads of 64, of 128 from 4,096 on."""
    from transformers import LlamaConfig

    heads = size.width // (HEAD_WIDTH * (1 if size.width < 4096 else 2))
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=size.width,
        intermediate_size=math.ceil(size.width * mlp / MLP_STEP) * MLP_STEP,
        num_hidden_layers=size.layers,
        num_attention_heads=heads,
        num_key_value_heads=max(n for n in range(1, max(1, heads // 4) + 1) if heads % n == 0),
        max_position_embeddings=131_072,
        rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": rope_factor,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        tie_word_embeddings=is_tied,
    )


def save_pair(folder: Path, teacher: Size, student: Size, vocabulary: int, dtype: str, device: str, seed: int) -> None:
    """Writes `teacher` (proportions of Llama 3.1 8B) and `student` (of Llama 3.2 1B: a wider MLP, a tied head)."""
    configs = {
        "teacher": config(teacher, vocabulary, 3.5, 8.0, is_tied=False),
        "student": config(student, vocabulary, 4.0, 32.0, is_tied=True),
    }
    for number, (name, settings) in enumerate(configs.items()):
        save(folder / name, settings, dtype, device, seed + number)
    if device != "cpu":
        torch.cuda.empty_cache()


def save(folder: Path, settings: Any, dtype: str, device: str, seed: int) -> None:
    """Writes a model of random weights."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    with torch.device(device):
        AutoModelForCausalLM.from_config(settings, dtype=getattr(torch, dtype)).save_pretrained(folder)


def load(folder: Path, dtype: str, device: str) -> Any:
    """-> a frozen model in eval mode, in memory of its own: a mapped file would not count until it is read."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), local_files_only=True, device_map=None if device == "cpu" else device
    )
    for parameter in model.parameters() if device == "cpu" else ():
        parameter.data = parameter.data.clone()
    return model.requires_grad_(False).eval()
