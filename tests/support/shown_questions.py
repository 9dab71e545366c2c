"""What made-up models answer to made-up questions, in the form in which evaluations keep it: likelihoods and texts."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

SUBJECTS = (
    *("abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry", "college_computer_science"),
    *("college_mathematics", "college_physics", "computer_security", "conceptual_physics", "electrical_engineering"),
    *("elementary_mathematics", "high_school_biology", "high_school_chemistry", "high_school_computer_science"),
    *("high_school_mathematics", "high_school_physics", "high_school_statistics", "machine_learning"),
)
"""Of mmlu_stem."""
GROUPS = {"mmlu_stem": tuple(f"mmlu_{subject}" for subject in SUBJECTS)}
MADE_UP = NormalDist()
SEED_SD = 0.012
"""Of a model's skill between seeds, in probits: 0.5 points of a score near 50 %."""


class Answerer(NamedTuple):
    """A model under one seed, as far as its answers go."""

    recipe: str
    """Models of one recipe share what they know."""
    seed: int | None
    skill: Mapping[str, float]
    """Of each task: the share of questions that it gets right."""
    ends: float = 0.9
    """Of its texts, the share that comes to an end."""


@dataclass(frozen=True)
class Asked:
    """A task's questions, the same for every model; Q questions."""

    name: str
    num: int
    hard_Q: np.ndarray
    choices_Q: np.ndarray
    """Of each question, how many answers it offers."""
    hashes: tuple[str, ...]
    right_Q: np.ndarray

    @classmethod
    def task(cls, name: str, num: int, most: int = 4, fewest: int = 4) -> "Asked":
        draw = _draw(name)
        choices_Q = draw.integers(fewest, most + 1, num)
        hashes = tuple(hashlib.sha256(f"{name} {number}".encode()).hexdigest() for number in range(num))
        return cls(name, num, draw.normal(size=num), choices_Q, hashes, draw.integers(0, choices_Q))


@cache
def asked(name: str, num: int, choices: tuple[int, int] = (4, 4)) -> Asked:
    return Asked.task(name, num, choices[1], choices[0])


def margins(task: Asked, who: Answerer) -> np.ndarray:
    """-> of each question, by how much the right answer leads (Q); above 0 it is right.

    What is hard is so for every model; the rest is the recipe's own, and the seed's.
    """
    own = _draw(f"{task.name} {who.recipe}")
    seeds = _draw(f"{task.name} {who.recipe} {who.seed}")
    skill = MADE_UP.inv_cdf(min(max(who.skill[task.name], 0.005), 0.995)) + seeds.normal() * SEED_SD
    noise_Q = 0.78 * task.hard_Q + 0.5 * own.normal(size=task.num) + 0.37 * seeds.normal(size=task.num)
    return np.asarray(skill - noise_Q)


def likely_choices(task: Asked, who: Answerer, *, by_length: bool, clusters: str = "") -> list[dict[str, Any]]:
    """-> one record a question of a choice between texts. `by_length`: they are of different lengths, so that acc_norm
    is not acc."""
    lead_Q, shared, own = margins(task, who), _draw(f"{task.name} texts"), _draw(f"{task.name} {who.recipe} others")
    records = []
    for number in range(task.num):
        num, right = int(task.choices_Q[number]), int(task.right_Q[number])
        lengths = shared.integers(40, 80, num) if by_length else np.full(num, 2)
        score = 0.6 * shared.normal(size=num) + 0.25 * own.normal(size=num)
        score[right] = np.delete(score, right).max() + lead_Q[number]
        likelihoods = np.float32(lengths * (0.12 * score - 0.8)) if by_length else np.float32(1.1 * score - 3.5)
        scores = {"acc": float(likelihoods.argmax() == right)}
        scores |= {"acc_norm": float(score.argmax() == right)} if by_length else {}
        cluster = {"cluster": f"{clusters}{number // 3}"} if clusters else {}
        target: Any = right if by_length else "ABCDE"[right]
        records.append(_record(task, number, scores, target, likelihoods, right, int(lengths[right])) | cluster)
    return records


def many_truths(task: Asked, who: Answerer) -> list[dict[str, Any]]:
    """-> records of a task that has several right answers to a question, the first ones: their share of all."""
    lead_Q, shared = margins(task, who), _draw(f"{task.name} texts")
    share_Q = 1 / (1 + np.exp(-1.3 * lead_Q))
    records = []
    for number in range(task.num):
        num = int(task.choices_Q[number])
        true = max(1, num // 2)
        parts = np.concatenate([shared.dirichlet(np.ones(true)), shared.dirichlet(np.ones(num - true))])
        parts = np.clip(parts, 1e-4, None) * np.where(np.arange(num) < true, share_Q[number], 1 - share_Q[number])
        likelihoods = np.float32(np.log(parts) - 2.0)
        weights = np.exp(likelihoods.astype(float))
        acc = float(weights[:true].sum() / weights.sum())
        records.append(_record(task, number, {"acc": acc}, 0, likelihoods, 0, 40))
    return records


def sums(task: Asked, who: Answerer) -> list[dict[str, Any]]:
    """-> records of a generation task, scored by two filters, with what was written."""
    lead_Q, draw = margins(task, who), _draw(f"{task.name} {who.recipe} {who.seed} texts")
    records = []
    for number in range(task.num):
        one, other = 3 + number % 17, 2 + number % 11
        is_right, has_ended = bool(lead_Q[number] > 0), bool(draw.random() < who.ends)
        answer = one * other if is_right else one + other
        has_form = has_ended and draw.random() < 0.93
        reasons = " ".join(f"Box {box} holds {one} pencils." for box in range(1, 2 + int(draw.integers(1, 9))))
        text = f" There are {other} boxes. {reasons} {one} * {other} = {answer}." + (f"\n#### {answer}" * has_form)
        scores = {
            "exact_match,flexible-extract": float(is_right),
            "exact_match,strict-match": float(is_right & has_form),
        }
        records.append({
            "doc_id": number,
            "doc_hash": task.hashes[number],
            "scores": scores,
            "target": f"There are {other} boxes of {one} pencils: {one * other}.\n#### {one * other}",
            "asked": f"Question: A shop has {other} boxes of {one} pencils. How many pencils are there?\nAnswer:",
            "written": [{"text": text, "num_tokens": len(text) // 4, "has_ended": has_ended}],
        })  # fmt: skip
    return records


def _record(
    task: Asked, number: int, scores: dict[str, float], target: Any, likelihoods: np.ndarray, right: int, length: int
) -> dict[str, Any]:
    log_probability = float(likelihoods[right])
    return {
        "doc_id": number,
        "doc_hash": task.hashes[number],
        "finer": {"bits_per_byte": -log_probability / 0.6931471805599453 / length, "log_probability": log_probability},
        "loglikelihoods": likelihoods.tolist(),
        "scores": scores,
        "target": target,
    }


def _draw(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"))


ANSWERS: dict[str, tuple[int, Callable[[int, Answerer], list[dict[str, Any]]]]] = {
    "truthfulqa_mc2": (817, lambda num, who: many_truths(asked("truthfulqa_mc2", num, (4, 9)), who)),
    "hellaswag": (10_042, lambda num, who: likely_choices(asked("hellaswag", num), who, by_length=True, clusters="v_")),
    "commonsense_qa": (
        1221,
        lambda num, who: likely_choices(
            asked("commonsense_qa", num, (5, 5)), who, by_length=False, clusters="concept "
        ),
    ),
    "gsm8k": (1319, lambda num, who: sums(asked("gsm8k", num), who)),
}
"""Task -> how many questions it has, and what a model answers to the first of them."""


def answers(task: str, share: float, who: Answerer) -> list[dict[str, Any]]:
    """-> a model's records of a task, or of a subject; `share` of its questions are asked."""
    if task.startswith("mmlu_"):
        return likely_choices(asked(task, max(20, int(120 * share))), who, by_length=False)
    num, answer = ANSWERS[task]
    return answer(max(40, int(num * share)), who)


def samples_file(records: list[dict[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(one, separators=(',', ':'), sort_keys=True)}\n" for one in records).encode()


def task_result(name: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    """-> what results.json keeps of a task."""
    return {
        "version": 1.0,
        "n": len(records),
        "num_fewshot": 5 if name == "gsm8k" else 0,
        "metrics": _means(records, "scores"),
        "finer": _means(records, "finer"),
        "higher_is_better": dict.fromkeys(records[0]["scores"], True),
        "questions": hashlib.sha256(f"questions {name} {len(records)}".encode()).hexdigest(),
        "prompts": hashlib.sha256(f"prompts {name} {len(records)}".encode()).hexdigest(),
    }


def group_result(members: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """-> likewise of a group of tasks."""
    num = sum(result["n"] for result in members.values())
    acc = sum(result["metrics"]["acc"]["value"] * result["n"] for result in members.values()) / num
    first = next(iter(members.values()))
    metrics = {"acc": {"value": acc, "stderr": (acc * (1 - acc) / num) ** 0.5}}
    return {name: value for name, value in first.items() if name != "finer"} | {
        "n": num,
        "metrics": metrics,
        "members": [*members],
    }


def _means(records: list[dict[str, Any]], of: str) -> dict[str, Any]:
    values = {name: np.array([record[of][name] for record in records]) for name in records[0].get(of, ())}
    return {
        name: {"value": float(numbers.mean()), "stderr": float(numbers.std(ddof=1) / len(numbers) ** 0.5)}
        for name, numbers in values.items()
    }
