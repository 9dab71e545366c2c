"""Models and questions that are asked in trees, and what lm-eval asks one by one."""

import torch
import transformers

from support import tiny_models as tiny

BACKWARD = {"sliding_window": 24, "max_position_embeddings": 128}
PREAMBLE = "SOME QUESTIONS AND THEIR ANSWERS. "
"""Long enough to be run once for all."""

CHOICES = (" TEA", " TEA AND MILK", " A WALK", " A WALL", "A", "B", " TEA")

QUESTIONS = [f"QUESTION {'MANY ' * number}{number * 37}:" for number in range(5)]

ALONE = [(f"{question} THE LAST", f" WORD {number}") for number, question in enumerate(QUESTIONS)]

OTHERS = [
    ("", "NO CONTEXT"),
    ("", "<bos>ITS OWN BEGINNING"),
    ("<bos>A BEGINNING", " WRITTEN OUT"),
    ("SPACES AT THE END   ", "AND MORE"),
    ("LONGER THAN THE WINDOW " * 8, " OR SO"),
    ("LONGER THAN THE WINDOW " * 8, " BY MUCH"),
    ("NO", "CONTEXT IS LEFT" + "." * 113),
    ("ONE OF TWO CONTEXTS", " AND ONE ENDING"),
    ("THE OTHER CONTEXT", " AND ONE ENDING"),
    ("ONE OF TWO CONTEXTS", " AND ONE ENDING"),
]

OTHERWISE = {
    "mistral, short-sighted": ("MistralConfig", tiny.SMALL | BACKWARD),
    "gemma2, short-sighted": ("Gemma2Config", tiny.SMALL | BACKWARD | {"head_dim": 12}),
    "bloom": ("BloomConfig", {"vocab_size": 64, "hidden_size": 24, "n_layer": 2, "n_head": 2, "seq_length": 128}),
    "mamba": ("MambaConfig", {"vocab_size": 64, "hidden_size": 24, "num_hidden_layers": 2}),
    "mpt": ("MptConfig", {"vocab_size": 64, "d_model": 24, "n_layers": 2, "n_heads": 2, "max_seq_len": 2048}),
    "recurrent_gemma": ("RecurrentGemmaConfig", tiny.SMALL | {"lru_width": 24, "num_hidden_layers": 3}),
    "lfm2": ("Lfm2Config", tiny.SMALL | {"layer_types": ["conv", "full_attention"]}),
    "qwen3_next": (
        "Qwen3NextConfig",
        tiny.SMALL
        | {
            "head_dim": 12,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "layer_types": ["linear_attention", "full_attention"],
        }
        | {
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
    ),
}
"""Masks of their own, or none; a state beside attention; distances in the row."""


BRANCHING = [(question, choice) for question in QUESTIONS for choice in CHOICES]

ALL = [*BRANCHING, *ALONE, *OTHERS]

SHARING = tiny.FAMILIES | {
    "gemma2, attention capped": ("Gemma2Config", tiny.SMALL | {"head_dim": 12, "attn_logit_softcapping": 0.5}),
    "gpt_neox": ("GPTNeoXConfig", tiny.SMALL),
    "mixtral": ("MixtralConfig", tiny.SMALL | {"num_local_experts": 4}),
}


def make(name, seed=0):
    config, settings = (SHARING | OTHERWISE)[name]
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**settings)).float().eval()


def with_preamble(pairs):
    return [(PREAMBLE + context, continuation) for context, continuation in pairs]
