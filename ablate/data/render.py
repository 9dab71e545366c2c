"""A row becomes text by a template, and tokens with a loss mask; the same on every day and every machine."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from jinja2.exceptions import TemplateError

from ablate.core.errors import StageError
from ablate.data.rows import Row, as_text
from ablate.study.chat_templates import TODAY, dated
from ablate.study.data_settings import Data

PREAMBLE_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
)
PREAMBLE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
)

MOST_MERGED = 2
"""Tokens at the end of a beginning that may be others in the whole: merged with what follows, or an end of text."""


class TokenRow(NamedTuple):
    """One row as tokens; `loss_mask[i]` says whether predicting `ids[i]` counts."""

    ids: list[int]
    loss_mask: list[bool]


Renderer: TypeAlias = Callable[[Row], TokenRow]


class Template(NamedTuple):
    """How rows are rendered; `name` is what is told: model, plain or jinja."""

    name: str
    render: Renderer


def alpaca_prompt(row: Row) -> str:
    """-> Alpaca's prompt text (Taori et al. 2023), up to where the response begins."""
    instruction, extra = as_text(row["instruction"]), as_text(row["input"])
    if not extra.strip():
        return f"{PREAMBLE}### Instruction:\n{instruction}\n\n### Response:\n"
    return f"{PREAMBLE_INPUT}### Instruction:\n{instruction}\n\n### Input:\n{extra}\n\n### Response:\n"


def template(tokenizer: Any, data: Data) -> Template:
    """-> the data's template for this tokenizer: `model` without a chat template is plain, and so is `text`.

    Raises StageError for chat rows that no template renders, or a jinja text with a mistake in it.
    """
    if data.template not in ("model", "plain"):
        return Template("jinja", _jinja(tokenizer, data))
    if data.format == "text":
        return Template("plain", lambda row: _plain(tokenizer, "", as_text(row["text"])))
    if data.template == "model" and tokenizer.chat_template:
        return Template("model", lambda row: _chat(tokenizer, _messages(row, data), data.train_on_prompt))
    if data.format == "chat":
        raise StageError(
            f"data.template: chat rows need a chat template and the student's tokenizer has none (template: "
            f"{data.template}); give a jinja text that renders `messages`"
        )
    return Template("plain", lambda row: _alpaca_plain(tokenizer, row, data.train_on_prompt))


def _messages(row: Row, data: Data) -> list[dict[str, Any]]:
    if data.format == "alpaca":
        return [
            {"role": "user", "content": alpaca_prompt(row)},
            {"role": "assistant", "content": as_text(row["output"])},
        ]
    messages = row["messages"] if isinstance(row["messages"], Sequence) else []
    if not all(isinstance(message, dict) and {"role", "content"} <= message.keys() for message in messages):
        raise StageError("data.format: a chat row's messages are a list of {role: ..., content: ...}")
    return [message | {"content": as_text(message["content"])} for message in messages]


def _chat(tokenizer: Any, messages: list[dict[str, Any]], train_on_prompt: bool) -> TokenRow:
    """Loss-bearing are all tokens, or those of every assistant turn: what a generation prompt is followed by."""
    if not messages:
        return TokenRow([], [])

    def tokens(first: int, *, prompt: bool = False) -> list[int]:
        return _ids(tokenizer, chat_text(tokenizer, messages[:first], prompt=prompt)) if first else []

    ids = tokens(len(messages))
    if train_on_prompt:
        return TokenRow(ids, [True] * len(ids))
    mask = [False] * len(ids)
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            if len(messages) > 2:  # a question and its answer alone have nothing before them
                _require_beginning(tokens(index), ids)
            begin, end = num_common(tokens(index, prompt=True), ids), len(ids)
            if index < len(messages) - 1:
                _require_beginning(tokens(index + 1), ids)
                end = num_common(tokens(index + 1), ids)
            mask[begin:end] = [True] * max(0, end - begin)
    return TokenRow(ids, mask)


def _require_beginning(part: list[int], ids: list[int]) -> None:
    """Raises StageError where a chat's first turns alone are rendered otherwise than as the beginning of the whole.

    Some templates drop the thoughts of all turns but the last, or move the system prompt to the last question.
    """
    if num_common(part, ids) < len(part) - MOST_MERGED:
        raise StageError(
            "data.template: the student's chat template renders a turn in another way once more turns follow, so that"
            " it cannot be told which tokens are the assistant's: train_on_prompt: true, or a template of your own"
        )


def chat_text(tokenizer: Any, messages: list[dict[str, Any]], *, prompt: bool = False) -> str:
    """-> messages as the tokenizer's chat template renders them, any date in it being `TODAY`."""
    try:
        text: str = tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=prompt,
            chat_template=dated(tokenizer.get_chat_template()),
            date_string=TODAY.strftime("%d %b %Y"),
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise StageError(f"data.template: the student's chat template refuses a row: {error}") from error
    return text


def _alpaca_plain(tokenizer: Any, row: Row, train_on_prompt: bool) -> TokenRow:
    return _plain(tokenizer, "" if train_on_prompt else alpaca_prompt(row), alpaca_prompt(row) + as_text(row["output"]))


def _plain(tokenizer: Any, prompt: str, text: str) -> TokenRow:
    """Text with the tokenizer's own begin of sequence, and one end of sequence."""
    ids = _ids(tokenizer, text, special=True)
    if tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
        ids.append(tokenizer.eos_token_id)
    return _masked(ids, _ids(tokenizer, prompt, special=True) if prompt else [])


def _jinja(tokenizer: Any, data: Data) -> Renderer:
    """A template of the study's own: it renders everything, special tokens (`bos_token`, `eos_token`) included."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    known = {"bos_token": tokenizer.bos_token or "", "eos_token": tokenizer.eos_token or ""}
    try:
        compiled = ImmutableSandboxedEnvironment(keep_trailing_newline=True).from_string(data.template)
    except TemplateError as error:
        raise StageError(f"data.template: {error}") from error

    def ids(row: Row) -> list[int]:
        cells = {name: value if name == "messages" else as_text(value) for name, value in row.items()}
        try:
            return _ids(tokenizer, compiled.render(known | cells))
        except (TemplateError, TypeError) as error:
            raise StageError(f"data.template: {error}") from error

    def render(row: Row) -> TokenRow:
        if data.train_on_prompt:
            return _masked(ids(row), [])
        without = _without_answer(row)
        return _masked(ids(row), [] if without is None else ids(without))

    return render


def _without_answer(row: Row) -> Row | None:
    """-> the row as it is before the answer, its last turn; None for plain text, all of which is the answer."""
    if "output" in row:
        return row | {"output": ""}
    messages = row.get("messages")
    if messages and messages[-1].get("role") != "assistant":
        raise StageError(
            "data.template: a chat that does not end with the assistant has no answer at its end for a jinja template"
            " to train on: template: model, or train_on_prompt: true"
        )
    return row | {"messages": messages[:-1]} if messages else None


def _masked(ids: list[int], prompt_ids: list[int]) -> TokenRow:
    num_prompt = num_common(prompt_ids, ids)
    return TokenRow(ids, [False] * num_prompt + [True] * (len(ids) - num_prompt))


def num_common(a: Sequence[int], b: Sequence[int]) -> int:
    """-> length of the longest common beginning.

    A prompt tokenised alone can end otherwise than inside the whole text; what differs belongs to the answer.
    """
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _ids(tokenizer: Any, text: str, *, special: bool = False) -> list[int]:
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])
