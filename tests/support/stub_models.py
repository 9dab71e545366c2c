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


def stub_layers(folder: Path, width: int, num_layers: int = 2, vocabulary: int = 100) -> None:
    """Gives a folder the weights of a Llama's layers, in place of what it had."""
    shapes = {"embed_tokens.weight": (vocabulary, width), "norm.weight": (width,)}
    for layer in range(num_layers):
        attention = {f"self_attn.{name}_proj": (width, width) for name in "qkvo"}
        mlp = {"gate_proj": (4 * width, width), "up_proj": (4 * width, width), "down_proj": (width, 4 * width)}
        modules = attention | {f"mlp.{name}": shape for name, shape in mlp.items()}
        modules |= {"input_layernorm": (width,), "post_attention_layernorm": (width,)}
        shapes |= {f"layers.{layer}.{name}.weight": shape for name, shape in modules.items()}
    named = {f"model.{name}": shape for name, shape in shapes.items()} | {"lm_head.weight": (vocabulary, width)}
    save_file({name: np.zeros(shape, np.float32) for name, shape in named.items()}, folder / "model.safetensors")
