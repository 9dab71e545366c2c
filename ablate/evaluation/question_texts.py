"""What a task asked in words: the end of each question and the texts of its choices, kept beside the samples."""

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

END_OF_QUESTION = 600
"""Characters of a prompt that are kept: the question is at its end."""
START_OF_CHOICE = 300
CUT = "…"
"""Ends a choice that is longer."""


def question_texts(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """-> of lm-eval's records doc_id, doc_hash, question and choices, once a question; not of texts to be written."""
    asked = {record["doc_id"]: record for record in records}
    return [kept for record in asked.values() if (kept := _kept(record))]


def packed(texts: Iterable[Mapping[str, Any]]) -> bytes:
    """-> JSONL, compressed: the same bytes for the same texts."""
    lines = (json.dumps(text, ensure_ascii=False, separators=(",", ":"), sort_keys=True) for text in texts)
    return gzip.compress("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"), 6, mtime=0)


def _kept(record: Mapping[str, Any]) -> dict[str, Any]:
    arguments = record["arguments"]
    if not all(len(one) > 1 and isinstance(one[0], str) and isinstance(one[1], str) for one in arguments):
        return {}  # of a text that is written, or one whose every token is scored
    question, choices = _question_and_choices(arguments)
    return {
        "doc_id": record["doc_id"],
        "doc_hash": record["doc_hash"],
        "question": question[-END_OF_QUESTION:],
        "choices": [_start(choice) for choice in choices],
    }


def _start(choice: str) -> str:
    return choice if len(choice) <= START_OF_CHOICE else f"{choice[:START_OF_CHOICE]}{CUT}"


def _question_and_choices(arguments: Sequence[Sequence[str]]) -> tuple[str, list[str]]:
    """-> what all requests begin with, and what each goes on with; a blank to be filled in stands in a choice."""
    arguments = [one for one in arguments if one[0]] or arguments  # acc_mutual_info asks for answers without a question
    contexts = [context for context, _, *_ in arguments]
    if len(set(contexts)) == 1:
        return contexts[0], [continuation for _, continuation, *_ in arguments]
    num_shared = sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, zip(*contexts, strict=False)))
    shared = contexts[0][:num_shared]
    begin = max(shared.rfind(" "), shared.rfind("\n")) + 1  # no word is cut in two
    return shared[:begin], [f"{context[begin:]}{continuation}" for context, continuation, *_ in arguments]
