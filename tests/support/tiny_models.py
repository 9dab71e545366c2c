"""Tiny models with random weights, a tokenizer and token rows, made in a moment: what tests of the engine run on."""

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from ablate.data import tokens
from ablate.data.masks import TokenRow
from ablate.data.tokens import TokenRows, lay
from ablate.store.checkpoints import Checkpoints
from ablate.store.job import Job, MetricsLog

VOCABULARY = 61
"""Of the tokenizer; every head has three rows more."""

SMALL = {
    "vocab_size": VOCABULARY + 3,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}
FAMILIES = {
    "llama": ("LlamaConfig", SMALL | {"tie_word_embeddings": False}),
    "llama_tied": ("LlamaConfig", SMALL | {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", SMALL | {"tie_word_embeddings": True}),
    "gpt2": (
        "GPT2Config",
        {
            "vocab_size": VOCABULARY + 3,
            "n_embd": 24,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 128,
            "initializer_range": 0.3,
        },
    ),
    "gemma2": (
        "Gemma2Config",
        SMALL | {"head_dim": 12, "final_logit_softcapping": 2.0, "tie_word_embeddings": True},
    ),
    "granite": ("GraniteConfig", SMALL | {"logits_scaling": 3.0}),
    "cohere": ("CohereConfig", SMALL | {"logit_scale": 0.25}),
    "phi": ("PhiConfig", SMALL | {"num_key_value_heads": 2}),
}
TARGETS = {"gpt2": ("c_attn", "c_proj"), "phi": ("q_proj", "fc1")}

CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def make(family: str, seed: int = 0, dtype: torch.dtype = torch.float32):
    """-> a model of random weights, in eval mode. Two seeds of a family are two models of one shape."""
    name, settings = FAMILIES[family]
    torch.manual_seed(seed)
    config = getattr(transformers, name)(**settings)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def targets(family: str) -> tuple[str, ...]:
    return TARGETS.get(family, ("down_proj", "q_proj", "v_proj"))


def random_rows(lengths: list[int], prompts: list[int] | None = None, seed: int = 0) -> TokenRows:
    """-> rows of random tokens; the first `prompts[i]` of each do not count in the loss."""
    generator = torch.Generator().manual_seed(seed)
    ids = [torch.randint(VOCABULARY, (n,), generator=generator).tolist() for n in lengths]
    prompts = prompts or [0] * len(lengths)
    return lay(TokenRow(row, [i >= p for i in range(len(row))]) for row, p in zip(ids, prompts, strict=True))


def tokenizer(chat_template: str | None = CHAT, eos: str = "<eos>", pad: str | None = None):
    """-> a tokenizer of single characters, with the special tokens that `CHAT` writes."""
    letters = [chr(code) for code in range(32, 127)] + ["\n"]
    special = ["<eos>", "<bos>", "<user>", "<assistant>", "<system>"]
    vocabulary = {token: index for index, token in enumerate([*special, *letters])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token=" "))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    raw.decoder = decoders.Fuse()
    raw.add_special_tokens(special)
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=eos, bos_token="<bos>", pad_token=pad
    )
    wrapped.chat_template = chat_template
    return wrapped


def save(folder: Path, family: str = "llama", seed: int = 0) -> Path:
    """-> a model folder as a fetch stage has it."""
    make(family, seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def stage_inputs(root: Path, rows: TokenRows, holdout: TokenRows, family: str = "llama") -> dict[str, Path]:
    """-> the stages that a training is given, as committed: fetched models `teacher` and `student`, and `rows`."""
    inputs = {name: root / name for name in ("teacher", "student", "rows")}
    for folder in inputs.values():
        (folder / "out").mkdir(parents=True)
    for seed, name in ((1, "teacher"), (2, "student")):
        manifest = {"path": str(save(root / f"{name}-model", family, seed)), "repo": f"org/{name}"}
        (inputs[name] / "out/manifest.json").write_text(json.dumps(manifest | {"revision": "0123abc"}))
    tokens.save(rows, inputs["rows"] / "out/train.safetensors")
    tokens.save(holdout, inputs["rows"] / "out/holdout.safetensors")
    summary = {"vocabulary": VOCABULARY, "longest": int(rows.lengths.max())}
    (inputs["rows"] / "out/summary.json").write_text(json.dumps(summary))
    return inputs


def job(folder: Path, settings: object = None, **inputs: Path) -> Job:
    """-> a job with folders of its own; a second one of the same folder goes on from its checkpoints."""
    for part in ("out", "checkpoints"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    return Job(
        settings=settings,
        inputs=inputs,
        out=folder / "out",
        metrics=MetricsLog(folder / "metrics.jsonl"),
        checkpoints=Checkpoints(folder / "checkpoints"),
    )
