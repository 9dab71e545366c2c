"""An evaluation from beginning to end: task by task, each kept as soon as it is done, so that a killed one goes on."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.core import disk
from ablate.evaluation import lm_eval_scores
from ablate.evaluation.forest_scorer import Response
from ablate.evaluation.lm_eval_scores import TaskResult
from ablate.evaluation.model import SharingLM
from ablate.evaluation.question_texts import packed
from ablate.evaluation.written_texts import NamedText, WrittenText
from ablate.store.job import Job
from ablate.study.asked_task import AskedTask
from ablate.training.layer_placement import place_layers
from ablate.training.model_source import ModelSource
from ablate.training.ranks import ranks_of

PARTIAL, TEXTS = "partial.json", "texts.json"
"""In a checkpoint: what is known of the task at hand."""
CHECKPOINT_EVERY_S = 60.0


def evaluate_stage(job: Job, model: ModelSource, loaded: Mapping[str, Any]) -> dict[str, Any]:
    """Asks what no earlier attempt has asked, and writes out/samples, out/questions. -> scores of tasks and groups."""
    recipe, saved = job.settings.recipe, _SavedResults(job, list(loaded))
    if rest := [name for name in loaded if name not in saved.results]:
        _ask(job, model, loaded, rest, saved)
    if job.is_first:
        _write_samples(job.out / "samples", saved.results)
        _write_texts(job.out / "questions", saved.results)
    own = {task.task: task.model_dump(exclude={"task"}) for task in recipe.tasks if isinstance(task, AskedTask)}
    return {
        task: scores | ({"asked": own[name]} if name in own else {})
        for name, result in saved.results.items()
        for task, scores in result.scores.items()
    }


def _ask(job: Job, model: ModelSource, loaded: Mapping[str, Any], names: Sequence[str], saved: "_SavedResults") -> None:
    progress = _EvaluationProgress(job, loaded, saved)
    lm = _language_model(job, model, progress)
    askings = {name: job.settings.recipe.asking(name) for name in names}
    for asking in askings.values():
        lm.use_template(asking.apply_chat_template, asking.system_instruction)  # told before anything is asked
    for name, asking in askings.items():
        progress.begin(name)
        lm.use_template(asking.apply_chat_template)
        lm_eval_scores.seed_as_lm_eval()
        lm.written.begin(saved.texts)
        saved.add(name, lm_eval_scores.evaluate_task(lm, loaded[name], asking, lm.written))
        job.stop_if_asked()


def _language_model(job: Job, model: ModelSource, progress: "_EvaluationProgress") -> SharingLM:
    recipe = job.settings.recipe
    merged = model.load(recipe.dtype, "cpu" if job.layer_devices else job.device, job.checks, job.device)
    if job.layer_devices:
        place_layers(merged.model, job.layer_devices)
    ranks = ranks_of(job)
    return SharingLM(merged.model, merged.tokenizer, recipe.batch_size, progress, job.tokens, ranks)


def _write_samples(folder: Path, results: Mapping[str, TaskResult]) -> None:
    disk.make_folder(folder)
    for result in results.values():
        for task, records in result.samples.items():
            lines = (
                json.dumps(record, ensure_ascii=False, separators=(",", ":"), sort_keys=True) for record in records
            )
            disk.write(folder / f"{task}.jsonl", "".join(f"{line}\n" for line in lines))


def _write_texts(folder: Path, results: Mapping[str, TaskResult]) -> None:
    texts = [pair for result in results.values() for pair in result.texts.items() if pair[1]]
    if texts:
        disk.make_folder(folder)
    for task, records in texts:
        disk.write(folder / f"{task}.jsonl.gz", packed(records))


class _SavedResults:
    """Finished tasks, a file each, and what is known of the one at hand; the last checkpoint holds all of it."""

    def __init__(self, job: Job, names: Sequence[str]) -> None:
        self.results: dict[str, TaskResult] = {}
        self.partial: dict[int, Response] = {}
        """Of the task at hand: number of the request -> its response."""
        self.texts: list[NamedText] = []
        """Of the task at hand: what was written, in whole batches."""
        self._checkpoints = job.checkpoints
        self._saved_at = time.monotonic()
        self._number, self._folder = job.checkpoints.latest() or (0, job.checkpoints.folder)
        for number, name in enumerate(names):
            record = disk.read_json(self._folder / f"{number}.json", most=None)
            if record is None:
                break
            self.results[name] = TaskResult(**record)
        for number, loglikelihood, is_greedy in disk.read_json(self._folder / PARTIAL, most=None) or ():
            self.partial[number] = Response(loglikelihood, is_greedy)
        saved = disk.read_json(self._folder / TEXTS, most=None) or ()
        self.texts += (NamedText(name, WrittenText(*text)) for name, text in saved)

    def add(self, name: str, result: TaskResult) -> None:
        """A task is finished."""
        number, self.partial, self.texts = len(self.results), {}, []
        self._save({f"{number}.json": vars(result)})
        self.results[name] = result

    def add_partial(self, responses: Mapping[int, Response], *, is_stopping: bool) -> None:
        """Some requests of the task at hand are answered; kept on the disk from time to time."""
        self.partial |= responses
        if is_stopping or time.monotonic() - self._saved_at >= CHECKPOINT_EVERY_S:
            self._save({PARTIAL: [[number, *response] for number, response in self.partial.items()]})

    def add_texts(self, texts: Sequence[NamedText], *, is_stopping: bool) -> None:
        """Likewise a batch of texts."""
        self.texts += texts
        if is_stopping or time.monotonic() - self._saved_at >= CHECKPOINT_EVERY_S:
            self._save({TEXTS: self.texts})

    def _save(self, files: Mapping[str, Any]) -> None:
        def write(folder: Path) -> None:
            for earlier in range(len(self.results)):
                disk.link(self._folder / f"{earlier}.json", folder / f"{earlier}.json")
            for name, value in files.items():
                disk.write(folder / name, json.dumps(value))  # indented, it would take ten times as long

        self._number += 1
        self._checkpoints.save(self._number, write)
        self._folder = self._checkpoints.folder / f"step-{self._number}"
        self._saved_at = time.monotonic()


class _EvaluationProgress:
    """How far the evaluation is, in questions; inside a task by the requests that are answered."""

    def __init__(self, job: Job, loaded: Mapping[str, Any], saved: _SavedResults) -> None:
        self._job = job
        self._loaded = loaded
        self._saved = saved
        self._sizes = {
            name: lm_eval_scores.num_questions(task, job.settings.recipe.asking(name).limit)
            for name, task in loaded.items()
        }

    def begin(self, name: str) -> None:
        self._name = name
        self._num_answered = len(self._saved.partial) + len(self._saved.texts)
        self._num_before = sum(list(self._sizes.values())[: list(self._sizes).index(name)])

    def known_responses(self) -> Mapping[int, Response]:
        return self._saved.partial

    def on_responses(self, responses: Mapping[int, Response]) -> None:
        self._saved.add_partial(responses, is_stopping=self._job.is_stopping())
        self._advance(len(responses))

    def on_texts(self, texts: Sequence[NamedText]) -> None:
        self._saved.add_texts(texts, is_stopping=self._job.is_stopping())
        self._advance(len(texts))

    def on_lm_eval_response(self) -> None:
        self._advance(1)

    def note(self, name: str, what: str) -> None:
        before = self._job.notes.get(name)
        self._job.notes[name] = {**(before if isinstance(before, dict) else {}), self._name: what}

    def _advance(self, num: int) -> None:
        self._num_answered += num
        tasks = self._loaded[self._name]["tasks"].values()
        num_requests = sum(len(task.instances) * (task.config.repeats or 1) for task in tasks)
        done = self._num_before + self._sizes[self._name] * min(1.0, self._num_answered / max(1, num_requests))
        self._job.progress(int(done), sum(self._sizes.values()), "questions", task=self._name)
        self._job.stop_if_asked()
