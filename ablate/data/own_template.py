"""A jinja text of the study's own: it renders everything, special tokens (`bos_token`, `eos_token`) included."""

from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from ablate.core.errors import StageError
from ablate.data.chat_templates import OURS, Message, Tools
from ablate.data.masks import Marked, Span, TokenRow, everything, masked
from ablate.data.rows import Row

ANSWER_MARK, FIELD_MARK = "ablateanswer", "ablatefield"
"""Stand in the place of what a row says; no template changes letters."""


class OwnTemplate:
    """The study's template, compiled in a sandbox. Raises StageError for a mistake in it."""

    has_prompts = False

    def __init__(self, tokenizer: Any, source: str) -> None:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self.end_of_sequence = str(tokenizer.eos_token or "")
        self._known = {"bos_token": tokenizer.bos_token or "", "eos_token": self.end_of_sequence}
        try:
            self._compiled = ImmutableSandboxedEnvironment(keep_trailing_newline=True).from_string(source)
        except TemplateError as error:
            raise StageError(f"data.template: {error}") from error

    def text(self, messages: Sequence[Message], tools: Tools = None, *, prompt: bool = False) -> str:
        """-> a conversation; the template is told of `messages`, `tools` and `add_generation_prompt`."""
        shown = [{key: value for key, value in message.items() if key not in OURS} for message in messages]
        return self.of_row({"messages": shown, "tools": tools, "add_generation_prompt": prompt})

    def generated(self, messages: Sequence[Message], tools: Tools = None) -> Marked | None:
        """It marks nothing."""
        return None

    def of_row(self, cells: Row) -> str:
        """-> the text of a row's cells."""
        try:
            return self._compiled.render(self._known | cells)
        except (TemplateError, TypeError, ValueError) as error:
            raise StageError(f"data.template: {error}") from error


class OwnRows:
    """Rows that are no conversations, by a template of the study's own: what counts is the answer and what follows."""

    def __init__(self, tokenizer: Any, template: OwnTemplate, answer: str | None, *, train_on_prompt: bool) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._answer = answer
        self._trains_all = train_on_prompt or answer is None

    def render(self, row: Row) -> TokenRow:
        """Raises StageError where the template does not write the answer as it is, once, and all else before it."""
        cells = dict(row)
        text = self._template.of_row(cells)
        if self._trains_all:
            return everything(self._tokenizer, text)
        return masked(self._tokenizer, Marked(text, (Span(self._begin(cells, text), len(text)),)))

    def _begin(self, cells: dict[str, str], text: str) -> int:
        name = str(self._answer)
        before, *after = self._template.of_row(cells | {name: ANSWER_MARK}).split(ANSWER_MARK)
        if len(after) != 1:
            raise StageError(
                f"data.template: it writes {{{{ {name} }}}} as it is {len(after)} times: what counts is what it writes"
                " from there on, once; with train_on_prompt: true all counts"
            )
        fields = {field: FIELD_MARK if value else value for field, value in cells.items()}
        if FIELD_MARK in self._template.of_row(fields | {name: ANSWER_MARK}).split(ANSWER_MARK)[-1]:
            raise StageError(
                f"data.template: it writes something else of the row after {{{{ {name} }}}}, which would count as the"
                " answer: put the answer last, or train_on_prompt: true"
            )
        inner = text[len(before) : len(text) - len(after[0])]
        if not (text.startswith(before) and text.endswith(after[0]) and inner.strip() == cells[name].strip()):
            raise StageError(
                f"data.template: a row's answer is {cells[name][:300]!r}, and the template writes {inner[:300]!r}: what"
                " is trained on would not be what the row says; write {{ " + name + " }} as it is, or"
                " train_on_prompt: true"
            )
        return len(before)
