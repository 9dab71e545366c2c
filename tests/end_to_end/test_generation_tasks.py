"""Tasks whose answers are written, beside multiple choice: from local files, as lm-eval's command line scores them.

One is like gsm8k (two filters take the number out of the text), one an exact match, one like ifeval (Python of its own
scores what an answer must have, question by question and instruction by instruction).
"""

import json
import random
import re
import shutil
from statistics import fmean, stdev

import pytest
import torch
from support import real_tasks
from support.asking import evaluated, fetched, samples
from support.report_study import bench
from transformers import AutoModelForCausalLM

from ablate.core.errors import Interrupted
from ablate.report.exhibits.base import EXHIBITS
from ablate.results.collect import collect
from ablate.store.checkpoints import Checkpoints

pytestmark = pytest.mark.slow
SUMS = r"""
task: sums
dataset_path: json
dataset_kwargs: {data_files: {train: data/sums-train.jsonl, test: data/sums-test.jsonl}}
training_split: train
fewshot_split: train
test_split: test
output_type: generate_until
doc_to_text: "Question: {{question}}\nAnswer:"
doc_to_target: "{{answer}}"
num_fewshot: 2
generation_kwargs: {until: ["Question:", "\n"], do_sample: false, max_gen_toks: 12}
metric_list:
- metric: exact_match
  aggregation: mean
  higher_is_better: true
  ignore_case: true
  regexes_to_ignore: [",", "\\$", "(?s).*#### ", "\\.$"]
filter_list:
- name: strict-match
  filter: [{function: regex, regex_pattern: "#### (\\-?[0-9\\.\\,]+)"}, {function: take_first}]
- name: flexible-extract
  filter: [{function: regex, group_select: -1, regex_pattern: "(-?[0-9]+)"}, {function: take_first}]
metadata: {version: 3.0}
"""
WORDS = """
task: words
dataset_path: json
dataset_kwargs: {data_files: {test: data/words-test.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer: "
doc_to_target: "{{answer}}"
generation_kwargs: {until: [".", "\\n"], do_sample: false, max_gen_toks: 3}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
FOLLOWS = """
task: follows
dataset_path: json
dataset_kwargs: {data_files: {test: data/follows-test.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: prompt
doc_to_target: 0
generation_kwargs: {until: [], do_sample: false, max_gen_toks: 24}
process_results: !function follows.process_results
metric_list:
- {metric: prompt_level_strict_acc, aggregation: mean, higher_is_better: true}
- {metric: inst_level_strict_acc, aggregation: !function follows.over_instructions, higher_is_better: true}
- {metric: prompt_level_loose_acc, aggregation: mean, higher_is_better: true}
"""
PYTHON = """
CHECKS = {
    "at most": lambda text, number: len(text.split()) <= number,
    "at least": lambda text, number: len(text.split()) >= number,
    "has": lambda text, word: word in text.split(),
    "lacks": lambda text, sign: sign not in text,
}


def process_results(doc, results):
    kept = [CHECKS[one["name"]](results[0], one["value"]) for one in doc["instructions"]]
    return {
        "prompt_level_strict_acc": all(kept),
        "inst_level_strict_acc": kept,
        "prompt_level_loose_acc": any(kept),
    }


def over_instructions(items):
    every = [one for kept in items for one in kept]
    return sum(every) / len(every)
"""
TASKS = ("sums", "words", "follows")
NUM = 40


def _sum(rng):
    one, other = rng.randint(1, 2), rng.randint(1, 2)
    return {"question": f"{one} cats and {other} foxes?", "answer": f"{one}+{other}. #### {one + other}"}


def _word(rng):
    return {"question": f"{real_tasks.text(rng, rng.randint(2, 12))}?", "answer": real_tasks.text(rng, 1)}


def _instructed(rng):
    values = {"at most": rng.randint(1, 9), "at least": rng.randint(1, 9), "has": real_tasks.text(rng, 1), "lacks": "."}
    names = rng.sample(list(values), rng.randint(1, 3))
    asked = [{"name": name, "value": values[name]} for name in names]
    return {"prompt": f"Question: {real_tasks.text(rng, rng.randint(2, 12))}?\nAnswer:", "instructions": asked}


def write_tasks(folder):
    (folder / "data").mkdir(parents=True)
    for name, text in {"sums.yaml": SUMS, "words.yaml": WORDS, "follows.yaml": FOLLOWS, "follows.py": PYTHON}.items():
        (folder / name).write_text(text)
    for name, make in {"sums-train": _sum, "sums-test": _sum, "words-test": _word, "follows-test": _instructed}.items():
        rng = random.Random(name)
        lines = [json.dumps(make(rng)) for _ in range(NUM)]
        (folder / "data" / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def changed(model, folder):
    """-> a copy of a model that answers otherwise here and there."""
    shutil.copytree(model, folder)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in loaded.parameters():
            weight += 0.15 * weight.std() * torch.randn_like(weight)
    loaded.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("generation")
    write_tasks(root / "tasks")
    changed(real_tasks.save_model(root / "model"), root / "another")
    return root


@pytest.fixture(scope="module")
def ours(root):
    """Model -> its results, with the folder of their samples."""
    include = fetched(root / "included", root / "tasks")
    return {
        name: evaluated(
            root / "ours" / name,
            {"model": fetched(root / "fetched" / name, root / name), "include": include},
            allow_code=True,
            tasks=TASKS,
        )
        for name in ("model", "another")
    }


@pytest.fixture(scope="module")
def theirs(root):
    arguments = ["--tasks", ",".join(TASKS)]
    return real_tasks.command_line(root / "model", root / "tasks", root / "out", {"all": arguments})["all"]


def logged(root, task):
    """-> lm-eval's own records of the questions of a task, each once a filter."""
    path = next((root / "out" / "all").rglob(f"samples_{task}_*.jsonl"))
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_metric_of_each_filter_is_that_of_lm_evals_command_line(ours, theirs):
    names = {
        "sums": ["exact_match,strict-match", "exact_match,flexible-extract"],
        "words": ["exact_match"],
        "follows": ["prompt_level_strict_acc", "inst_level_strict_acc", "prompt_level_loose_acc"],
    }
    for task, metrics in names.items():
        result, other = ours["model"]["tasks"][task], theirs["results"][task]
        assert sorted(result["metrics"]) == sorted(metrics)
        for name in metrics:
            metric, _, which = name.partition(",")
            assert result["metrics"][name]["value"] == other[f"{metric},{which or 'none'}"]
            assert result["metrics"][name]["stderr"] == _number(other[f"{metric}_stderr,{which or 'none'}"])
            assert 0 < result["metrics"][name]["value"] < 1


def _number(value):
    return None if value == "N/A" else pytest.approx(value)


def test_what_was_written_is_kept_word_for_word_with_its_tokens_and_whether_it_ended(root, ours, theirs):
    words, most = real_tasks.tokenizer(), {"sums": 12, "words": 3, "follows": 24}
    seen = set()
    for task in TASKS:
        texts = {record["doc_id"]: record["resps"][0][0] for record in logged(root, task)}
        for sample in samples(root / "ours" / "model", task):
            (written,) = sample["written"]
            assert written["text"] == texts[sample["doc_id"]]
            assert written["num_tokens"] == len(words(written["text"])["input_ids"])
            assert written["has_ended"] or written["num_tokens"] == most[task]
            seen.add((task, written["has_ended"]))
    assert {("sums", True), ("words", True), ("follows", False)} <= seen


def test_a_text_is_the_same_beside_prompts_of_other_lengths_as_alone(root, ours):
    inputs = {"model": root / "fetched" / "model", "include": root / "included"}
    alone = evaluated(root / "ours" / "alone", inputs, allow_code=True, tasks=TASKS, batch_size=1)
    for task in TASKS:
        assert samples(root / "ours" / "alone", task) == samples(root / "ours" / "model", task)
        assert alone["tasks"][task]["metrics"] == ours["model"]["tasks"][task]["metrics"]


def test_a_stopped_evaluation_writes_only_what_was_not_written_and_comes_to_the_same(root):
    inputs = {"model": root / "fetched" / "model", "include": root / "included"}
    heard = []

    def asked(name, is_stopping):
        return evaluated(
            root / "ours" / name, inputs, allow_code=True, tasks=TASKS[1:], batch_size=4, is_stopping=is_stopping
        )

    whole = asked("whole", lambda: heard.append("whole"))

    def stop_in_the_second_task():
        heard.append("first")
        return heard.count("first") >= heard.count("whole") * 3 // 4 + 1  # it is asked twice a batch, and once a task

    with pytest.raises(Interrupted):
        asked("stopped", stop_in_the_second_task)
    _, kept = Checkpoints(root / "ours" / "stopped" / "checkpoints").latest()
    assert {path.name for path in kept.iterdir()} == {"0.json", "texts.json", "manifest.json"}
    assert asked("stopped", lambda: heard.append("second")) == whole
    assert heard.count("first") + heard.count("second") == heard.count("whole")
    for task in TASKS[1:]:
        assert samples(root / "ours" / "stopped", task) == samples(root / "ours" / "whole", task)


def _right(sample, pattern, target):
    """-> 0 or 1, without lm-eval: whether the number that a pattern finds in a text is the right one."""
    numbers = re.findall(pattern, sample["written"][0]["text"])
    return float(bool(numbers) and numbers[-1 if pattern.startswith("(-") else 0].rstrip(".") == target)


def test_rows_are_told_apart_question_by_question_by_each_filter_of_a_metric(tmp_path, root, ours):
    piece, results = _reported(tmp_path, root, ours)
    ablation = results.ablations[0]
    row, control = next(row for row in ablation.rows if row.row.model == "distill"), ablation.controls[0]
    targets = [_sum(rng)["answer"].split()[-1] for rng in [random.Random("sums-test")] for _ in range(NUM)]
    patterns = {"exact_match,strict-match": r"#### (\-?[0-9\.\,]+)", "exact_match,flexible-extract": r"(-?[0-9]+)"}
    asked = [samples(root / "ours" / name, "sums") for name in ("another", "model")]
    for metric in (metric for metric in ablation.columns if metric.task == "sums"):
        pairs = [zip(of_model, targets, strict=True) for of_model in asked]
        scores = [[_right(one, patterns[metric.name], target) for one, target in pair] for pair in pairs]
        differences = [one - other for one, other in zip(*scores, strict=True)]
        assert any(differences)
        contrast = row.difference(control, metric)
        assert contrast.value == pytest.approx(fmean(differences))
        assert contrast.se == pytest.approx(stdev(differences) / NUM**0.5)
        assert contrast.num_differing == sum(map(bool, differences))
    assert "sums exact_match (strict-match)" in piece.markdown
    assert "sums exact_match (flexible-extract)" in piece.markdown
    assert "follows prompt_level_strict_acc" in piece.markdown


def test_a_metric_over_instructions_has_no_score_a_question_and_the_table_says_so(tmp_path, root, ours):
    piece, _ = _reported(tmp_path, root, ours)
    (head,) = [line for line in piece.markdown.splitlines() if line.startswith("| Model |")][1:]
    column = [name.strip() for name in head.split("|")].index("follows inst_level_strict_acc")
    told = [line.split("|") for line in piece.markdown.splitlines() if line.startswith("| KD")][-1]
    assert told[column].strip() == "not comparable: no score is kept for each question"


def test_the_report_tells_how_long_the_texts_are_and_how_many_were_cut(tmp_path, root, ours):
    _, results = _reported(tmp_path, root, ours)
    piece = EXHIBITS["table-task-texts"](results, results.ablations[0])
    written = [sample["written"][0] for sample in samples(root / "ours" / "another", "words")]
    cut = sum(not one["has_ended"] for one in written)
    tokens = fmean(one["num_tokens"] for one in written)
    assert f"| words | KD, kd_ratio=0.5 | 1 | {NUM} | {tokens:.1f} | {100 - 100 * cut / NUM:.1f} % | {cut} |" in (
        piece.markdown
    )
    assert f"of {6 * 3 * NUM} were cut before they ended" in piece.fold


def _reported(folder, root, ours):
    """-> the scores of a study whose distilled row is the one model and all other rows the other, and its results."""
    study = bench(folder, ablations={"one": {"grid": {"distill.kd_ratio": [0.5, 0.6]}}})
    for cell in study.plan().cells:
        name = "another" if cell.row.model == "distill" else "model"
        files = {"out/results.json": json.dumps(ours[name]).encode()}
        for task in TASKS:
            path = f"out/samples/{task}.jsonl"
            files[path] = (root / "ours" / name / path).read_bytes()
        study.commit_files(cell.evaluate, files)
    results = collect(study.plan())
    return EXHIBITS["table"](results, results.ablations[0]), results
