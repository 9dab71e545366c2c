"""Two tokenizers of unlike families, trained in a moment: a byte-level BPE and a SentencePiece-like Unigram."""

from functools import cache

import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

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
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trained.train_from_iterator(
        corpus, trainers.UnigramTrainer(vocab_size=size, show_progress=False, unk_token="<unk>", special_tokens=["<unk>"])
    )
    import json

    pieces = [(piece, score) for piece, score in json.loads(trained.to_str())["model"]["vocab"] if len(piece) != 1 or ord(piece) < 0x2E80]
    pieces = [(name, 0.0) for name in specials] + [(piece, score) for piece, score in pieces if piece not in specials]
    raw = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    raw.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])
    raw.add_special_tokens(["<unk>", "<s>", "</s>"])
    raw.add_tokens([AddedToken(TOOL, normalized=False)])
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
