"""The proof that what counts in the loss are a row's answers, word for word, and nothing else of the row."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ablate.core.errors import StageError
from ablate.data.answer_spans import Answer, AnswerSpans
from ablate.data.chat_templates import Message, Tools, parsed_arguments
from ablate.data.tally import Tally

TURN_MARK, CONTENT_MARK, THOUGHT_MARK, CALL_MARK = "ablateturn", "ablateanswer", "ablatethought", "ablatecall"
"""Stand in the place of what a row says, to see what the template writes around it."""

MOST_KNOWN = 64
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""The names under which a message has thoughts, the one that templates read first."""


class Reading(NamedTuple):
    """An answer as thoughts and content, and the same message with marks in their place."""

    thoughts: str
    content: str
    marked: Message


class Around(NamedTuple):
    """What a template writes around an answer's content, and its thoughts: nothing of it is the row's."""

    before: str
    between: str | None
    """Of thoughts and content; None where there are no thoughts, or the template leaves them out."""
    after: str

    def holds(self, text: str, reading: Reading) -> bool:
        """Whether a text is this around an answer, but for spaces at the answer's ends, which templates trim."""
        thoughts, content = reading.thoughts.strip(), reading.content.strip()
        num_around = len(self.before) + len(self.after)
        if not (text.startswith(self.before) and text.endswith(self.after) and len(text) >= num_around):
            return False
        inner = text[len(self.before) : len(text) - len(self.after)].strip()
        if self.between is None:
            return inner == content
        if not (inner.startswith(thoughts) and inner.endswith(content)):
            return False
        return inner[len(thoughts) : len(inner) - len(content)].strip() == self.between.strip()


class Proof:
    """Compares answers with what their masks hold; knows what the template wrote around the answers before."""

    def __init__(self, answer_spans: AnswerSpans, tally: Tally) -> None:
        self._spans = answer_spans
        self._tally = tally
        self._known: dict[Around, None] = {}

    def require(self, messages: Sequence[Message], answer: Answer, tools: Tools) -> bool:
        """-> whether the answer counts: not one of tool calls alone that the template leaves out.

        Raises StageError where its mask holds anything but the answer and what the template adds to all; of an empty
        answer, where that is not the same whatever the other turns are.
        """
        message = messages[answer.turn]
        is_empty = not message.get("content") and not thoughts_of(message)
        if message.get("tool_calls"):
            if self._has_calls(messages, answer, tools):
                return True
            self._tally.add("calls")
            return not is_empty and self._has_text(messages, answer, tools)
        if not is_empty:
            return self._has_text(messages, answer, tools)
        if self._held_with(messages, answer.turn, tools, message) != held(answer):
            raise StageError(_refusal(answer, "nothing: the answer is empty"))
        return True

    def _has_text(self, messages: Sequence[Message], answer: Answer, tools: Tools) -> bool:
        message = messages[answer.turn]
        around = self._around(messages, answer, tools)
        if around is None:
            raise StageError(_refusal(answer, _shown(message)))
        if thoughts_of(message) and around.between is None:
            self._tally.add("thoughts")
        return True

    def _around(self, messages: Sequence[Message], answer: Answer, tools: Tools) -> Around | None:
        """-> what lies around the answer in its mask; None where the mask holds something else."""
        text, readings = held(answer), list(_readings(messages[answer.turn]))
        pairs = [(around, reading) for reading in readings for around in self._known]
        if known := next((around for around, reading in pairs if around.holds(text, reading)), None):
            return known
        for reading in readings:
            around = self._learn(messages, answer.turn, tools, reading)
            if around and around.holds(text, reading):
                if len(self._known) < MOST_KNOWN:
                    self._known[around] = None
                return around
        return None

    def _learn(self, messages: Sequence[Message], index: int, tools: Tools, reading: Reading) -> Around | None:
        try:
            text = self._held_with(messages, index, tools, reading.marked)
        except StageError:  # the template takes only contents of some sort
            return None
        if text.count(CONTENT_MARK) != 1 or text.count(THOUGHT_MARK) > 1:
            return None
        before, after = text.split(CONTENT_MARK)
        if THOUGHT_MARK not in before:
            return Around(before, None, after) if THOUGHT_MARK not in after else None
        before, between = before.split(THOUGHT_MARK)
        return Around(before, between, after)

    def _held_with(self, messages: Sequence[Message], index: int, tools: Tools, instead: Message) -> str:
        """-> what the mask of an answer holds with another answer in its place, and marks in all other turns."""
        return held(self._spans.answer([*marked_turns(messages[:index]), instead], index, tools))

    def _has_calls(self, messages: Sequence[Message], answer: Answer, tools: Tools) -> bool:
        """Whether the mask holds the answer's tool calls; False where the template leaves them out.

        Raises StageError where it holds them otherwise.
        """
        message, values = _marked_calls(messages[answer.turn])
        text = self._held_with(messages, answer.turn, tools, message)
        if CALL_MARK not in text:
            return False
        if not any(_bare(_replaced(text, values, written)) == _bare(held(answer)) for written in _WAYS):
            raise StageError(_refusal(answer, _shown(messages[answer.turn])))
        if CONTENT_MARK in values and CONTENT_MARK not in text:
            self._tally.add("beside_calls")
        return True


def held(answer: Answer) -> str:
    """-> what the mask of an answer holds."""
    return "".join(answer.marked.text[span.begin : span.end] for span in answer.marked.spans)


def thoughts_of(message: Message) -> str:
    """-> the thoughts that a message has beside its content."""
    return next((str(message[name]) for name in THOUGHTS if message.get(name)), "")


def marked_turns(messages: Sequence[Message]) -> list[Message]:
    """-> the messages with a mark of its own in the place of every content and thought that is not empty."""
    return [
        message | {name: f"{TURN_MARK}{number}x" for name in ("content", *THOUGHTS) if message.get(name)}
        for number, message in enumerate(messages)
    ]


def _readings(message: Message) -> Iterator[Reading]:
    """-> what the answer of a message is: its content; of thoughts written into it also thoughts and content apart."""
    content, thoughts = str(message.get("content") or ""), thoughts_of(message)
    if thoughts:
        names = [name for name in THOUGHTS if message.get(name)]
        marked = message | dict.fromkeys(names, THOUGHT_MARK) | {"content": CONTENT_MARK}
        yield Reading(thoughts, content, marked)
        return
    yield Reading("", content, message | {"content": CONTENT_MARK})
    if "</think>" in content:
        thought, _, rest = content.partition("</think>")
        written = f"<think>\n{THOUGHT_MARK}\n</think>\n\n{CONTENT_MARK}"
        yield Reading(thought.replace("<think>", "", 1), rest, message | {"content": written})


def _marked_calls(message: Message) -> tuple[Message, dict[str, str]]:
    """-> the message with marks for the names and the texts in its tool calls, and what each mark stands for."""
    values: dict[str, str] = {}

    def marked(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: marked(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [marked(inner) for inner in value]
        if not isinstance(value, str) or not value:
            return value
        values[f"{CALL_MARK}{len(values)}x"] = value
        return f"{CALL_MARK}{len(values) - 1}x"

    calls = [_with_function(call, marked) for call in message["tool_calls"]]
    if message.get("content"):
        values[CONTENT_MARK] = str(message["content"])
        return message | {"tool_calls": calls, "content": CONTENT_MARK}, values
    return message | {"tool_calls": calls}, values


def _with_function(call: Any, marked: Callable[[Any], Any]) -> Any:
    function = call.get("function", call)
    changed = {"name": marked(function.get("name"))}
    if "arguments" in function:
        arguments = parsed_arguments(function["arguments"])
        is_text = isinstance(function["arguments"], str) and isinstance(arguments, dict)
        changed["arguments"] = json.dumps(marked(arguments)) if is_text else marked(arguments)
    return call | {"function": function | changed} if "function" in call else call | changed


_WAYS: tuple[Callable[[str], str], ...] = (
    lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
    lambda value: value,
    lambda value: json.dumps(value)[1:-1],
)
"""How a template writes a text of a tool call: as JSON, as it is, as JSON in ASCII."""


def _replaced(text: str, values: dict[str, str], written: Callable[[str], str]) -> str:
    for mark, value in values.items():
        text = text.replace(mark, value if mark == CONTENT_MARK else written(value))
    return text


def _bare(text: str) -> str:
    return "".join(text.split())


def _shown(message: Message) -> str:
    parts = [thoughts_of(message), message.get("content") or "", message.get("tool_calls") or ""]
    return " ".join(str(part) if isinstance(part, str) else json.dumps(part, default=str) for part in parts if part)


def _refusal(answer: Answer, expected: str) -> str:
    return (
        f"data.template: turn {answer.turn + 1} would be trained on as {held(answer)[:300]!r}; the row's answer is "
        f"{expected[:300]!r}. The chat template changes answers (a filter, thoughts that it cuts off), or writes "
        "something of other turns after its generation prompt: mend the rows, give a jinja text as data.template, or"
        " train_on_prompt: true, which needs no mask"
    )
