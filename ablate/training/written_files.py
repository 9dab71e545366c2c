"""What a student has written, in a checkpoint and in a result: files of JSON that a person can open."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ablate.core import disk
from ablate.core.values import spelled
from ablate.data.tokens import TokenRows
from ablate.store.job import Job
from ablate.training.on_policy import Written
from ablate.training.prompts import Answer, Prompt, prompt_ids

STATE, KEPT = "written.json", "kept_answers.jsonl"
SAMPLES = "samples.jsonl"
"""In a result too."""
PLAIN = ("share", "looked", "num_written", "num_cut")
"""Of `Written`, as they are in JSON."""


def save(written: Written, folder: Path) -> None:
    state = {name: getattr(written, name) for name in PLAIN}
    disk.write_json(folder / STATE, state | {"answers": [answer_record(answer) for answer in written.answers]})
    write_lines(folder / SAMPLES, written.samples)
    if written.replay:
        write_lines(folder / KEPT, map(answer_record, written.replay.kept))


def finish(written: Written, job: Job) -> None:
    """What a finished training leaves of it: samples, and how many answers were cut."""
    write_lines(job.out / SAMPLES, written.samples)
    if written.num_cut:
        most = written.writing.recipe.sampling.max_new_tokens
        job.notes["answers"] = (
            f"{written.num_cut} of {written.num_written} that the student wrote had not ended with {most} tokens: they"
            " were cut there"
        )


def restore(written: Written, rows: TokenRows, folder: Path) -> None:
    """Takes over what `save` wrote; `rows`: those trained on, whose prompts were answered."""
    state = json.loads((folder / STATE).read_text())
    for name in PLAIN:
        setattr(written, name, state[name])
    written.answers = [answer_of(record, rows) for record in state["answers"]]
    written.samples = list(_read_lines(folder / SAMPLES))
    if written.replay:
        written.replay.kept = [answer_of(record, rows) for record in _read_lines(folder / KEPT)]


def write_lines(path: Path, records: Iterable[Any]) -> None:
    """Writes one JSON object a line."""
    disk.write(path, "".join(f"{json.dumps(spelled(record), ensure_ascii=False)}\n" for record in records))


def _read_lines(path: Path) -> Iterable[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def answer_record(answer: Answer) -> dict[str, Any]:
    """-> the answer without its prompt's tokens, which the row has."""
    return {
        "row": answer.prompt.row,
        "number": answer.prompt.number,
        "ids": list(answer.ids),
        "ended": answer.ended,
        "logprob": answer.logprob,
    }


def answer_of(record: dict[str, Any], rows: TokenRows) -> Answer:
    """-> the answer that a record is of; `rows`: those whose prompts were answered."""
    prompt = Prompt(record["row"], record["number"], prompt_ids(rows, record["row"]))
    return Answer(prompt, tuple(record["ids"]), record["ended"], record["logprob"])
