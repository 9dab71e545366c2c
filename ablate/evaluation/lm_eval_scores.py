"""One task put to one model by lm-eval, and its result in the few numbers that are kept."""

import hashlib
import json
import math
import random
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from lm_eval import evaluator
from lm_eval.api.task import ConfigurableTask
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.evaluator_utils import get_sample_size

from ablate.core.errors import StageError
from ablate.evaluation.question_texts import question_texts
from ablate.evaluation.written_texts import WrittenTexts
from ablate.study.evaluation_settings import Asking

CLUSTERS = ("cluster", "source_id", "question_concept")
"""Fields of a question that say what it shares with others: of our own tasks, hellaswag, commonsense_qa."""
END_OF_PROMPT = 600
"""Characters of a generation task's prompt that are kept beside what was written: the question is at its end."""
MOST_EXTRACTED = 200
"""Characters of what a filter took out of a text."""
FINER = ("log_probability", "bits_per_byte")
"""Of the right answer under its question: they move where no prediction changes yet."""


@dataclass(frozen=True)
class TaskResult:
    """What a task, or a group with its tasks, came to."""

    scores: dict[str, dict[str, Any]]
    """Task or group -> version, n, num_fewshot, metrics and finer {metric: {value, stderr}}, higher_is_better,
    questions, prompts."""
    samples: dict[str, list[dict[str, Any]]]
    """Task -> one record a question."""
    texts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Task -> one record a question too, of what was asked in words; none from an attempt of before they were kept."""


def seed_as_lm_eval() -> None:
    """As the lm_eval command line does, before tasks are built."""
    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)  # the generator that tasks use
    torch.manual_seed(DEFAULT_OTHER_SEED)


def prepare(loaded: Any, asking: Asking) -> None:
    """Sets a built task or group up as the lm_eval command line does."""
    for task in loaded["tasks"].values():
        if asking.gen_kwargs and task.get_config("output_type") == "generate_until":
            task.set_config(key="generation_kwargs", value=deepcopy(asking.gen_kwargs), update=True)
        _set_shots(task, asking)
        task.set_fewshot_seed(seed=asking.fewshot_seed)


def _set_shots(task: Any, asking: Asking) -> None:
    """A task that says 0 keeps it, unless another number was said of it alone; one that says nothing gets 0."""
    own = task.get_config("num_fewshot")
    is_free = own != 0 or asking.is_own_shots
    if (asking.num_fewshot is not None and is_free) or own is None:
        task.set_config(key="num_fewshot", value=asking.num_fewshot or 0)


def num_questions(loaded: Any, limit: float | None) -> int:
    sizes = ((len(task.eval_docs), get_sample_size(task, limit)) for task in loaded["tasks"].values())
    return sum(size if asked is None else min(size, asked) for size, asked in sizes)


def evaluate_task(lm: Any, loaded: Any, asking: Asking, written: WrittenTexts | None = None) -> TaskResult:
    """Puts a built task or group to a model. The bootstrap is lm-eval's, for the few metrics without a formula.

    `written`: what the model writes meanwhile, where that is to be kept.
    """
    output = evaluator.evaluate(
        lm=lm,
        task_dict=loaded,
        limit=asking.limit,
        log_samples=True,
        system_instruction=asking.system_instruction,
        apply_chat_template=asking.apply_chat_template,
        fewshot_as_multiturn=asking.fewshot_as_multiturn,
    )
    _require_metrics(output, loaded, asking)
    samples = {task: _per_question(records, written) for task, records in output["samples"].items()}
    texts = {task: question_texts(records) for task, records in output["samples"].items()}
    return TaskResult({name: _scores(name, output, samples) for name in output["results"]}, samples, texts)


def _require_metrics(output: dict[str, Any], loaded: Any, asking: Asking) -> None:
    """Raises StageError where lm-eval left out a metric that was asked for: tasks that score by themselves may."""
    for task in loaded["tasks"]:
        known = {key.partition(",")[0] for key in output["results"][task]}
        if missing := [one.metric for one in asking.metric_list or () if one.metric not in known]:
            raise StageError(
                f"evaluate.tasks: {task} came to no {' and no '.join(missing)}, which metric_list asks for"
            )


def _scores(name: str, output: dict[str, Any], samples: dict[str, Any]) -> dict[str, Any]:
    """-> what is kept of lm-eval's output about one task or group."""
    result = output["results"][name]
    metrics = [key for key in result if "," in key and "_stderr," not in key]
    members = _members(name, output)
    return {
        "version": _version(output["versions"].get(name)),
        "n": sum(output["n-samples"][member]["effective"] for member in members),
        "num_fewshot": output["n-shot"].get(name),
        "metrics": {_name(key): {"value": _plain(result[key]), "stderr": _stderr(result, key)} for key in metrics},
        "higher_is_better": _plain(output["higher_is_better"].get(name)),
        "questions": _digest(sample["doc_hash"] for member in members for sample in samples[member]),
        "prompts": _digest(_prompts(record) for member in members for record in output["samples"][member]),
    } | ({"members": members} if members != [name] else {"finer": _finer_scores(samples[name])})


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _prompts(record: dict[str, Any]) -> str:
    """-> what a model was asked with one question, word for word."""
    return json.dumps(record["arguments"], default=str)


def _finer_scores(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """-> mean and standard error of what is no metric of lm-eval's, where every question has it."""
    values = {name: [sample["finer"][name] for sample in samples if name in sample.get("finer", {})] for name in FINER}
    whole = {name: numbers for name, numbers in values.items() if numbers and len(numbers) == len(samples)}
    return {name: {"value": fmean(numbers), "stderr": _standard_error(numbers)} for name, numbers in whole.items()}


def _standard_error(values: list[float]) -> float | None:
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def _version(value: Any) -> Any:
    return None if value == ConfigurableTask.VERSION else _plain(value)  # lm-eval's word for a task that states none


def _members(name: str, output: dict[str, Any]) -> list[str]:
    """-> the tasks of a group, at any depth; a task is its own."""
    children = output.get("group_subtasks", {}).get(name)
    return [task for child in children for task in _members(child, output)] if children else [name]


def _name(key: str) -> str:
    """`acc,none` is acc; another filter than none stays: `exact_match,strict-match`."""
    return key.removesuffix(",none")


def _stderr(result: dict[str, Any], key: str) -> Any:
    metric, _, rest = key.partition(",")
    value = result.get(f"{metric}_stderr,{rest}")
    return None if value == "N/A" else _plain(value)


def _per_question(records: list[dict[str, Any]], written: WrittenTexts | None) -> list[dict[str, Any]]:
    """lm-eval records a question once a filter; here it is one record with all its scores."""
    questions: dict[int, dict[str, Any]] = {}
    for record in records:
        number = record["doc_id"]
        if number not in questions:
            questions[number] = question_record(record) | (_written(record, written) if written else {})
        questions[number]["scores"] |= {_name(f"{m},{record['filter']}"): v for m, v in _numbers(record)}
        if "written" in questions[number] and (extracted := _extracted(record)):
            questions[number].setdefault("extracted", {}).update(extracted)
    return list(questions.values())


def _written(record: dict[str, Any], written: WrittenTexts) -> dict[str, Any]:
    """-> what a model wrote to one question, whose requests each have one text or several tries."""
    texts = [
        text
        for request, tries in zip(record["arguments"], record["resps"], strict=True)
        for text in written.take(request, len(tries))
    ]
    asked = str(record["arguments"][0][0])[-END_OF_PROMPT:] if texts else ""
    return {"asked": asked, "written": [text._asdict() for text in texts]} if texts else {}


def _extracted(record: dict[str, Any]) -> dict[str, str]:
    """-> what a task's filter took out of a text for an answer, where it has one and the text is one."""
    answers = record["filtered_resps"]
    is_one = record["filter"] != "none" and len(answers) == 1 and isinstance(answers[0], str)
    return {record["filter"]: answers[0][:MOST_EXTRACTED]} if is_one else {}


def question_record(record: dict[str, Any]) -> dict[str, Any]:
    """-> what is kept of lm-eval's record of one question, but for its scores."""
    document = record["doc"] if isinstance(record["doc"], dict) else {}
    cluster = next((document[name] for name in CLUSTERS if document.get(name) is not None), None)
    answers = [answer for answer in record["filtered_resps"] if _is_loglikelihood(answer)]
    kept: dict[str, Any] = {
        "doc_id": record["doc_id"],
        "doc_hash": record["doc_hash"],
        "scores": {},
        "target": _plain(record["target"]),
    }
    if answers:
        kept["loglikelihoods"] = [_plain(answer[0]) for answer in answers]
        kept |= _right_answer_scores(record, answers)
    if cluster is not None:  # 0 and "" are clusters like any other
        kept["cluster"] = _plain(cluster)
    return kept


def _is_loglikelihood(answer: Any) -> bool:
    """Whether it is (log-likelihood, whether it is greedy), and not texts, such as several tries at one question."""
    return isinstance(answer, tuple | list) and len(answer) == 2 and isinstance(answer[0], int | float)


def _right_answer_scores(record: dict[str, Any], answers: list[Any]) -> dict[str, Any]:
    """-> `finer`: ln p(right answer | question) in nats, and -log2 p / its UTF-8 bytes; {} where none is named.

    Only of answers to one question: of a task that has several (a text with each word filled in, an answer without its
    question) the target says nothing about one request.
    """
    if len({arguments[0] for arguments in record["arguments"]}) > 1 or len(answers) != len(record["arguments"]):
        return {}
    texts = [arguments[1] for arguments in record["arguments"]]
    right = _right_choice(record["target"], texts) if all(isinstance(text, str) for text in texts) else None
    if right is None or not math.isfinite(answers[right][0]):
        return {}
    log_probability, num_bytes = float(answers[right][0]), len(texts[right].encode("utf-8", "surrogatepass"))
    return {"finer": dict(zip(FINER, (log_probability, -log_probability / math.log(2) / num_bytes), strict=True))}


def _right_choice(target: Any, texts: list[str]) -> int | None:
    """-> the number of the answer that a task calls right, by its number or its words, which no other answer has."""
    if isinstance(target, str):
        numbers = [number for number, text in enumerate(texts) if text and text.strip() == target.strip()]
        return numbers[0] if len(numbers) == 1 else None
    return target if isinstance(target, int) and 0 <= target < len(texts) and texts[target] else None


def _numbers(record: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for metric in record["metrics"]:
        value = _plain(record[metric])
        if isinstance(value, int | float) or value in ("NaN", "Infinity", "-Infinity"):
            yield metric, float(value) if isinstance(value, int | float) else value


def _plain(value: Any) -> Any:
    """-> what JSON holds; NaN and infinity as the strings "NaN", "Infinity", "-Infinity"."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
