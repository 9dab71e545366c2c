"""Which tokens of two vocabularies stand for the same text, whatever their ids and their way to write it."""

from collections.abc import Iterator
from typing import NamedTuple

from ablate.data.token_texts import TokenTexts


class CommonTokens(NamedTuple):
    """Pairs of tokens, no token in two of them, in the order of the student's ids."""

    student: list[int]
    teacher: list[int]


def common_tokens(student: TokenTexts, teacher: TokenTexts) -> CommonTokens:
    """-> the pairs: first those of equal name and text, then those of equal text, words before single bytes.

    Two ends of sequence are one pair, and so are two begins. GPT-2's `Ġthe` and SentencePiece's `▁the` are " the".
    """
    pairs = dict(_of_equal_name(student, teacher))
    taken = set(pairs.values())
    ids_by_text: dict[str, list[int]] = {}
    for token in teacher.by_kind:
        if token not in taken:
            ids_by_text.setdefault(teacher.texts[token], []).append(token)
    for token in student.by_kind:
        if token not in pairs and (others := ids_by_text.get(student.texts[token])):
            pairs[token] = others.pop(0)
    ordered = sorted(pairs)
    return CommonTokens(ordered, [pairs[token] for token in ordered])


def _of_equal_name(student: TokenTexts, teacher: TokenTexts) -> Iterator[tuple[int, int]]:
    ids_by_name = {name: token for token, name in enumerate(teacher.names) if name}
    for token, name in enumerate(student.names):
        other = ids_by_name.get(name)
        if other is not None and student.texts[token] == teacher.texts[other]:
            yield token, other
