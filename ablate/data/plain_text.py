"""Rows as plain text: Alpaca's, a prompt with its completion, a text; each with one end of sequence."""

from typing import Any

from ablate.data.masks import Marked, Span, TokenRow, everything, masked
from ablate.data.rows import Row

PREAMBLE_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
)
PREAMBLE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
)


def alpaca_prompt(row: Row) -> str:
    """-> Alpaca's prompt text (Taori et al. 2023), up to where the response begins."""
    instruction, extra = row["instruction"], row["input"]
    if not extra.strip():
        return f"{PREAMBLE}### Instruction:\n{instruction}\n\n### Response:\n"
    return f"{PREAMBLE_INPUT}### Instruction:\n{instruction}\n\n### Input:\n{extra}\n\n### Response:\n"


def plain_text(row: Row) -> tuple[str, str]:
    """-> the prompt, empty where all of the row is the answer, and the answer."""
    if "text" in row:
        return "", row["text"]
    if "completion" in row:
        return row["prompt"], row["completion"]
    return alpaca_prompt(row), row["output"]


def plain_tokens(tokenizer: Any, prompt: str, answer: str, *, train_on_prompt: bool) -> TokenRow:
    """Text with the tokenizer's own begin of sequence, and one end of sequence, which counts."""
    text = prompt + answer
    if train_on_prompt or not prompt:
        row = everything(tokenizer, text, special=True)
    else:  # up to one character more than there are: what the tokenizer adds at the end is of the answer
        row = masked(tokenizer, Marked(text, (Span(len(prompt), len(text) + 1),)), special=True)
    if tokenizer.eos_token_id is None or row.ids[-1:] == [tokenizer.eos_token_id]:
        return row
    return TokenRow([*row.ids, tokenizer.eos_token_id], [*row.loss_mask, True])
