"""Spans that two tokenizers both cut out of a text, against those found by trying all."""

import copy
from itertools import accumulate

from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.two_tokenizers import CORPUS, TOOL, byte_level, metaspace, num_bytes

from ablate.data.aligned_spans import TokenSpan, aligned_spans, counted_text, num_loss_bytes
from ablate.data.masks import TokenRow
from ablate.data.plain_text import plain_tokens
from ablate.data.render import template as render
from ablate.data.token_texts import token_texts
from ablate.data.tokens import lay
from ablate.study.data_settings import Data

CHUNKS = (
    "the ", "keeper", "lighthouse", " 42", "x ** 2", "\n\n", "\t", "   ", " ", ".", "</", "<", TOOL, f"{TOOL} ",
    "🙂", "👩\u200d👩\u200d👧", "🏳️\u200d🌈", "日本語", "の", "文", "안녕", "é", "e\u0301", "A\u0301\u0323", "ß",
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
    """-> bytes of each token of a text, without begin and end of sequence."""
    names = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])
    return [num_bytes(tokenizer, name) for name in names]


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


# where the texts of the two are not the same


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% if m.role == 'assistant' %}<|end|>{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>"
    "{% endif %}{% endfor %}"
)
CHAT = [
    {"role": "user", "content": "Which river?"},
    {"role": "assistant", "content": "The Nile, Привет 🙂."},
    {"role": "user", "content": "And then?"},
    {"role": "assistant", "content": "The lighthouse. 日本語"},
]


def chat_row(tokenizer, template, **settings):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = template
    data = Data.model_validate({"source": "x", "format": "chat", "train_on_prompt": False} | settings)
    (row,) = render(tokenizer, data).render({"messages": CHAT})
    return row


def text_of(row, spans, tokenizer, side):
    """-> the text of the tokens in spans, by the tokenizer's own decoder."""
    predicted = [token for token, counts in zip(row.ids[1:], row.loss_mask[1:], strict=True) if counts]
    begin = 2 * side
    return tokenizer.decode([token for span in spans for token in predicted[span[begin] : span[begin + 1]]])


def aligned(rows, tokenizers=(BYTES, PIECES)):
    sides = [counted_text(*row, token_texts(one)) for row, one in zip(rows, tokenizers, strict=True)]
    return aligned_spans(*sides)


def test_answers_are_aligned_whatever_each_models_template_writes_around_them():
    rows = [chat_row(BYTES, CHATML), chat_row(PIECES, INST)]
    spans = aligned(rows)
    ours, theirs = (text_of(row, spans, one, n) for n, (row, one) in enumerate(zip(rows, (BYTES, PIECES), strict=True)))
    assert ours == "The Nile, Привет 🙂.<|end|>The lighthouse. 日本語<|end|>"
    assert theirs == "The Nile, Привет 🙂.</s> The lighthouse. 日本語</s>"


def test_of_a_row_cut_short_for_one_model_the_common_part_is_aligned():
    whole = [row_of(tokenizer, CORPUS[0]) for tokenizer in (BYTES, PIECES)]
    cut = TokenRow(whole[1].ids[:20], whole[1].loss_mask[:20])
    spans = aligned([whole[0], cut])
    assert spans == [span for span in aligned(whole) if span.teacher_end <= 19]
    assert len(spans) > 5


def test_words_that_a_normalizer_changes_are_left_out_and_all_others_aligned():
    lower = byte_level(normalizer="Lowercase")
    rows = [row_of(lower, "the Nile is A river and SO is Zoë"), row_of(PIECES, "the Nile is A river and SO is Zoë")]
    assert text_of(rows[1], aligned(rows, (lower, PIECES)), PIECES, 1) == "is river and is</s>"


def test_bytes_of_the_loss_bearing_text_are_counted_alike_for_every_tokenizer():
    exact = sum(len(text.encode()) for text in CORPUS)
    for tokenizer in (BYTES, PIECES):
        rows = lay(plain_tokens(tokenizer, "Q: what?\n", text, train_on_prompt=False) for text in CORPUS)
        assert num_loss_bytes(rows, token_texts(tokenizer)) == exact
