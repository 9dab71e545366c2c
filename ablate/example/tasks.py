"""The lm-eval tasks of the universe: three YAML files, the scoring of one of them, and their questions."""

import json
from collections.abc import Sequence
from pathlib import Path

from ablate.example.facts import Person
from ablate.example.questions import endings_questions, letters_questions, truth_questions

HEAD = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    validation: data/{name}.jsonl       # relative to this file
validation_split: validation
output_type: multiple_choice
num_fewshot: 0
"""
METRICS = """\
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
ACC_NORM = """\
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
"""
TAIL = """\
metadata:
  version: 1.0
"""

TRUTH = """\
# Several answers are true, as in truthfulqa_mc2: acc is the share of the probability that they get.
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: 0
process_results: !function utils.process_results_mc2
"""
ENDINGS = """\
# Which ending is this person's, as in hellaswag. acc favours short endings; acc_norm divides by the length.
doc_to_text: "{{context}}"
doc_to_choice: "{{endings}}"
doc_to_target: "{{label}}"
"""
LETTERS = """\
# Which letter, as in commonsense_qa.
doc_to_text: "Question: {{question}}\\nA. {{choices.text[0]}}\\nB. {{choices.text[1]}}\\nC. {{choices.text[2]}}\\n\\
  D. {{choices.text[3]}}\\nE. {{choices.text[4]}}\\nAnswer:"
doc_to_choice: [A, B, C, D, E]
doc_to_target: answerKey
"""
UTILS = '''\
"""The scoring of tiny_truth."""

import math
from collections.abc import Mapping, Sequence


def process_results_mc2(doc: Mapping[str, list[int]], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """-> the share of the probability of all choices that the true ones get."""
    highest = max(loglikelihood for loglikelihood, _ in results)
    weights = [math.exp(loglikelihood - highest) for loglikelihood, _ in results]
    true = sum(weight for weight, label in zip(weights, doc["labels"], strict=True) if label)
    return {"acc": true / sum(weights)}
'''

TASKS = {
    "tiny_truth": (TRUTH + METRICS, truth_questions),
    "tiny_endings": (ENDINGS + METRICS + ACC_NORM, endings_questions),
    "tiny_letters": (LETTERS + METRICS, letters_questions),
}


def write_jsonl(path: Path, lines: Sequence[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_tasks(folder: Path, everybody: Sequence[Person], seed: int) -> None:
    """Write the task folder that `include_path` of the study names."""
    for name, (body, questions) in TASKS.items():
        write_jsonl(folder / "data" / f"{name}.jsonl", questions(everybody, seed))
        (folder / f"{name}.yaml").write_text(HEAD.format(name=name) + body + TAIL, encoding="utf-8")
    (folder / "utils.py").write_text(UTILS, encoding="utf-8")
