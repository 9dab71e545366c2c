"""A conversation as text: by the chat template that comes with a tokenizer, on the same day for ever."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from jinja2.exceptions import TemplateError

from ablate.core.errors import StageError
from ablate.data.masks import Marked, Span
from ablate.study.chat_templates import DEFAULT, TODAY, dated
from ablate.study.data_settings import Data
from ablate.study.local_chat_templates import NAMED_FOR_TOOLS, no_such_template, unused_setting

Message: TypeAlias = dict[str, Any]
Tools: TypeAlias = Sequence[Mapping[str, Any]] | None

OURS = ("weight",)
"""Keys of a message that no template is shown."""


class Conversation(Protocol):
    """What renders a list of messages."""

    end_of_sequence: str
    has_prompts: bool
    """Whether a prompt is a text of its own, with which a model is asked by others too."""

    def text(self, messages: Sequence[Message], tools: Tools = None, *, prompt: bool = False) -> str:
        """-> the messages as text; with `prompt` up to where the model would begin to write."""

    def generated(self, messages: Sequence[Message], tools: Tools = None) -> Marked | None:
        """-> the text with what the template itself marks as the model's; None where it marks nothing."""


class ChatTemplate:
    """The chat template of a tokenizer, as transformers renders it, any date in it being `TODAY`."""

    has_prompts = True

    def __init__(self, tokenizer: Any, data: Data) -> None:
        self._tokenizer = tokenizer
        self.end_of_sequence = str(tokenizer.eos_token or "")
        self._settings = dict(data.chat_template_kwargs)
        self._named = _named(tokenizer.chat_template, data.chat_template)
        for name in self._settings:
            if message := unused_setting(name, self._named.values()):
                raise StageError(message)

    def text(self, messages: Sequence[Message], tools: Tools = None, *, prompt: bool = False) -> str:
        """Raises StageError where the template refuses the messages."""

        def rendered(form: list[Message]) -> str:
            return str(
                self._tokenizer.apply_chat_template(
                    form,
                    tools=list(tools) if tools else None,
                    tokenize=False,
                    add_generation_prompt=prompt,
                    chat_template=dated(self._template(tools)),
                    date_string=TODAY.strftime("%d %b %Y"),
                    **self._settings,
                )
            )

        return str(_first_that_renders(rendered, messages))

    def generated(self, messages: Sequence[Message], tools: Tools = None) -> Marked | None:
        """By `{% generation %}`; transformers says which characters lie in it."""
        template = self._template(tools)
        if not re.search(r"\{%-?\s*generation\s*-?%\}", template):
            return None
        from transformers.utils.chat_template_utils import render_jinja_template

        def rendered(form: list[Message]) -> Marked:
            shown = [{key: value for key, value in message.items() if value is not None} for message in form]
            texts, spans = render_jinja_template(
                [shown],
                tools=list(tools) if tools else None,
                chat_template=dated(template),
                return_assistant_tokens_mask=True,
                date_string=TODAY.strftime("%d %b %Y"),
                **self._tokenizer.special_tokens_map | self._settings,
            )
            return Marked(texts[0], tuple(Span(*span) for span in spans[0] if span[0] < span[1]))

        marked: Marked = _first_that_renders(rendered, messages)
        return marked

    def _template(self, tools: Tools) -> str:
        return self._named.get(NAMED_FOR_TOOLS if tools else "") or self._named[DEFAULT]


def _named(templates: str | dict[str, str], name: str | None) -> dict[str, str]:
    """-> the template to use, as the default; beside it the one for tools, where none is chosen, as transformers does.

    Raises StageError where there are several and no default, or no template has the name that the study says.
    """
    named = templates if isinstance(templates, dict) else {}
    if message := no_such_template(sorted(named), name):
        raise StageError(message)
    if isinstance(templates, str):
        return {DEFAULT: templates}
    chosen = [name] if name else [DEFAULT, NAMED_FOR_TOOLS]
    return {
        key: templates[own] for key, own in zip([DEFAULT, NAMED_FOR_TOOLS], chosen, strict=False) if own in templates
    }


def _first_that_renders(rendered: Any, messages: Sequence[Message]) -> Any:
    """-> the messages as the template first takes them. Raises StageError with its first refusal."""
    refusal: Exception | None = None
    for form in _forms(messages):
        try:
            return rendered(form)
        except (TemplateError, TypeError, ValueError) as error:
            refusal = refusal or error
    raise StageError(
        f"data.template: the student's chat template refuses a row: {refusal}. Mend the rows, or give a jinja text as"
        " data.template"
    ) from refusal


def _forms(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """-> the messages as transformers wants them, then as some templates do.

    Arguments of a call are a mapping, no JSON text (which most templates would write as JSON a second time); a missing
    content is left out, which transformers does, or empty, for templates that add it to a text.
    """
    plain = [{key: value for key, value in message.items() if key not in OURS} for message in messages]
    yield [_with_arguments(message) for message in plain]
    if any(message.get("tool_calls") or message.get("content") is None for message in plain):
        filled = [message | {"content": message.get("content") or ""} for message in plain]
        yield [_with_arguments(message) for message in filled]
        yield filled


def _with_arguments(message: Message) -> Message:
    if not message.get("tool_calls"):
        return message
    return message | {"tool_calls": [_parsed(call) for call in message["tool_calls"]]}


def _parsed(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or "arguments" not in function:
        return call
    return call | {"function": function | {"arguments": parsed_arguments(function["arguments"])}}


def parsed_arguments(arguments: Any) -> Any:
    """-> the arguments of a tool call, as a mapping where they are one written as JSON."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments)
    except ValueError:
        return arguments
    return value if isinstance(value, dict) else arguments
