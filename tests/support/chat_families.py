"""Chat templates of seven families, written anew in their documented formats, with tokenizers that cut as theirs do."""

import random
from functools import cache
from pathlib import Path
from typing import NamedTuple

import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

FOLDER = Path(__file__).parent / "chat_templates"

CORPUS = [
    "the cat and the dog play hockey in Bergen\n\nand ski\n  user assistant model system name arguments parameters",
    '{"name": "weather", "arguments": {"town": "Bergen", "days": 3}}\n\n\n   ',
    "Ünïcödé naïve façade 日本語 العربية 🙂🎿",
] * 4


class Family(NamedTuple):
    """How a family's answers look in its text: independent of the code that finds them there."""

    special: tuple[str, ...]
    plain: tuple[str, ...]
    """Added tokens that are not special."""
    bos: str | None
    eos: str
    is_sentence_piece: bool
    opening: str
    """What stands between a prompt and the content."""
    ending: str
    trims: bool
    has_system: bool = True
    has_tools: bool = False
    has_thoughts: bool = False


FAMILIES = {
    "llama3": Family(
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        (), "<|begin_of_text|>", "<|eot_id|>", False, "", "<|eot_id|>", trims=True, has_tools=True,
    ),
    "qwen25": Family(
        ("<|im_start|>", "<|im_end|>"), ("<tool_call>", "</tool_call>"),
        None, "<|im_end|>", False, "", "<|im_end|>\n", trims=False, has_tools=True,
    ),
    "qwen3": Family(
        ("<|im_start|>", "<|im_end|>"), ("<tool_call>", "</tool_call>", "<think>", "</think>"),
        None, "<|im_end|>", False, "", "<|im_end|>\n", trims=False, has_tools=True, has_thoughts=True,
    ),
    "gemma2": Family(
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), (),
        "<bos>", "<eos>", True, "", "<end_of_turn>\n", trims=True, has_system=False,
    ),
    "gemma3": Family(
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), (),
        "<bos>", "<eos>", True, "", "<end_of_turn>\n", trims=True,
    ),
    "mistral": Family(
        ("<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"), (),
        "<s>", "</s>", True, " ", "</s>", trims=True, has_tools=True,
    ),
    "phi3": Family(
        ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), (),
        "<s>", "<|endoftext|>", True, "", "<|end|>\n", trims=False,
    ),
}  # fmt: skip


def chat_template(name: str) -> str:
    return (FOLDER / f"{name}.jinja").read_text(encoding="utf-8").rstrip("\n")


@cache
def tokenizer(name: str):
    """-> a fast tokenizer with the family's special tokens and template; every text comes back from its tokens."""
    return tokenizer_like("gemma" if FAMILIES[name].is_sentence_piece else "qwen", name)


def tokenizer_like(sort: str, name: str):
    """-> a tokenizer that cuts in one of the ways of `SORTS`, for a family's template."""
    family = FAMILIES[name]
    raw = SORTS[sort]()
    raw.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in family.special])
    raw.add_tokens([AddedToken(token, normalized=False) for token in family.plain])
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=family.bos, eos_token=family.eos)
    wrapped.chat_template = chat_template(name)
    return wrapped


def _byte_level(normalizer=None, *, trims: bool = False) -> Tokenizer:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    if normalizer:
        raw.normalizer = normalizer
    if trims:
        raw.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=420, show_progress=False, initial_alphabet=alphabet))
    return raw


def _sentence_piece(normalizer, pre_tokenizer, *decoder) -> Tokenizer:
    """Spaces are letters, what is unknown is cut into bytes."""
    raw = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizer
    raw.decoder = decoders.Sequence(list(decoder))
    if normalizer:
        raw.normalizer = normalizer
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    raw.train_from_iterator(
        [text.replace("\n", "") for text in CORPUS],
        trainers.BpeTrainer(vocab_size=520, show_progress=False, special_tokens=["<unk>", *byte_tokens]),
    )
    return raw


def _as_gemma() -> Tokenizer:
    spaces = (decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse())
    return _sentence_piece(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"), *spaces)


def _as_llama2() -> Tokenizer:
    """A space goes before every text between special tokens."""
    spaces = (decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0))
    both = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _sentence_piece(both, pre_tokenizers.Split(" ", "merged_with_previous"), *spaces)


def _as_metaspace() -> Tokenizer:
    kind = {"prepend_scheme": "first", "split": False}
    return _sentence_piece(None, pre_tokenizers.Metaspace(**kind), decoders.ByteFallback(), decoders.Metaspace(**kind))


def _as_bert() -> Tokenizer:
    """Letters are made small, what is unknown is unknown."""
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer, raw.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece()
    raw.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=300, show_progress=False, special_tokens=["[UNK]"])
    )
    return raw


SORTS = {
    "qwen": _byte_level,
    "offsets without spaces": lambda: _byte_level(trims=True),
    "letters composed": lambda: _byte_level(normalizers.NFC()),
    "gemma": _as_gemma,
    "llama2": _as_llama2,
    "metaspace": _as_metaspace,
    "bert": _as_bert,
}
"""Ways to cut text into tokens."""


PIECES = (
    "hockey", " ", "  ", "\n", "\n\n", "\t", "Ulf plays hockey.", "日本語", "🙂", "👩‍🚀", "e\u0301", "ü", "{{ x }}",
    "{% raw %}", '{"a": 1}', "a\\nb", "<b>", "don't", "3.14", "User:", "assistant", "model\n", "x" * 40,
    "\r\n", "\u200b", "'", '"', "{% generation %}", "[INST", "</s", "<|im", "user\n",
)  # fmt: skip
"""What random contents are made of: borders of every sort, and text that looks like a template's."""


def random_text(generator: random.Random, special: tuple[str, ...], *, longest: int = 6) -> str:
    """-> a text, now and then with special tokens written in it, or empty, or of spaces alone."""
    pieces = [*PIECES, *special] if generator.random() < 0.2 else PIECES
    return "".join(generator.choice(pieces) for _ in range(generator.randint(0, longest)))


def random_row(generator: random.Random, family: Family) -> dict:
    """-> a chat row as the family takes it: several turns, system, tools, thoughts and weights where it has them."""
    messages = []
    if family.has_system and generator.random() < 0.4:
        messages.append({"role": "system", "content": random_text(generator, family.special) + "rules"})
    tools = [TOOL] if family.has_tools and generator.random() < 0.3 else None
    for _ in range(generator.choice((1, 1, 2, 3, 4))):
        messages.append({"role": "user", "content": random_text(generator, family.special) + "?"})
        if tools and generator.random() < 0.5:
            arguments = {"town": random_text(generator, family.special), "days": 3}
            call = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            messages.append({"role": "tool", "content": random_text(generator, family.special) + "rain"})
        messages.append(_random_answer(generator, family))
    if generator.random() < 0.1:
        messages.append({"role": "user", "content": "Thanks."})
    return {"messages": messages, "tools": tools}


TOOL = {"type": "function", "function": {"name": "weather", "description": "Of a town", "parameters": {}}}


def _random_answer(generator: random.Random, family: Family) -> dict:
    content = random_text(generator, family.special)
    answer = {"role": "assistant", "content": content}
    kind = generator.random()
    if family.has_thoughts and kind < 0.3:
        answer["reasoning_content"] = "Let me see. " + random_text(generator, ()).replace("\r", "") + "So."
    elif family.has_thoughts and kind < 0.5:
        answer["content"] = f"<think>\nI think {random_text(generator, ())} so.\n</think>\n\n{content}"
    if generator.random() < 0.15:
        answer["weight"] = generator.choice((0, 0, 1))
    return answer
