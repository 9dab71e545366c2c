"""Trainings whose student writes answers, and teachers that wrote some beforehand: what such stages leave on disk."""

import json
import random
from collections.abc import Sequence
from typing import Any

from ablate.planning.plan import Cell
from support.report_study import Bench, curve

PROMPTS = tuple(f"Question: what are {one} and {one + 1} together?\nAnswer:" for one in range(8))
LETTERS = "the sum is some number, I think; and "


def measures(step: int, steps: int, draw: random.Random, *, share: float = 1.0) -> dict[str, Any]:
    """-> what a step records besides of the answers that its student wrote: they grow longer, and end more often."""
    part = step / steps
    return {
        "written": 128 * share,
        "answer_length": 20 + 30 * part + draw.gauss(0, 2),
        "ended": min(1.0, max(0.0, 0.4 + 0.5 * part + draw.gauss(0, 0.05))),
        "repetition": max(0.0, 0.3 - 0.2 * part + draw.gauss(0, 0.02)),
        "student_entropy": 2.5 - part + draw.gauss(0, 0.05),
        "own_reverse_kl": 1.8 - 1.2 * part + draw.gauss(0, 0.05),
        "written_tokens_s": 900 + draw.gauss(0, 30),
        "student_share": share,
    }


def written_curve(cell: Cell, steps: int, *, share: float = 1.0, every: int = 1, **more: Any) -> bytes:
    """-> metrics.jsonl in which every n-th step has answers of the student; with `share` 1 no answer has labels.

    `more`: fields of every step.
    """
    draw = random.Random(f"written {cell.name}")
    records = [json.loads(line) for line in curve(cell, steps).splitlines()]
    for record in records:
        is_written = record["step"] % every == 0
        own = measures(record["step"], steps, draw, share=share)
        record |= {name: value if is_written else None for name, value in own.items()} | more
        if share == 1:
            record["class_loss"] = None
    return "".join(f"{json.dumps(record)}\n" for record in records).encode()


def answer(row: int, step: int, text: str = "", **fields: Any) -> dict[str, Any]:
    """-> one line of a file of answers."""
    draw = random.Random(f"{row} {step} {text}")
    text = text or f"{LETTERS[: 10 + step % 25]} {2 * row + 1}."
    whole = {"step": step, "row": row, "prompt": PROMPTS[row % len(PROMPTS)], "answer": text, "num_tokens": len(text)}
    scores = {"teacher_logprob": -draw.random(), "student_logprob": -draw.random(), "writer": "student"}
    return whole | {"ended": step % 3 != 0} | scores | fields


def answers_file(answers: Sequence[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(one)}\n" for one in answers).encode()


def commit_written(
    study: Bench,
    cell: Cell,
    *,
    steps: int = 60,
    final: Sequence[dict[str, Any]] | None = None,
    held_out: dict[str, Any] | None = None,
    **how: Any,
) -> None:
    """Puts a finished training on disk that kept answers of rows 3 and 4 at some steps, and of six rows at its end.

    `how`: of `written_curve`.
    """
    assert cell.trained
    on_the_way = [answer(row, step) for step in range(10, steps + 1, 10) for row in (3, 4)]
    at_the_end = [answer(row, steps, f"{cell.row.name} says {row}") for row in range(6)] if final is None else final
    files = {"out/samples.jsonl": answers_file(on_the_way), "out/final_samples.jsonl": answers_file(at_the_end)}
    files |= {"out/holdout.json": json.dumps(held_out).encode()} if held_out else {}
    study.commit_files(cell.trained, {"metrics.jsonl": written_curve(cell, steps, **how)} | files)
