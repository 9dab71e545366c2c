"""What a reader should know of the rows that were made, in counts and in words: the same words wherever they stand."""

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from ablate.core.values import Json
from ablate.data.masks import TokenRow
from ablate.data.rows import ReadRows
from ablate.data.tally import Rendering

ByRow: TypeAlias = Sequence[Sequence[TokenRow]]
"""What each row became; mostly one row of tokens."""

WORDS: Final = {
    "cut": ("row was cut to data.max_length", "rows were cut to data.max_length"),
    "answers_cut_off": (
        "row lost to data.max_length all that it should teach",
        "rows lost to data.max_length all that they should teach",
    ),
    "empty": ("row has an empty answer", "rows have an empty answer"),
    "missing": (
        "row has a missing value (null, NaN), read as empty",
        "rows have a missing value (null, NaN), read as empty",
    ),
    "without_answer": ("row has no turn of the assistant's", "rows have no turn of the assistant's"),
    "without_loss": (
        "training row has no token that counts in the loss",
        "training rows have no token that counts in the loss",
    ),
    "blank_lines": ("blank line was skipped", "blank lines were skipped"),
    "swallowing": (
        "row has a cell that looks like rows: is a quote not closed?",
        "rows have a cell that looks like rows: is a quote not closed?",
    ),
    "duplicates": (
        "training row is the same as an earlier one, and was kept",
        "training rows are the same as an earlier one, and were kept",
    ),
    "held_out_in_training": (
        "held-out row is also trained on: the held-out loss is of what was learnt by heart",
        "held-out rows are also trained on: the held-out loss is of what was learnt by heart",
    ),
}
"""Count -> what is said of one, and of several."""


def counts(read: ReadRows, rendered: ByRow, cut: ByRow, num_train: int) -> dict[str, Json]:
    """-> what was met from the file to the tokens; `rendered` and `cut` are of all rows, those held out at the end."""
    digests = [_digest(several) for several in rendered]
    trained = set(digests[:num_train])
    both = list(zip(rendered, cut, strict=True))
    return {
        "read": read.tally.rows,
        "shape": read.shape,
        "cut": sum(_num_tokens(short) < _num_tokens(whole) for whole, short in both),
        "answers_cut_off": sum(_has_loss(whole) and not _has_loss(short) for whole, short in both),
        "empty": read.tally.empty,
        "missing": read.tally.missing,
        "without_answer": read.tally.without_answer,
        "without_loss": sum(not _has_loss(short) for short in cut[:num_train]),
        "unknown_roles": dict(sorted(read.tally.unknown_roles.items())),
        "further_keys": dict(sorted(read.tally.further_keys.items())),
        "blank_lines": read.skipped.blank_lines,
        "swallowing": read.skipped.swallowing,
        "duplicates": num_train - len(trained),
        "held_out_in_training": sum(digest in trained for digest in digests[num_train:]),
    }


def notes(counted: Mapping[str, Any]) -> list[str]:
    """-> what was read, and all that `counts` holds beside, in words; one line each."""
    lines = [f"{counted['read']:,} {'row' if counted['read'] == 1 else 'rows'} read as {counted['shape']}"]
    lines += [f"{counted[name]:,} {WORDS[name][counted[name] != 1]}" for name in WORDS if counted[name]]
    if roles := counted["unknown_roles"]:
        number = sum(roles.values())
        turns = "turn is" if number == 1 else "turns are"
        lines.append(f"{number:,} {turns} of a role that is never trained on: {_listed(roles)}")
    if keys := counted["further_keys"]:
        lines.append(f"turns have keys that only a chat template may read: {_listed(keys)}")
    return lines


def _listed(numbers: Mapping[str, int], most: int = 8) -> str:
    more = [f"and {len(numbers) - most} more"] if len(numbers) > most else []
    return ", ".join([*(f"{name} ({number:,})" for name, number in list(numbers.items())[:most]), *more])


def _num_tokens(several: Sequence[TokenRow]) -> int:
    return sum(len(row.ids) for row in several)


def _has_loss(several: Sequence[TokenRow]) -> bool:
    """Whether a token counts; the first of a row is never predicted."""
    return any(any(row.loss_mask[1:]) for row in several)


def _digest(several: Sequence[TokenRow]) -> bytes:
    hasher = hashlib.blake2b(digest_size=16)
    for row in several:
        hasher.update(len(row.ids).to_bytes(8, "little") + array("q", row.ids).tobytes() + bytes(row.loss_mask))
    return hasher.digest()


def why_nothing_counts(counted: Mapping[str, Any], rendering: Rendering, max_length: int | None) -> str:
    """-> the likely reason why no token of any row counts in the loss."""
    if counted["answers_cut_off"]:
        return f"data.max_length: {max_length} cuts every answer off"
    if rendering.unweighted:
        return "the answers have weight 0"
    if rendering.calls:
        return "the answers are tool calls, which the student's chat template leaves out"
    return "are the answers empty, or data.columns the wrong ones?"
