"""lm-eval's own command line beside ours, on its own task files: every metric and error is the same.

The data are of our making, the model is tiny and in float32. Scores are compared to 1e-6, those that are no shares
(perplexities) to a millionth of themselves.
"""

import json
import shutil
import subprocess
import sys

import pytest
import yaml
from support import real_tasks
from support.asking import evaluated, fetched, samples

from ablate.example import assets
from ablate.execution.study_run import RunOptions
from ablate.export import export_cell
from ablate.machine.slots import Placing
from ablate.planning.project import open_study
from ablate.results.collect import collect
from ablate.run import run_study

pytestmark = pytest.mark.slow
SYSTEM = "Answer in few words."
SHORT = {"max_gen_toks": 8, "until": [".", "\n"]}
METRICS = [
    {"metric": "acc_bytes", "aggregation": "mean", "higher_is_better": True},
    {"metric": "brier_score", "aggregation": "brier_score", "higher_is_better": False},
    {"metric": "acc_mutual_info", "aggregation": "mean", "higher_is_better": True},
]
TURNS = ("arc_easy", "winogrande", "gsm8k", "mmlu")
VOTED = """
include: default_yaml
task: voted
dataset_path: json
dataset_name: null
dataset_kwargs: {data_files: {train: data/triviaqa-train.jsonl, validation: data/triviaqa-validation.jsonl}}
repeats: 4
generation_kwargs: {do_sample: true, temperature: 1.0, max_gen_toks: 4, until: ["."]}
filter_list:
- {name: first, filter: [{function: remove_whitespace}, {function: take_first}]}
- name: maj@3
  filter:
  - {function: take_first_k, k: 3}
  - {function: remove_whitespace}
  - {function: majority_vote}
  - {function: take_first}
"""
OVERRIDDEN = [
    {"task": "piqa", "num_fewshot": 3, "metric_list": METRICS},
    {"task": "truthfulqa_mc1", "num_fewshot": 1},
    {"task": "openbookqa", "num_fewshot": 2},
    {"task": "lambada_openai", "metric_list": [{"metric": "acc"}]},
    {"task": "triviaqa", "metric_list": [{"metric": "exact_match", "ignore_case": True, "ignore_numbers": True}]},
]
RUNS = {
    "plain": ["--tasks", ",".join(real_tasks.ALL)],
    "chat": [
        *("--tasks", ",".join(real_tasks.ALL), "--apply_chat_template", "--system_instruction", SYSTEM),
        *("--num_fewshot", "2", "--limit", "0.4", "--seed", "0,1234,1234,77", "--gen_kwargs", json.dumps(SHORT)),
    ],
    "one turn": [
        *("--tasks", ",".join(TURNS), "--apply_chat_template", "--fewshot_as_multiturn", "false"),
        *("--num_fewshot", "3", "--limit", "5", "--gen_kwargs", json.dumps(SHORT)),
    ],
    "instructed": ["--tasks", "ai2_arc,boolq", "--system_instruction", SYSTEM, "--limit", "0.3"],
    "overridden": ["--tasks", "overridden"],
    "voted": ["--tasks", "voted"],
}
OURS = {
    "plain": {"tasks": real_tasks.ALL},
    "chat": {
        **{"tasks": real_tasks.ALL, "apply_chat_template": True, "system_instruction": SYSTEM, "num_fewshot": 2},
        **{"limit": 0.4, "fewshot_seed": 77, "gen_kwargs": SHORT},
    },
    "one turn": {
        **{"tasks": TURNS, "apply_chat_template": True, "fewshot_as_multiturn": False, "num_fewshot": 3},
        **{"limit": 5, "gen_kwargs": SHORT},
    },
    "instructed": {"tasks": ("ai2_arc", "boolq"), "system_instruction": SYSTEM, "limit": 0.3},
    "overridden": {"tasks": OVERRIDDEN},
    "voted": {"tasks": ("voted",)},
}
"""The same questions as a study asks them."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("alike")
    tasks = real_tasks.write(root / "tasks")
    (tasks / "triviaqa" / "voted.yaml").write_text(VOTED)
    (tasks / "overridden.yaml").write_text(yaml.safe_dump({"group": "overridden", "task": OVERRIDDEN}))
    real_tasks.save_model(root / "model")
    return root


@pytest.fixture(scope="module")
def inputs(root):
    return {"model": fetched(root / "fetched", root / "model"), "include": fetched(root / "included", root / "tasks")}


@pytest.fixture(scope="module")
def theirs(root):
    return real_tasks.command_line(root / "model", root / "tasks", root / "out", RUNS)


def _require_alike(ours, theirs, task):
    """One task's or group's result, ours and lm-eval's."""
    result, other = ours["tasks"][task], theirs["results"][task]
    keys = {key.removesuffix(",none"): key for key in other if "," in key and "_stderr," not in key}
    assert result["metrics"].keys() == keys.keys()
    for name, key in keys.items():
        metric, _, which = key.partition(",")
        error = other.get(f"{metric}_stderr,{which}")
        score, kept = result["metrics"][name], None if error == "N/A" else error
        assert score["value"] == pytest.approx(other[key], rel=1e-6, abs=1e-6), (task, name)
        assert score["stderr"] == (kept and pytest.approx(kept, rel=1e-6, abs=1e-6)), (task, name)
    if "members" not in result:
        assert result["n"] == theirs["n-samples"][task]["effective"]
        assert result["num_fewshot"] == theirs["n-shot"][task]
        assert result["higher_is_better"] == theirs["higher_is_better"][task]


def _loglikelihoods(out, run, task):
    """-> (hash, log-likelihoods) of each question, as lm-eval's command line logs them."""
    lines = next((out / run).rglob(f"samples_{task}_*.jsonl")).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [(one["doc_hash"], [float(answer[0]) for answer in one["filtered_resps"]]) for one in records]


@pytest.mark.parametrize("name", RUNS)
def test_every_metric_and_error_is_that_of_lm_evals_command_line(root, inputs, theirs, name):
    ours = evaluated(root / "ours" / name, inputs, allow_code=True, **OURS[name])
    assert ours["tasks"].keys() == theirs[name]["results"].keys() - {"overridden"}
    for task in ours["tasks"]:
        _require_alike(ours, theirs[name], task)
    for task in {"arc_easy", "winogrande", "piqa", "mmlu_anatomy"} & ours["tasks"].keys():
        logged = _loglikelihoods(root / "out", name, task)
        kept = samples(root / "ours" / name, task)
        assert [sample["doc_hash"] for sample in kept] == [doc_hash for doc_hash, _ in logged]
        for sample, (_, numbers) in zip(kept, logged, strict=True):
            assert sample["loglikelihoods"] == pytest.approx(numbers, abs=1e-4)


def test_the_comparison_is_not_of_nothing(theirs):
    plain = theirs["plain"]["results"]
    assert len([name for name in plain if "group" not in name]) >= 18
    generated = {**plain["gsm8k"], **plain["triviaqa"], **plain["nq_open"]}
    shares = [value for key, value in generated.items() if key.startswith("exact_match,")]
    assert sum(0 < value < 1 for value in shares) >= 2
    assert len({theirs[name]["results"]["arc_easy"]["acc_norm_stderr,none"] for name in ("plain", "chat")}) == 2


def test_each_task_can_be_asked_in_its_own_way(root, inputs, theirs):
    chat = {"apply_chat_template": True, "system_instruction": SYSTEM, "num_fewshot": 2, "limit": 0.4}
    turn = {"apply_chat_template": True, "fewshot_as_multiturn": False, "num_fewshot": 3, "limit": 5}
    asked = {
        "chat": [{"task": task, "fewshot_seed": 77, "gen_kwargs": SHORT} | chat for task in ("triviaqa", "hellaswag")],
        "one turn": [{"task": task, "gen_kwargs": SHORT} | turn for task in ("arc_easy", "gsm8k", "mmlu")],
        "plain": ["winogrande", "lambada_openai"],
    }
    tasks = [task for of_run in asked.values() for task in of_run]
    ours = evaluated(root / "ours" / "mixed", inputs, allow_code=True, tasks=tasks)
    for run, of_run in asked.items():
        for task in of_run:
            _require_alike(ours, theirs[run], task if isinstance(task, str) else task["task"])
    assert ours["tasks"]["mmlu_anatomy"]["asked"] == ours["tasks"]["mmlu"]["asked"] == {"gen_kwargs": SHORT} | turn
    assert "asked" not in ours["tasks"]["winogrande"]


STUDY = """
name: asked
dtype: float32
data: {source: "builtin:tiny/data/train.jsonl", limit: 16}
pairs: {p: {teacher: {model: "builtin:tiny/models/teacher"}, student: {model: "builtin:tiny/models/student"}}}
train: {max_steps: 2, batch_size: 4, warmup_steps: 1, lora: {rank: 4, alpha: 8, target_modules: [q_proj, v_proj]}}
distill: {teacher: baseline}
evaluate:
  tasks: [tiny_endings, {task: tiny_letters, num_fewshot: 2, limit: 5}]
  limit: 0.02
  num_fewshot: 3
  include_path: "builtin:tiny/tasks"
  system_instruction: Be brief.
ablations: {a: {grid: {evaluate.apply_chat_template: [true, false]}, references: [student/finetuned]}}
"""
LETTERS = {"group": "letters", "task": [{"task": "tiny_letters", "num_fewshot": 2}]}


def test_a_study_from_its_file_to_its_report_says_what_lm_eval_says_of_the_exported_model(tmp_path):
    """A tiny task's file says 0 examples, which `--num_fewshot` cannot change and what is said of it alone does."""
    (tmp_path / "study.yaml").write_text(STUDY)
    project = open_study(tmp_path / "study.yaml", tmp_path / "root")
    assert run_study(project, RunOptions(placing=Placing(num_jobs=2))).exit_code == 0
    results = collect(project.plan())
    chatted = next(cell for cell in results.cells if cell.cell.row.values == {"evaluate.apply_chat_template": True})
    export_cell(results.plan, chatted.cell, tmp_path / "model")
    tasks = shutil.copytree(assets() / "tasks", tmp_path / "tasks")
    (tasks / "letters.yaml").write_text(yaml.safe_dump(LETTERS))
    chat = ["--apply_chat_template", "--system_instruction", "Be brief."]
    runs = {"tiny_endings": [*chat, "--limit", "0.02", "--num_fewshot", "3"], "letters": [*chat, "--limit", "5"]}
    theirs = real_tasks.command_line(
        tmp_path / "model", tasks, tmp_path / "out", {name: ["--tasks", name, *more] for name, more in runs.items()}
    )
    _require_alike(chatted.evaluation, theirs["tiny_endings"], "tiny_endings")
    _require_alike(chatted.evaluation, theirs["letters"], "tiny_letters")
    assert [chatted.evaluation["tasks"][task]["num_fewshot"] for task in ("tiny_endings", "tiny_letters")] == [0, 2]
    report = (tmp_path / "root/reports/asked/report.md").read_text()
    assert "tiny_letters n = 5, version 1.0, num_fewshot 2, the first 5 questions" in report
    assert "the first 2 % of the questions of each task, apply_chat_template true, system_instruction" in report
    assert "not comparable: other prompts" in report  # the control is asked without a chat template


@pytest.mark.soak
def test_the_command_line_says_the_same_without_our_driver(root, theirs):
    arguments = [
        "run",
        "--model",
        "hf",
        "--model_args",
        f"pretrained={root / 'model'},dtype=float32",
        "--device",
        "cpu",
    ]
    arguments += ["--batch_size", "16", "--include_path", str(root / "tasks"), "--output_path", str(root / "bare")]
    command = [sys.executable, "-m", "lm_eval", *arguments, *RUNS["instructed"]]
    subprocess.run(command, cwd=root / "tasks", check=True, capture_output=True)
    bare = json.loads(next((root / "bare").rglob("results_*.json")).read_text())
    assert bare["results"] == theirs["instructed"]["results"]
