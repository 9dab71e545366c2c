"""A conversation as its row has it becomes turns of one form, whichever of the usual ways it was written in."""

import difflib
import json
import math
import re
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from ablate.core.errors import did_you_mean
from ablate.study.row_files.raw import Spot, kind_of

Turn: TypeAlias = dict[str, Any]

ROLES: Final = ("system", "user", "assistant", "tool", "developer")
_ROLE_OF: Final = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "observation": "tool"}
_CALL: Final = "function_call"
"""ShareGPT's role of a turn that calls a tool."""
_ALMOST: Final = {
    "bot": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "bing": "assistant",
    "tool_call": "assistant",
    "function": "tool",
}
_MASKS: Final = ("train", "training", "loss", "loss_mask", "mask", "masked", "trainable")
_TEXTS: Final = ("name", "tool_call_id", "reasoning_content", "thinking")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def read_turns(value: Any, spot: Spot) -> list[Turn]:
    """-> the turns of a conversation: role and content, or from and value.

    Keys without a value (null) are dropped; keys unknown here are kept, since a template may read them.

    Raises UnreadableRows.
    """
    if not isinstance(value, list):
        raise spot.wrong(f"a list of turns is expected, got {kind_of(value)}")
    return [_turn(turn, spot.at(f"turn {number}")) for number, turn in enumerate(value, 1)]


def _turn(given: Any, spot: Spot) -> Turn:
    if not isinstance(given, dict):
        raise spot.wrong(f"a turn is a mapping {{role: ..., content: ...}}, got {kind_of(given)}")
    speaker, text = _keys(given, spot)
    further = {name: value for name, value in given.items() if value is not None and name not in (speaker, text)}
    is_call = given[speaker] == _CALL
    turn: Turn = {"role": _role(given[speaker], spot), "content": None} | further
    _check_further(turn, spot)
    if is_call:
        turn["tool_calls"] = _calls(given.get(text), spot)
    else:
        turn["content"] = _content(given.get(text), spot.at(f"key {text!r}"))
    if turn["content"] is None and "tool_calls" not in turn:
        turn["content"] = ""
    return turn


def is_silent(value: Any) -> bool:
    """Whether a turn, as given, has nothing where its text should be, and calls no tool."""
    if not isinstance(value, dict) or value.get("tool_calls"):
        return False
    return value.get("content") is None and value.get("value") is None


def _keys(given: Turn, spot: Spot) -> tuple[str, str]:
    """-> the keys that say who speaks, and what."""
    is_sharegpt = given.get("from") is not None and "value" in given
    if is_sharegpt and given.get("role") is not None:
        raise spot.wrong("who speaks? There are role and from: leave one pair of keys")
    if is_sharegpt:
        return "from", "value"
    lacks = [key for key in ("role", "content") if key not in given]
    if lacks and not (lacks == ["content"] and given.get("tool_calls")):
        hint = did_you_mean(lacks[0], map(str, given))
        raise spot.wrong(f"a turn has role and content (or from and value); there is no {lacks[0]!r}.{hint}")
    return "role", "content"


def _role(value: Any, spot: Spot) -> str:
    if not isinstance(value, str):
        raise spot.wrong(f"role: text is expected, got {kind_of(value)}")
    if value in ROLES:
        return value
    if value == _CALL:
        return "assistant"
    if value in _ROLE_OF:
        return _ROLE_OF[value]
    almost = _ALMOST.get(value.strip().casefold()) or _near(value)
    if almost:
        raise spot.wrong(f"role: {value!r} is none; is {almost!r} meant? A turn of another role is never trained on")
    return value


def _near(value: str) -> str | None:
    """-> the role that one of another name is likely to be; what is like the assistant's is so sooner than others."""
    known = {name: name for name in ROLES} | _ROLE_OF
    for cutoff in (0.75, 0.6):
        near = difflib.get_close_matches(value.strip().casefold(), known, n=1, cutoff=cutoff)
        if near and (cutoff > 0.6 or known[near[0]] == "assistant"):
            return known[near[0]]
    return None


def _content(value: Any, spot: Spot) -> str | None:
    """-> text, its parts joined as chat templates join them: one after the other."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return sound_text(value, spot)
    if not isinstance(value, list):
        raise spot.wrong(f"text is expected, got {kind_of(value)}")
    return "".join(_part(part, spot.at(f"part {number}")) for number, part in enumerate(value, 1))


def _part(given: Any, spot: Spot) -> str:
    part = {name: one for name, one in given.items() if one is not None} if isinstance(given, dict) else {}
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        if part.keys() - {"type", "text"}:
            raise spot.wrong(f"a part of text has type and text alone, and this one {', '.join(sorted(part))}")
        return sound_text(part["text"], spot)
    what = f"type {part['type']!r}" if "type" in part else kind_of(given)
    raise spot.wrong(f"a part of a turn is {{type: text, text: ...}}, got {what}: only text is trained on here")


def sound_text(text: str, spot: Spot) -> str:
    """-> the text. Raises UnreadableRows for half a character, which no tokenizer takes."""
    if not text.isascii() and (half := _SURROGATE.search(text)):
        raise spot.wrong(f"the text holds half a character (U+{ord(half[0]):04X} alone): write the whole one")
    return text


def _check_further(turn: Turn, spot: Spot) -> None:
    """Raises UnreadableRows for a key beside role and content whose value is not what its name says."""
    if _CALL in turn:
        raise spot.wrong("function_call is an old form: write tool_calls: [{type: function, function: {...}}]")
    if mask := next((name for name in _MASKS if name in turn), None):
        raise spot.wrong(f"{mask!r} is not read; write weight: 0 where an assistant's turn is not to be trained on")
    for name in _TEXTS:
        if name in turn and not isinstance(turn[name], str):
            raise spot.wrong(f"{name}: text is expected, got {kind_of(turn[name])}")
    if not turn.get("tool_calls", True):
        del turn["tool_calls"]  # an empty list, as some tools write it
    if "tool_calls" in turn:
        turn["tool_calls"] = _checked_calls(turn["tool_calls"], turn["role"], spot)
    if "weight" in turn:
        turn["weight"] = _weight(turn, spot)
    for name, value in turn.items():
        _require_plain(value, spot.at(f"key {name!r}"))


def _weight(turn: Turn, spot: Spot) -> int:
    weight = turn["weight"]
    if isinstance(weight, bool) or weight not in (0, 1):
        raise spot.wrong(f"weight: 0 (not trained on) or 1 is expected, got {kind_of(weight)}")
    if weight and turn["role"] != "assistant":
        raise spot.wrong(f"weight: 1 is an assistant's turn's alone, and this is of role {turn['role']!r}")
    return int(weight)


def _checked_calls(calls: Any, role: str, spot: Spot) -> list[Turn]:
    spot = spot.at("key 'tool_calls'")
    if role != "assistant":
        raise spot.wrong(f"only an assistant calls tools, and this turn is of role {role!r}")
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise spot.wrong(f"a list of mappings is expected, got {kind_of(calls)}")
    for call in calls:
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise spot.wrong("a call is {type: function, function: {name: ..., arguments: ...}}")
    return calls


def _calls(value: Any, spot: Spot) -> list[Turn]:
    """-> ShareGPT's function_call, JSON text of a name and its arguments, as tool calls."""
    try:
        calls = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        calls = None
    calls = [calls] if isinstance(calls, dict) else calls
    if not isinstance(calls, list) or not calls or not all(map(_is_call, calls)):
        raise spot.wrong(f"a function_call is JSON text {{name: ..., arguments: ...}}, got {kind_of(value)}")
    return [{"type": "function", "function": call} for call in calls]


def _is_call(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str)


def read_tools(value: Any, spot: Spot) -> list[Any]:
    """-> what a row offers the model to call: a list of mappings, or JSON text of one; empty where there is none."""
    tools = value
    if isinstance(value, str) and value.strip():
        try:
            tools = json.loads(value)
        except ValueError as error:
            raise spot.wrong(f"not JSON: {error}") from error
    if not tools:
        return []
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise spot.wrong(f"a list of mappings is expected, or JSON text of one, got {kind_of(value)}")
    _require_plain(tools, spot)
    return tools


def _require_plain(value: Any, spot: Spot) -> None:
    """Raises UnreadableRows for what JSON has no value for: a date, bytes, a number that is none."""
    inner: Iterable[Any] = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    elif isinstance(value, str):
        sound_text(value, spot)
    elif not (value is None or isinstance(value, bool | int | float)) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise spot.wrong(f"text, a number, a list or a mapping is expected, got {kind_of(value)}")
    for one in inner:
        _require_plain(one, spot)
