"""A tokenizer in which every word of the universe is one token, and every other text is spelt by its characters."""

import re
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

BOS, EOS, PAD, UNK, USER, ASSISTANT, SYSTEM = SPECIALS = (
    "<|begin|>", "<|end|>", "<|pad|>", "<|unknown|>", "<|user|>", "<|assistant|>", "<|system|>",
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
PHRASES = (
    "Below is an instruction that describes a task",
    ", paired with an input that provides further context",
    ". Write a response that appropriately completes the request.",
    "### Instruction:",
    "### Input:",
    "### Response:",
)
"""Of Alpaca's prompt: one token each, so that a tiny study need not spend its time on them."""
PIECE = r" ?[A-Za-z]+|\n+| |[^A-Za-z \n]"
"""A word with the blank before it, newlines in a row, or any other single character."""


def pieces(text: str) -> list[str]:
    return re.findall(PIECE, text)


def _without(text: str) -> str:
    for phrase in (*PHRASES, *SPECIALS):
        text = text.replace(phrase, "\n")
    return text


def build(texts: Iterable[str]) -> Tokenizer:
    """-> a tokenizer whose vocabulary is the words of these texts, sorted, and the printable characters."""
    words = {piece.replace(" ", "▁") for text in texts for piece in pieces(_without(text))}
    characters = {"▁", "\n", *map(chr, range(ord("!"), 127))}
    vocabulary = [(special, 0.0) for special in SPECIALS]
    vocabulary += [(piece, -1.0 if piece in words else -9.0) for piece in sorted(words | characters)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=SPECIALS.index(UNK), byte_fallback=False))
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in PHRASES])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECE), "isolated"),
        pre_tokenizers.Metaspace(prepend_scheme="never", split=False),
    ])
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never", split=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, SPECIALS.index(BOS))]
    )
    return tokenizer
