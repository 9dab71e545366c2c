"""Chat rows as tokens and masks: each answer as the model would write it, in as few texts as that takes."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ablate.core.errors import StageError
from ablate.data.answer_spans import Answer, AnswerSpans, is_answer, is_trained
from ablate.data.chat_templates import Conversation, Message, Tools
from ablate.data.masks import Marked, TokenRow, complement, everything, masked
from ablate.data.proof import TURN_MARK, Proof, marked_turns
from ablate.data.tally import Tally
from ablate.study.data_settings import Data


class ChatRows:
    """Renders conversations, and counts what the template makes of them."""

    def __init__(self, tokenizer: Any, conversation: Conversation, data: Data, tally: Tally) -> None:
        self._tokenizer = tokenizer
        self._conversation = conversation
        self._data = data
        self._tally = tally
        self._spans = AnswerSpans(conversation)
        self._proof = Proof(self._spans, tally)
        self._left_out: dict[tuple[Any, ...], tuple[bool, tuple[str, ...]]] = {}

    def render(self, messages: Sequence[Message], tools: Tools = None) -> list[TokenRow]:
        """-> the row's tokens: one row, or one for each answer.

        Raises StageError where the template refuses it, or a mask would not hold the answers.
        """
        if not messages:
            return [TokenRow([], [])]
        self._count(messages, tools)
        if self._data.train_on_prompt:
            return [self._all_but_unweighted(messages, tools)]
        answers = self._proven(messages, [i for i, message in enumerate(messages) if is_trained(message)], tools)
        if self._data.answers == "last":
            answers = answers[-1:]
        texts = self._spans.renderings(messages, answers, tools)
        if len(texts) > 1:
            self._tally.add("several")
            self._tally.add("into", len(texts))
        return [masked(self._tokenizer, text, is_cut=self._conversation.has_prompts) for text in texts]

    def _proven(self, messages: Sequence[Message], indices: Sequence[int], tools: Tools) -> list[Answer]:
        answers = [self._spans.answer(messages, index, tools) for index in indices]
        return [answer for answer in answers if self._proof.require(messages, answer, tools)]

    def _all_but_unweighted(self, messages: Sequence[Message], tools: Tools) -> TokenRow:
        unweighted = [i for i, message in enumerate(messages) if is_answer(message) and not is_trained(message)]
        if other := next((m for m in messages if m.get("weight") == 0 and not is_answer(m)), None):
            raise StageError(
                f"a turn of role {other['role']} has weight 0, and train_on_prompt: true would train on it: say"
                " data.train_on_prompt: false"
            )
        text = self._conversation.text(messages, tools)
        if not unweighted:
            return everything(self._tokenizer, text)
        texts = self._spans.renderings(messages, self._proven(messages, unweighted, tools), tools)
        if texts[0].text != text:
            raise StageError(
                "data.template: the student's chat template renders a turn in another way once more turns follow, so"
                " that it cannot be told where an answer of weight 0 lies in the whole: train_on_prompt: false"
            )
        spans = complement(texts[0].spans, len(text))
        return masked(self._tokenizer, Marked(text, spans), is_cut=self._conversation.has_prompts)

    def _count(self, messages: Sequence[Message], tools: Tools) -> None:
        self._tally.add("unweighted", sum(is_answer(message) and not is_trained(message) for message in messages))
        ignores_tools, roles = self._leaving_out(messages, tools)
        self._tally.add("tools", int(ignores_tools))
        for role in roles:
            self._tally.add_left_out(role)

    def _leaving_out(self, messages: Sequence[Message], tools: Tools) -> tuple[bool, tuple[str, ...]]:
        """-> whether the template ignores tools, and the role of each turn it leaves out; once a shape of rows."""
        shape = (bool(tools), *((message["role"], *sorted(_given(message))) for message in messages))
        if shape not in self._left_out:
            self._left_out[shape] = self._look(messages, tools)
        return self._left_out[shape]

    def _look(self, messages: Sequence[Message], tools: Tools) -> tuple[bool, tuple[str, ...]]:
        with suppress(StageError):  # a template that takes only contents of some sort: it tells nothing
            marked = marked_turns(messages)
            text = self._conversation.text(marked, tools)
            ignores_tools = bool(tools) and self._conversation.text(marked) == text
            text += self._last_prompt(marked, tools)
            roles = tuple(
                str(message["role"])
                for number, message in enumerate(messages)
                if message.get("content") and not is_answer(message) and f"{TURN_MARK}{number}x" not in text.lower()
            )
            return ignores_tools, roles
        return False, ()

    def _last_prompt(self, messages: Sequence[Message], tools: Tools) -> str:
        """-> what the last answer is asked with, where that is trained on: in it some templates say more."""
        last = max((i for i, message in enumerate(messages) if is_answer(message)), default=0)
        if self._data.train_on_prompt or not last:
            return ""
        return self._conversation.text(messages[:last], tools, prompt=True)


def _given(message: Message) -> list[str]:
    return [name for name, value in message.items() if value]
