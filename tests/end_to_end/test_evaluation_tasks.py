"""Whole tasks of every kind, asked by lm-eval: the same scores and the same answers as with lm-eval's own class."""

import json

import pytest
from lm_eval.models.huggingface import HFLM
from support.asking import Ear, save_model

from ablate.evaluation import lm_eval_scores
from ablate.evaluation.model import SharingLM
from ablate.evaluation.tasks import Tasks
from ablate.example import assets
from ablate.study.evaluation_settings import Evaluate
from ablate.training.models import load_merged

HEAD = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{validation: data/shots.jsonl, test: data/test.jsonl}}}}
test_split: test
fewshot_split: validation
output_type: {kind}
"""
ARC = """
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices.text}}"
doc_to_target: "{{choices.label.index(answer)}}"
metric_list:
- {metric: acc, aggregation: mean, higher_is_better: true}
- {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
SUBJECT = """
num_fewshot: 3
fewshot_config: {sampler: first_n}
description: "Questions about SUBJECT.\\n\\n"
doc_to_text: "{{question}}\\nA. {{choices.text[0]}}\\nB. {{choices.text[1]}}\\nAnswer:"
doc_to_choice: [A, B, C]
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
SUBJECTS = """
group: subjects
task: [tea, milk]
aggregate_metric_list: [{metric: acc, weight_by_size: true}]
"""
LAST_WORD = """
doc_to_text: "{{text.split(' ')[:-1]|join(' ')}}"
doc_to_target: "{{' ' + text.split(' ')[-1]}}"
metric_list:
- {metric: perplexity, aggregation: perplexity, higher_is_better: false}
- {metric: acc, aggregation: mean, higher_is_better: true}
"""
CONTEXTS = """
doc_to_text: number
doc_to_choice: "{{contexts}}"
doc_to_target: ending
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
PAGES = """
doc_to_text: ""
doc_to_target: "{{text * 9}}"
metric_list:
- {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
- {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
"""
WRITTEN = """
doc_to_text: "{{question}}"
doc_to_target: "{{ending}}"
generation_kwargs: {until: ["e"], max_gen_toks: 12}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
KINDS = {
    "arc": ("multiple_choice", ARC),
    "tea": ("multiple_choice", SUBJECT.replace("SUBJECT", "tea")),
    "milk": ("multiple_choice", SUBJECT.replace("SUBJECT", "milk, which is another drink")),
    "last_word": ("loglikelihood", LAST_WORD),
    "contexts": ("multiple_choice", CONTEXTS),
    "pages": ("loglikelihood_rolling", PAGES),
    "written": ("generate_until", WRITTEN),
}


def question(number):
    name, other = ("Ada", "Bo", "Cy")[number % 3], ("Dee", "Eve")[number % 2]
    return {
        "question": f"What does {name} like{' so much' * (number % 4)} on day {number}?",
        "choices": {"text": [f"tea {number}", f"warm milk and {number} cakes", "warm milk"], "label": ["A", "B", "C"]},
        "answer": "ABC"[number * 7 % 3],
        "text": f"{name} met {other} on day {number}, and {other} had tea with {name}",
        "contexts": [f"{name} met {other}, and {one}" for one in (name, other)],
        "number": number % 2,
        "ending": f"went home on day {number}",
    }


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """-> a folder of tasks as their authors write them."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, (kind, body) in KINDS.items():
        (folder / f"{name}.yaml").write_text(HEAD.format(name=name, kind=kind) + body)
    (folder / "subjects.yaml").write_text(SUBJECTS)
    (folder / "data").mkdir()
    for split, numbers in (("shots", range(20, 25)), ("test", range(12))):
        lines = (json.dumps(question(number)) + "\n" for number in numbers)
        (folder / "data" / f"{split}.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_merged(save_model(tmp_path_factory.mktemp("model")), (), "float32")


def asked(lm, tasks, name, limit):
    lm_eval_scores.seed_as_lm_eval()
    task, asking = tasks.load_one(name), Evaluate(tasks=[name], limit=limit).asking(name)
    lm_eval_scores.prepare(task, asking)
    return lm_eval_scores.evaluate_task(lm, task, asking)


def numbers(metrics):
    """-> every value and stderr; lm-eval gives some metrics none."""
    named = {(metric, name): value for metric, values in metrics.items() for name, value in values.items()}
    return {name: value for name, value in named.items() if value is not None}


def compare(loaded, tasks, name, limit=None):
    """-> what was heard of our class, whose scores and answers are those of lm-eval's, one by one."""
    ear = Ear()
    ours = asked(SharingLM(loaded.model, loaded.tokenizer, 1, ear), tasks, name, limit)
    theirs = asked(HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=1), tasks, name, limit)
    assert ours.scores.keys() == theirs.scores.keys()
    for task, expected in theirs.scores.items():
        assert numbers(ours.scores[task].pop("metrics")) == pytest.approx(
            numbers(expected.pop("metrics")), rel=1e-6, abs=1e-6
        )
        assert numbers(ours.scores[task].pop("finer", {})) == pytest.approx(
            numbers(expected.pop("finer", {})), abs=1e-4
        )
        assert ours.scores[task] == expected
    for task, records in theirs.samples.items():
        for mine, other in zip(ours.samples[task], records, strict=True):
            assert mine.pop("scores") == pytest.approx(other.pop("scores"), rel=0, abs=1e-4)
            assert mine.pop("loglikelihoods", []) == pytest.approx(other.pop("loglikelihoods", []), rel=0, abs=1e-4)
            assert mine.pop("finer", {}) == pytest.approx(other.pop("finer", {}), rel=0, abs=1e-4)
            assert mine == other
    return ear


@pytest.mark.parametrize(
    ("name", "num_shared", "num_of_lm_evals"),
    [
        ("arc", 36, 0),
        ("subjects", 72, 0),
        ("last_word", 12, 0),
        ("contexts", 24, 0),
        ("pages", 0, 12),
        ("written", 0, 12),
    ],
)
def test_a_task_of_any_kind_has_lm_evals_scores_and_answers(own, loaded, name, num_shared, num_of_lm_evals):
    ear = compare(loaded, Tasks([name], {}, own), name)
    assert (len(ear.answered), ear.num_of_lm_evals) == (num_shared, num_of_lm_evals)


@pytest.mark.parametrize("name", ["tiny_truth", "tiny_endings", "tiny_letters"])
def test_the_embedded_tasks_have_lm_evals_scores_and_answers(name):
    loaded = load_merged(assets() / "models" / "student", (), "float32")
    ear = compare(loaded, Tasks([name], {}, assets() / "tasks"), name, limit=40)
    assert (ear.num_of_lm_evals, ear.notes) == (0, {})


@pytest.mark.parametrize("name", ["truthfulqa_mc2", "hellaswag", "commonsense_qa"])
@pytest.mark.parametrize(
    "model", ["Llama-3.2-1B-Instruct", "Llama-3.1-8B-Instruct", "Qwen2-0.5B-Instruct", "Qwen2-1.5B-Instruct"]
)
def test_the_tutorials_models_and_tasks_have_lm_evals_scores_and_answers(hub, model, name):
    root = hub.parent / "root"
    loaded = load_merged(next(root.glob(f"models/*/{model}")), (), "float32")
    data = {path.relative_to(root / "datasets").as_posix(): path for path in root.glob("datasets/*/*")}
    ear = compare(loaded, Tasks([name], data), name, limit=40)
    assert (ear.num_of_lm_evals, ear.notes) == (0, {})
