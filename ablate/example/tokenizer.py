"""A tokenizer in which every word of the universe is one token, and any other text is spelt by its characters."""

import re
from collections.abc import Iterable
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

BOS: Final = "<|begin|>"
EOS: Final = "<|end|>"
PAD: Final = "<|pad|>"
UNK: Final = "<|unknown|>"
SPECIALS: Final = (BOS, EOS, PAD, UNK, "<|user|>", "<|assistant|>", "<|system|>")
BOS_ID, EOS_ID, PAD_ID, UNK_ID = range(4)
CHAT_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
PHRASES: Final = (
    "Below is an instruction that describes a task",
    ", paired with an input that provides further context",
    ". Write a response that appropriately completes the request.",
    "### Instruction:",
    "### Input:",
    "### Response:",
)
"""Of Alpaca's prompt: one token each, so that a tiny study need not spend half of its time on them."""
PIECE: Final = r" ?[A-Za-z]+|\n+| |[^A-Za-z \n]"
"""A word with the blank before it, newlines in a row, or any other single character."""


def build(texts: Iterable[str]) -> Tokenizer:
    """-> a tokenizer whose vocabulary is the words of these texts, sorted, and the printable characters."""
    words = {piece.replace(" ", "▁") for text in texts for piece in re.findall(PIECE, _without_phrases(text))}
    characters = {"▁", "\n", *map(chr, range(ord("!"), ord("~") + 1))}
    scores = [(special, 0.0) for special in SPECIALS]
    scores += [(piece, -1.0 if piece in words else -9.0) for piece in sorted(words | characters)]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=UNK_ID, byte_fallback=False))
    tokenizer.add_special_tokens(list(SPECIALS))
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in PHRASES])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECE), "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="never", split=False),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never", split=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, BOS_ID)]
    )
    return tokenizer


def _without_phrases(text: str) -> str:
    for phrase in (*PHRASES, *SPECIALS):
        text = text.replace(phrase, "\n")
    return text
