"""Two tokenizers of unlike families, trained in a moment: a byte-level BPE and a SentencePiece-like Unigram."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
import transformers
import yaml
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from ablate.data.plain_text import plain_tokens
from ablate.data.tokens import TokenRows, lay
from support import tiny_models as tiny

CORPUS = (
    "The lighthouse keeper counts seven slow ships; nobody remembers their names. 12 + 30 = 42, isn't it?",
    "Naïve façade, Zoë's café: crème brûlée für Straße. Один два три. 日本語の文章です。 안녕하세요 세계",
    "def f(x):\n\treturn x ** 2\n\n  # the answer  is 42 🙂🙂 👩‍👩‍👧 e\u0301 and A\u0301",
    "Below is an instruction that describes a task.\n\n### Instruction:\nName ten rivers.\n\n### Response:\nThe Nile",
)
TOOL = "<|tool|>"
"""An added token of both."""


@cache
def byte_level(size: int = 400, corpus: tuple[str, ...] = CORPUS, normalizer: str | None = None):
    """-> as GPT-2's, LLaMA 3's and Qwen's: every byte is a token; no begin of sequence; ends with <|end|>."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    if normalizer:
        raw.normalizer = getattr(normalizers, normalizer)()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=alphabet)
    )
    raw.add_special_tokens(["<|end|>", "<|pad|>"])
    raw.add_tokens([AddedToken(TOOL, normalized=False)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>", pad_token="<|pad|>")


@cache
def metaspace(size: int = 300, corpus: tuple[str, ...] = CORPUS):
    """-> as LLaMA 2's, Mistral's and Gemma's: ▁ for a space, one written before all, bytes for what it does not know.

    It begins with <s> and ends with </s>.
    """
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained = Tokenizer(models.BPE())  # its pieces alone: a Unigram's training is not the same in every process
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trained.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    names = sorted(trained.get_vocab(), key=trained.get_vocab().get)
    words = [name for name in names if len(name) != 1 or ord(name) < 0x2E80]
    pieces = [(name, 0.0) for name in specials] + [(name, -10 - rank / 1000) for rank, name in enumerate(words)]
    raw = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    raw.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    raw.add_special_tokens(["<unk>", "<s>", "</s>"])
    raw.add_tokens([AddedToken(TOOL, normalized=False)])
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def num_bytes(tokenizer, name: str) -> int:
    """-> of a token's text, from how the two families write tokens; an added token is of ASCII."""
    if tokenizer is not metaspace():
        return len(name)  # a letter of GPT-2's alphabet is a byte
    return 1 if name.startswith("<0x") else len(name.replace("▁", " ").encode())


def model(tokenizer, seed: int, width: int = 24):
    """-> a model of random weights for a tokenizer, in eval mode; its head has three rows more."""
    torch.manual_seed(seed)
    settings = tiny.SMALL | {"vocab_size": len(tokenizer) + 3, "hidden_size": width, "max_position_embeddings": 1024}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = transformers.LlamaConfig(**settings, **ends, tie_word_embeddings=False)
    return transformers.LlamaForCausalLM(config).eval()


def rows_of(tokenizer, texts: Sequence[str] = CORPUS) -> TokenRows:
    """-> a question and an answer each, whose tokens alone count."""
    return lay(plain_tokens(tokenizer, "Q: what?\n", text, train_on_prompt=False) for text in texts)


def save_model(folder: Path, tokenizer, seed: int, width: int = 24) -> Path:
    model(tokenizer, seed, width).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def study(folder: Path, **parts) -> Path:
    """-> a study of a SentencePiece-like teacher and a byte-level student on a few rows of many scripts."""
    save_model(folder / "teacher", metaspace(), 1, width=32)
    save_model(folder / "student", byte_level(), 2)
    rows = [{"instruction": f"Say it {n} times", "input": "", "output": text} for n in range(3) for text in CORPUS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "name": "two",
        "dtype": "float32",
        "data": {"source": "rows.jsonl", "train_on_prompt": False, "holdout": 2},
        "pairs": {"p": {role: {"model": f"./{role}"} for role in ("teacher", "student")}},
        "train": {"max_steps": 3, "batch_size": 4, "warmup_steps": 1, "lr": 3e-3, "lora": {"rank": 4, "alpha": 8}},
        "evaluate": {"tasks": ["tiny_letters"], "limit": 4, "include_path": "builtin:tiny/tasks", "allow_code": True},
        "ablations": {"loss": {"grid": {"distill.loss": ["gold", "uld", "dskd"]}}},
    }
    path = folder / "two.yaml"
    path.write_text(yaml.safe_dump(settings | parts, sort_keys=False))
    return path
