"""An evaluation from beginning to end: task by task, each kept as soon as it is done, so that a killed one goes on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ablate import disk
from ablate.evaluation import scores
from ablate.evaluation.scores import Answer
from ablate.job import Job


@dataclass(frozen=True)
class Subject:
    """The model to be asked."""

    folder: Path
    adapters: Sequence[Path]
    """Results of the trainings on top of it, in order."""
    trust_remote_code: bool


def run(job: Job, subject: Subject, loaded: Mapping[str, Any]) -> dict[str, Any]:
    """Asks what no earlier attempt has asked, and writes out/samples. -> scores of every task and group."""
    kept = _Kept(job, list(loaded))
    telling = _Telling(job, loaded)
    rest = [name for name in loaded if name not in kept.answers]
    lm = _language_model(job, subject, telling) if rest else None
    for name in rest:
        telling.begin(name)
        scores.seed()
        kept.add(name, scores.ask(lm, loaded[name], job.settings.recipe.limit))
        job.stop_if_asked()
    _write_samples(job.out / "samples", kept.answers)
    return {task: of for answer in kept.answers.values() for task, of in answer.scores.items()}


def _language_model(job: Job, subject: Subject, telling: "_Telling") -> Any:
    from ablate.engine.models import load_merged
    from ablate.evaluation.model import language_model

    recipe = job.settings.recipe
    trusted = subject.trust_remote_code
    merged = load_merged(subject.folder, subject.adapters, recipe.dtype, job.device, trust_remote_code=trusted)
    return language_model(merged.model, merged.tokenizer, recipe.batch_size, telling.hear)


def _write_samples(folder: Path, answers: Mapping[str, Answer]) -> None:
    folder.mkdir()
    for answer in answers.values():
        for task, records in answer.samples.items():
            lines = (json.dumps(record, ensure_ascii=False, separators=(",", ":")) for record in records)
            disk.write(folder / f"{task}.jsonl", "".join(f"{line}\n" for line in lines))


class _Kept:
    """Finished tasks. Checkpoint n holds the first n of them, a file each."""

    def __init__(self, job: Job, names: Sequence[str]) -> None:
        self.answers: dict[str, Answer] = {}
        self._checkpoints = job.checkpoints
        num_done, self._folder = job.checkpoints.latest() or (0, job.checkpoints.folder)
        for number, name in enumerate(names[:num_done]):
            self.answers[name] = Answer(**json.loads((self._folder / f"{number}.json").read_text()))

    def add(self, name: str, answer: Answer) -> None:
        number = len(self.answers)

        def write(folder: Path) -> None:
            for earlier in range(number):
                disk.link(self._folder / f"{earlier}.json", folder / f"{earlier}.json")
            disk.write_json(folder / f"{number}.json", asdict(answer))

        self._checkpoints.save(number + 1, write)
        self._folder = self._checkpoints.folder / f"step-{number + 1}"
        self.answers[name] = answer


class _Telling:
    """How far the evaluation is, in questions; inside a task by the requests that are answered."""

    def __init__(self, job: Job, loaded: Mapping[str, Any]) -> None:
        self._job = job
        self._loaded = loaded
        self._sizes = {name: scores.num_questions(of, job.settings.recipe.limit) for name, of in loaded.items()}

    def begin(self, name: str) -> None:
        self._name = name
        self._num_answered = 0
        self._num_before = sum(list(self._sizes.values())[: list(self._sizes).index(name)])

    def hear(self) -> None:
        """Of one more request answered. Raises Interrupted once the worker was asked to stop."""
        self._num_answered += 1
        tasks = self._loaded[self._name]["tasks"].values()
        num_requests = sum(len(task.instances) * (task.config.repeats or 1) for task in tasks)
        done = self._num_before + self._sizes[self._name] * min(1.0, self._num_answered / max(1, num_requests))
        self._job.progress(int(done), sum(self._sizes.values()), "questions", task=self._name)
        self._job.stop_if_asked()
