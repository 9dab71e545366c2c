"""What each token of a tokenizer stands for: its bytes, from the tokenizer's own file, whole characters or not."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Final

from ablate.core.errors import StageError

# a token's text has one character for each byte, U+0000 to U+00FF, or is one of these
BEGIN: Final = "\ue000"
"""Of a sequence."""
END: Final = "\ue001"
"""Of a sequence: whatever a tokenizer writes for it, it is the same in all of them."""
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_METASPACE = "▁"


@dataclass(frozen=True, eq=False)
class TokenTexts:
    """The tokens of one tokenizer, by id."""

    names: tuple[str, ...]
    """As its vocabulary writes them."""
    texts: tuple[str, ...]
    """A character for each byte."""
    added: frozenset[int]
    """Tokens beside the vocabulary, special ones among them."""

    @cached_property
    def by_kind(self) -> tuple[int, ...]:
        """-> the ids that stand for something, those of the vocabulary's words before those of single bytes."""
        ids = (i for i, text in enumerate(self.texts) if text)
        return tuple(sorted(ids, key=lambda i: (bool(_BYTE_TOKEN.fullmatch(self.names[i])), i)))


def token_texts(tokenizer: Any) -> TokenTexts:
    """-> what the tokens of a tokenizer stand for. Raises StageError for one in Python, which does not tell."""
    if not getattr(tokenizer, "is_fast", False):
        raise StageError(
            f"{type(tokenizer).__name__} has no tokenizer.json: it does not say which bytes its tokens are of, so that "
            "texts cannot be aligned by them"
        )
    added = tokenizer.added_tokens_decoder
    ids_by_name = dict(tokenizer.get_vocab())
    size = max([len(tokenizer), *(i + 1 for i in ids_by_name.values())])
    names, texts = [""] * size, [""] * size
    decoders = set(_decoders(json.loads(tokenizer.backend_tokenizer.to_str())))
    for name, token in ids_by_name.items():
        names[token] = name
        texts[token] = _latin(added[token].content) if token in added else _text(name, decoders)
    for text, token in ((BEGIN, tokenizer.bos_token_id), (END, tokenizer.eos_token_id)):  # one that is both ends
        if token is not None:
            texts[token] = text
    return TokenTexts(tuple(names), tuple(texts), frozenset(added))


def _decoders(raw: dict[str, Any]) -> Iterator[str]:
    """-> the types of a tokenizer's decoders; of its pre-tokenizers, where it has no decoder."""
    waiting = [raw.get("decoder") or raw.get("pre_tokenizer") or {}]
    while waiting:
        part = waiting.pop()
        waiting += [*(part.get("decoders") or ()), *(part.get("pretokenizers") or ())]
        is_space = part.get("type") == "Replace" and (part.get("pattern") or {}).get("String") == _METASPACE
        yield "Metaspace" if is_space else str(part.get("type"))


def _text(name: str, decoders: set[str]) -> str:
    if "ByteLevel" in decoders:
        bytes_of = _byte_level()
        return "".join(bytes_of.get(letter) or _latin(letter) for letter in name)
    byte = _BYTE_TOKEN.fullmatch(name) if "ByteFallback" in decoders else None
    if byte:
        return chr(int(byte[1], 16))
    return _latin(name.replace(_METASPACE, " ") if "Metaspace" in decoders else name)


def _latin(text: str) -> str:
    return text.encode("utf-8", errors="surrogatepass").decode("latin-1")


@cache
def _byte_level() -> dict[str, str]:
    """-> GPT-2's letter -> the byte that it stands for: printable ones for themselves, others from U+0100 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): chr(byte) for byte in plain} | {chr(256 + n): chr(byte) for n, byte in enumerate(others)}
