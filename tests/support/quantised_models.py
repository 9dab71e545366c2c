"""A model that holds most of its weights in few bits, as a stage loads it."""

from pathlib import Path
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM

from ablate.training import models
from support import tiny_models as tiny


def quantised_model(folder: Path, form: str, num_layers: int = 4) -> Any:
    """-> a Llama whose layers outweigh its embedding by far, from files in a folder."""
    settings = tiny.SMALL | {"hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": num_layers}
    LlamaForCausalLM(LlamaConfig(**settings)).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return models.load_merged(folder, (), "bfloat16", quantize=form).model
