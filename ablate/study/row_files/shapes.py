"""Which column of a file is which of ours, by the study's format and what its rows hold; each row as we read it."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, TypeAlias

from ablate.core.errors import did_you_mean
from ablate.study.data_settings import COLUMNS, OPTIONAL, Data
from ablate.study.row_files.conversations import ROLES, Turn, is_silent, read_tools, read_turns, sound_text
from ablate.study.row_files.raw import RawRow, Spot, UnreadableRows, kind_of

Row: TypeAlias = dict[str, Any]

CONVERSATIONS: Final = ("conversations", "conversation")
PREFERENCES: Final = ("chosen", "rejected")


@dataclass
class Tally:
    """What was met in rows while they were read."""

    rows: int = 0
    missing: int = 0
    """Rows without a value (null, NaN) in a column or a turn that needs one; read as empty."""
    empty: int = 0
    """Rows with an empty answer."""
    answered: int = 0
    """Rows with an answer that is not empty."""
    without_answer: int = 0
    """Chat rows without any turn of the assistant's."""
    unknown_roles: Counter[str] = field(default_factory=Counter)
    """Turns by their role, of roles that are none of ours."""
    further_keys: Counter[str] = field(default_factory=Counter)
    """Turns by keys that only a template may know."""


_KNOWN_KEYS: Final = {
    "role",
    "content",
    "tool_calls",
    "weight",
    "name",
    "tool_call_id",
    "reasoning_content",
    "thinking",
}


_THOUGHTS: Final = {"reasoning_content", "thinking"}


@dataclass(frozen=True)
class Shape:
    """How the rows of a source are read."""

    words: str
    """For a reader: chat, turns of from and value in column conversations; not read: id."""
    columns: Mapping[str, str]
    """Our name of a column -> its name in the data."""
    is_chat: bool

    @cached_property
    def needed(self) -> dict[str, str]:
        """-> those that every row has."""
        return {ours: theirs for ours, theirs in self.columns.items() if ours not in OPTIONAL}

    def read(self, raw: RawRow, file: str, tally: Tally) -> Row:
        """-> the row as `COLUMNS` names it: texts, or `messages` and where there are any `tools`.

        Raises UnreadableRows for a cell that is not what its column should hold, with its place.
        """
        spot, values = Spot(file, raw.number, raw.line), raw.values
        for ours, theirs in self.needed.items():
            if theirs not in values:
                hint = did_you_mean(theirs, map(str, values))
                raise spot.wrong(f"there is no {theirs!r} ({ours}), which earlier rows have.{hint}")
        row = self._chat(values, spot) if self.is_chat else self._texts(values, spot)
        self._count(values, row, tally)
        return row

    def _texts(self, values: Row, spot: Spot) -> Row:
        row = {ours: values.get(theirs) for ours, theirs in self.columns.items()}
        for ours, value in row.items():
            if not (isinstance(value, str) and value.isascii()):  # most are, and to say a place takes longer
                row[ours] = _text(value, spot.at(f"column {self.columns[ours]!r}"))
        return row

    def _chat(self, values: Row, spot: Spot) -> Row:
        turns = [turn for ours, theirs in self.needed.items() for turn in _turns(values[theirs], ours, theirs, spot)]
        if theirs := self.columns.get("system"):
            turns = _with_system(turns, values.get(theirs), spot.at(f"column {theirs!r}"))
        theirs = self.columns.get("tools", "")
        tools = read_tools(values.get(theirs), spot.at(f"column {theirs!r}"))
        return {"messages": turns} | ({"tools": tools} if tools else {})

    def _count(self, values: Row, row: Row, tally: Tally) -> None:
        tally.rows += 1
        cells = [values.get(theirs) for theirs in self.needed.values()]
        if not self.is_chat:
            tally.missing += any(map(is_missing, cells))
            is_answered = bool(row[list(row)[-1]].strip())
            tally.answered += is_answered
            tally.empty += not is_answered
            return
        given = [turn for cell in cells if isinstance(cell, list) for turn in cell]
        tally.missing += any(map(is_missing, cells)) or any(map(is_silent, given))
        answers = [turn for turn in row["messages"] if turn["role"] == "assistant"]
        tally.answered += any(not _is_empty(turn) or turn.keys() & _THOUGHTS for turn in answers)
        tally.without_answer += bool(row["messages"]) and not answers
        tally.empty += not row["messages"] or any(map(_is_empty, answers))
        tally.unknown_roles.update(turn["role"] for turn in row["messages"] if turn["role"] not in ROLES)
        tally.further_keys.update(key for turn in row["messages"] for key in turn.keys() - _KNOWN_KEYS)


def is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_empty(answer: Turn) -> bool:
    return not (answer["content"] or "").strip() and "tool_calls" not in answer


def _text(value: Any, spot: Spot) -> str:
    if is_missing(value):
        return ""
    if isinstance(value, str):
        return sound_text(value, spot)
    is_atom = isinstance(value, bool | int | float)
    remedy = "put it in quotes" if is_atom else "write it as text, or name another column with data.columns"
    raise spot.wrong(f"text is expected, got {kind_of(value)}: {remedy}")


def _turns(value: Any, ours: str, theirs: str, spot: Spot) -> list[Turn]:
    """-> the turns of one column; an answer that is part of the prompt is not trained on."""
    if is_missing(value):
        return []
    turns = read_turns(value, spot.at(f"column {theirs!r}"))
    if ours == "prompt":
        return [turn | {"weight": 0} if turn["role"] == "assistant" else turn for turn in turns]
    return turns


def _with_system(turns: list[Turn], system: Any, spot: Spot) -> list[Turn]:
    text = _text(system, spot)
    if not text:
        return turns
    if turns and turns[0]["role"] == "system":
        raise spot.wrong("the conversation begins with a system turn of its own: leave one of them")
    return [{"role": "system", "content": text}, *turns]


def require_answers(tally: Tally, data: Data) -> None:
    """Raises UnreadableRows where all rows were read and none has an answer: ends of texts alone would be learnt.

    Conversations without any turn of the assistant's may be trained on as prompts.
    """
    is_chat = data.format == "chat"
    if tally.answered or (is_chat and data.train_on_prompt and tally.without_answer):
        return
    ours = COLUMNS[data.format][-1]
    what = f"column {data.columns.get(ours, ours)!r} is empty in all of them"
    if is_chat:
        is_of_others = tally.without_answer == tally.rows
        what = "no turn is the assistant's" if is_of_others else "every turn of the assistant's is empty"
    raise UnreadableRows(
        f"{data.source}: no answer in its rows ({tally.rows:,}): {what}; is another column meant (data.columns)?"
    )


# which shape


def shape_of(first: Row, data: Data, spot: Spot) -> Shape:
    """-> how rows such as the first are read. Raises UnreadableRows where the format's columns are not there."""
    return _chat_shape(first, data, spot) if data.format == "chat" else _text_shape(first, data, spot)


def _text_shape(first: Row, data: Data, spot: Spot) -> Shape:
    columns = {name: data.columns.get(name, name) for name in COLUMNS[data.format]}
    for name, theirs in columns.items():
        if theirs not in first and (name not in OPTIONAL or name in data.columns):
            raise _no_column(name, theirs, first, data, spot)
    if data.format == "prompt_completion" and all(isinstance(first[theirs], list) for theirs in columns.values()):
        raise spot.wrong("prompt and completion are lists of turns: say data.format: chat")
    present = {name: theirs for name, theirs in columns.items() if theirs in first}
    words = ", ".join(name if name == theirs else f"{name} ({theirs})" for name, theirs in present.items())
    return Shape(f"{data.format}: {words}{_not_read(first, present.values())}", columns, is_chat=False)


def _chat_shape(first: Row, data: Data, spot: Spot) -> Shape:
    columns = _chat_columns(first, data, spot)
    for name in ("system", "tools"):
        theirs = data.columns.get(name, name)
        if name in data.columns and theirs not in first:
            raise _no_column(name, theirs, first, data, spot)
        columns[name] = theirs  # later rows may have what the first lacks
    present = {name: theirs for name, theirs in columns.items() if theirs in first}
    return Shape(_chat_words(first, present), columns, is_chat=True)


def _chat_words(first: Row, columns: Mapping[str, str]) -> str:
    turns = [theirs for ours, theirs in columns.items() if ours not in OPTIONAL]
    keys = "from and value" if any(_is_sharegpt(first[theirs]) for theirs in turns) else "role and content"
    words = f"chat: turns of {keys} in {' and '.join(turns)}"
    words += ", of which only the completion's answers are trained on" if "completion" in columns else ""
    words += f", the first turn in {columns['system']}" if "system" in columns else ""
    words += f", tools in {columns['tools']}" if "tools" in columns else ""
    return words + _not_read(first, columns.values())


def _is_sharegpt(turns: Any) -> bool:
    return isinstance(turns, list) and any(isinstance(turn, dict) and turn.get("from") is not None for turn in turns)


def _chat_columns(first: Row, data: Data, spot: Spot) -> dict[str, str]:
    """-> the columns whose turns make a conversation."""
    named = data.columns
    if "messages" in named or ("messages" in first and not {"prompt", "completion"} & named.keys()):
        theirs = named.get("messages", "messages")
        if theirs not in first:
            raise _no_column("messages", theirs, first, data, spot)
        return {"messages": theirs}
    pair = {name: named.get(name, name) for name in ("prompt", "completion")}
    lists = [name for name in CONVERSATIONS if isinstance(first.get(name), list)]
    if len(lists) == 1 and not {"prompt", "completion"} & named.keys():
        return {"messages": lists[0]}
    if all(theirs in first for theirs in pair.values()):
        if all(isinstance(first[theirs], str) for theirs in pair.values()):
            raise spot.wrong("prompt and completion are texts: say data.format: prompt_completion")
        return pair
    lacking = next((name for name in pair if name in named and pair[name] not in first), None)
    if lacking:
        raise _no_column(lacking, pair[lacking], first, data, spot)
    raise _no_column("messages", "messages", first, data, spot)


def _no_column(name: str, theirs: str, first: Row, data: Data, spot: Spot) -> UnreadableRows:
    other = None if name in data.columns else _other_format(first, data.format)
    hint = did_you_mean(theirs, map(str, first))
    remedy = f"Say {other}" if other else f"Say which one it is with data.columns: {{{name}: ...}}"
    return UnreadableRows(f"{spot.file}: there is no column {theirs!r} for format {data.format}.{hint} {remedy}")


def _other_format(first: Row, given: str) -> str | None:
    """-> what to say in the study so that rows with these columns are read, where that is clear."""
    if set(PREFERENCES) <= first.keys():
        column = "messages: chosen" if "prompt" not in first else "prompt: prompt, completion: chosen"
        is_text = isinstance(first["chosen"], str)
        wanted = "prompt_completion" if is_text and "prompt" in first else "text" if is_text else "chat"
        column = "text: chosen" if wanted == "text" else column
        return (
            f"what to train on: chosen and rejected are preferences, of which nothing is distilled here; for the "
            f"chosen answers alone, data.format: {wanted} and data.columns: {{{column}}}"
        )
    is_turns = any(isinstance(first.get(name), list) for name in ("messages", *CONVERSATIONS))
    pair = [first.get("prompt"), first.get("completion")]
    fitting = {
        "chat": is_turns or all(isinstance(one, list) for one in pair),
        "prompt_completion": all(isinstance(one, str) for one in pair),
        "alpaca": {"instruction", "output"} <= first.keys(),
        "text": set(first) == {"text"},
    }
    return next((f"data.format: {name}" for name, fits in fitting.items() if fits and name != given), None)


def _not_read(first: Row, names: Iterable[str]) -> str:
    rest = [str(name).strip() or repr(name) for name in first if name not in {*names}]
    more = f" and {len(rest) - 8} more" if len(rest) > 8 else ""
    return f"; not read: {', '.join(rest[:8])}{more}" if rest else ""
