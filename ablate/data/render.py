"""A row becomes text by a template, and tokens with a loss mask; the same on every day and every machine."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from ablate.core.errors import StageError
from ablate.data.chat_rows import ChatRows
from ablate.data.chat_templates import ChatTemplate, Message
from ablate.data.masks import TokenRow
from ablate.data.own_template import OwnRows, OwnTemplate
from ablate.data.plain_text import alpaca_prompt, plain_text, plain_tokens
from ablate.data.rows import Row
from ablate.data.tally import Tally
from ablate.study.data_settings import Data

Renderer: TypeAlias = Callable[[Row], list[TokenRow]]

ANSWER_FIELDS = ("output", "completion")
"""The cell of a row that is its answer, by format; a text is one as a whole."""


@dataclass(frozen=True)
class Template:
    """How rows are rendered, and what was counted so far."""

    name: str
    """What is told: model, plain or jinja."""
    render: Renderer
    """-> a row as tokens: mostly one row, several where a chat's answers need a text each."""
    tally: Tally


def template(tokenizer: Any, data: Data) -> Template:
    """-> the data's template for this tokenizer: `model` without a chat template is plain, and so is `text`.

    Raises StageError for chat rows that no template renders, a jinja text with a mistake in it, or a chat template that
    the tokenizer does not have.
    """
    tally = Tally()
    name, render = _renderer(tokenizer, data, tally)
    special, unknown = _special_tokens(tokenizer), _unknown_id(tokenizer)

    def counted(row: Row) -> list[TokenRow]:
        if special and any(special.search(text) for text in _texts(row)):
            tally.add("special")
        token_rows = render(row)
        if unknown is not None and any(unknown in token_row.ids for token_row in token_rows):
            tally.add("unknown")
        return token_rows

    return Template(name, counted, tally)


def _renderer(tokenizer: Any, data: Data, tally: Tally) -> tuple[str, Renderer]:
    if data.template not in ("model", "plain"):
        return "jinja", _own(tokenizer, data, tally)
    if data.template == "model" and tokenizer.chat_template and data.format in ("alpaca", "chat"):
        return "model", _of_messages(ChatRows(tokenizer, ChatTemplate(tokenizer, data), data, tally))
    if data.template == "model" and (data.chat_template or data.chat_template_kwargs):
        raise StageError(
            "data.chat_template: the student's tokenizer has no chat template; leave out what is said of it"
        )
    if data.format == "chat":
        raise StageError(
            f"data.template: chat rows need a chat template and the student's tokenizer has none (template: "
            f"{data.template}); give a jinja text that renders `messages`"
        )
    return "plain", lambda row: [plain_tokens(tokenizer, *plain_text(row), train_on_prompt=data.train_on_prompt)]


def _own(tokenizer: Any, data: Data, tally: Tally) -> Renderer:
    own = OwnTemplate(tokenizer, data.template)
    if data.format == "chat":
        return _of_messages(ChatRows(tokenizer, own, data, tally))
    return lambda row: [OwnRows(tokenizer, own, _answer_of(row), train_on_prompt=data.train_on_prompt).render(row)]


def _of_messages(rows: ChatRows) -> Renderer:
    return lambda row: rows.render(_messages(row), row.get("tools"))


def _answer_of(row: Row) -> str | None:
    return next((name for name in ANSWER_FIELDS if name in row), None)


def _messages(row: Row) -> list[Message]:
    if "messages" in row:
        return list(row["messages"])
    return [
        {"role": "user", "content": alpaca_prompt(row)},
        {"role": "assistant", "content": row["output"]},
    ]


def _special_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    texts = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special and token.content]
    return re.compile("|".join(map(re.escape, texts))) if texts else None


def _unknown_id(tokenizer: Any) -> int | None:
    """-> the token for what there is none for; None where it has another use too (GPT-2's ends a text)."""
    unknown: int | None = tokenizer.unk_token_id
    others = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    return None if unknown in others else unknown


def _texts(row: Row) -> Iterator[str]:
    for value in row.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (text for item in value if isinstance(item, dict) for text in _texts(item))
