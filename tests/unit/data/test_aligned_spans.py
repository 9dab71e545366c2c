"""Spans that two tokenizers both cut out of a text, against those found by trying all."""

from itertools import accumulate

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.two_tokenizers import TOOL, byte_level, metaspace

from ablate.data.aligned_spans import TokenSpan, aligned_spans, counted_text
from ablate.data.plain_text import plain_tokens
from ablate.data.token_texts import token_texts

CHUNKS = (
    "the ", "keeper", "lighthouse", " 42", "x ** 2", "\n\n", "\t", "   ", " ", ".", "</", "<", TOOL, f"{TOOL} ",
    "🙂", "👩\u200d👩\u200d👧", "🏳️\u200d🌈", "日本語", "の", "文", "안녕", "é", "e\u0301", "A\u0301\u0323", "ß", "два", "\u00a0", "\ufeff",
)  # fmt: skip
TEXTS = st.lists(
    st.sampled_from(CHUNKS) | st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="▁"), max_size=24
).map("".join)
BYTES, PIECES = byte_level(), metaspace()


def row_of(tokenizer, text):
    """-> all of a text, its end too."""
    return plain_tokens(tokenizer, "", text, train_on_prompt=True)


def spans_of(a, b, text):
    sides = [counted_text(*row_of(tokenizer, text), token_texts(tokenizer)) for tokenizer in (a, b)]
    return aligned_spans(*sides)


def lengths(tokenizer, text):
    """-> bytes of each token of a text, without begin and end of sequence; from how the two families write tokens."""
    names = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])
    if tokenizer is PIECES:
        return [1 if name.startswith("<0x") else len(name.replace("▁", " ").encode()) for name in names]
    return [len(name) for name in names]  # a letter of GPT-2's alphabet is a byte; the added token is of ASCII


def borders(tokenizer, text):
    """-> begin and end of each token among the bytes that are neither a first space nor one after an added token."""
    written = (" " if tokenizer is PIECES and not text.startswith((" ", TOOL)) and text else "") + text
    raw = written.encode()
    assert sum(lengths(tokenizer, text)) == len(raw)
    dropped = set()
    for start in [0, *(i + len(TOOL) for i in range(len(raw)) if raw[i:].startswith(TOOL.encode()))]:
        while raw[start : start + 1] == b" ":
            dropped.add(start)
            start += 1
    kept = [0, *accumulate(place not in dropped for place in range(len(raw)))]
    ends = [*accumulate(lengths(tokenizer, text))]
    tokens = [(kept[begin], kept[end]) for begin, end in zip([0, *ends], ends, strict=False)]
    return [*tokens, (kept[-1], kept[-1] + 1)]  # the end of sequence


def by_trial(text):
    """-> every range of tokens of one that stands for the bytes of a range of the other, and holds no smaller one."""
    ranges = []
    for tokenizer in (BYTES, PIECES):
        tokens, known = borders(tokenizer, text), {}
        for i, (begin, _) in enumerate(tokens):
            for j in range(i, len(tokens)):
                known.setdefault((begin, tokens[j][1]), (i, j + 1))
        ranges.append({key: value for key, value in known.items() if key[0] < key[1]})
    common = ranges[0].keys() & ranges[1].keys()
    smallest = sorted(key for key in common if not any((key[0], end) in common for end in range(key[0] + 1, key[1])))
    spans = [TokenSpan(*ranges[0][key], *ranges[1][key]) for key in smallest]
    # without a begin of sequence the first token is never predicted, and numbers begin with the second
    is_nothing = [begin == end for begin, end in borders(BYTES, text)]
    spans = [TokenSpan(a or int(is_nothing[0]), *more) for a, *more in spans]
    return [TokenSpan(a - 1, b - 1, c, d) for a, b, c, d in spans if a > 0]


@settings(max_examples=500, deadline=None)
@given(text=TEXTS)
@example(text="🙂" * 5)
@example(text=f"{TOOL}  a{TOOL}é")
@example(text="   x")
@example(text="")
def test_spans_are_those_found_by_trying_all(text):
    assert spans_of(BYTES, PIECES, text) == by_trial(text)
