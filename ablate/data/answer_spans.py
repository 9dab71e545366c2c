"""Which turns of a conversation are answers, each in the text in which the model would write it."""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from ablate.core.errors import StageError
from ablate.data.chat_templates import Conversation, Message, Tools
from ablate.data.masks import Marked, Span, num_common

USER_MARK, ASKED_MARK, ANSWER_MARK = "ablatequestion", "ablateasked", "ablatereply"
"""Stand in the place of turns, to see what the template writes around them; no template changes letters."""

_REPLY = {"role": "assistant", "content": ANSWER_MARK}


class Answer(NamedTuple):
    """An assistant's turn and the conversation up to its end, as text; `spans` of the text are the answer."""

    turn: int
    marked: Marked


def is_answer(message: Message) -> bool:
    """Whether the turn is the model's."""
    return bool(message["role"] == "assistant")


def is_trained(message: Message) -> bool:
    """Whether the turn is an answer that counts: of any weight but 0."""
    return is_answer(message) and message.get("weight", 1) != 0


class AnswerSpans:
    """The answers of conversations, by one way to render them."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._marks = self._has_sound_marks()

    def _has_sound_marks(self) -> bool:
        """Whether the template marks what is generated, and transformers says rightly where.

        It does not where the marks stand in a macro, or in a block that is kept in a variable.
        """
        question = [{"role": "user", "content": USER_MARK}]
        try:
            answered = [*question, _REPLY]
            texts = [self._conversation.generated(messages) for messages in (answered, [*answered, *answered])]
        except StageError:  # it takes no such conversation, or no two: what follows a prompt is the answer
            return False
        held = [[text.text[span.begin : span.end] for span in text.spans] for text in texts if text]
        return [len(spans) for spans in held] == [1, 2] and all(ANSWER_MARK in span for spans in held for span in spans)

    def answer(self, messages: Sequence[Message], index: int, tools: Tools = None) -> Answer:
        """-> an answer with the turns before it: what the template marks as generated, else what follows the prompt.

        Raises StageError where the template asks the model in a way that the answer does not go on from.
        """
        marked = self._generated(messages, index, tools) or self._prompted(messages, index, tools)
        return Answer(index, marked._replace(spans=tuple(span for span in marked.spans if span.begin < span.end)))

    def _generated(self, messages: Sequence[Message], index: int, tools: Tools) -> Marked | None:
        marked = self._conversation.generated(messages[: index + 1], tools) if self._marks else None
        before = self._conversation.text(messages[:index], tools).rstrip() if marked and index else ""
        if marked is None or not marked.text.startswith(before):
            return None
        return marked._replace(spans=tuple(span for span in marked.spans if span.begin >= len(before)))

    def _prompted(self, messages: Sequence[Message], index: int, tools: Tools) -> Marked:
        text = self._conversation.text(messages[: index + 1], tools)
        if index == 0:
            return Marked(text, (Span(self._begin_of_first(text), len(text)),))
        prompt = self._conversation.text(messages[:index], tools, prompt=True)
        common = num_common(prompt, text)
        if not prompt[common:].strip():  # nothing but spaces that the template trims once the answer is there
            return Marked(text, (Span(common, len(text)),))
        reply = self._reply(messages, index, tools)
        if reply is None and text == self._conversation.text(messages[:index], tools):
            return Marked(text, ())  # the template leaves the turn out; if it has an answer, the proof tells
        if reply is None:
            raise StageError(_refusal(index, prompt, text))
        return Marked(prompt + reply, (Span(len(prompt), len(prompt + reply)),))

    def _reply(self, messages: Sequence[Message], index: int, tools: Tools) -> str | None:
        """-> what follows the prompt, by a template that renders the turns before an answer otherwise than a prompt.

        Some write the system prompt into the last turn, if that is the user's. What lies between that turn's content
        and the answer's must begin as the prompt ends; None where it does not.
        """
        before = messages[index - 1]
        if not before.get("content"):
            return None
        asked = [*messages[: index - 1], before | {"content": ASKED_MARK}]
        *_, ending = self._conversation.text(asked, tools, prompt=True).split(ASKED_MARK)
        *shown, rest = self._conversation.text([*asked, messages[index]], tools).split(ASKED_MARK)
        return rest.removeprefix(ending) if shown and rest.startswith(ending) else None

    def _begin_of_first(self, text: str) -> int:
        """An answer that nothing comes before: the template is asked what it writes before others."""
        question = [{"role": "user", "content": USER_MARK}]
        try:
            asked, prompt = (self._conversation.text(question, prompt=prompt) for prompt in (False, True))
        except StageError:
            return 0
        opening = prompt.removeprefix(asked) if prompt.startswith(asked) else ""
        return text.find(opening) + len(opening) if opening and opening in text else 0

    def renderings(self, messages: Sequence[Message], answers: Sequence[Answer], tools: Tools = None) -> list[Marked]:
        """-> the whole conversation with all answers in it, where it begins as each of them does; else one for each."""
        if answers and answers[-1].turn == len(messages) - 1:
            whole = answers[-1].marked.text
        else:
            whole = self._conversation.text(messages, tools)
        parts = [self._in_whole(whole, answer.marked) for answer in answers]
        if all(part is not None for part in parts):
            return [Marked(whole, tuple(span for part in parts if part for span in part))]
        return [answer.marked for answer in answers]

    def _in_whole(self, whole: str, marked: Marked) -> tuple[Span, ...] | None:
        """-> an answer's spans where the whole begins as it does, but for an end of sequence after its end of turn.

        Some templates write that at the end of a conversation only (Phi 3).
        """
        if whole.startswith(marked.text):
            return marked.spans
        ended = self._without_end(marked.text)
        if not (self._ends_turns and whole.startswith(ended)):
            return None
        return tuple(Span(span.begin, min(span.end, len(ended))) for span in marked.spans if span.begin < len(ended))

    def _without_end(self, text: str) -> str:
        return text.rstrip().removesuffix(self._conversation.end_of_sequence or "\0")

    @cached_property
    def _ends_turns(self) -> bool:
        """Whether an answer has an end of its own, so that it needs no end of sequence."""
        try:
            text = self._conversation.text([{"role": "user", "content": USER_MARK}, _REPLY])
        except StageError:
            return False
        return bool(self._without_end(text.rpartition(ANSWER_MARK)[2]).strip())


def _refusal(index: int, prompt: str, text: str) -> str:
    common = max(0, num_common(prompt, text) - 40)
    return (
        f"data.template: the student's chat template asks for turn {index + 1} with ... {prompt[common:][-200:]!r} and"
        f" renders the turn as ... {text[common:][:200]!r}, which does not go on from there: the model would never"
        " write this answer. Where the template begins a thought, rows need thoughts (reasoning_content), or"
        " data.chat_template_kwargs: {enable_thinking: false} if it knows that; else give a jinja text as"
        " data.template, or train_on_prompt: true"
    )
