import json
import math
from dataclasses import replace

import numpy as np
import pytest
from jinja2 import Environment
from lm_eval import utils
from support import asking, tiny_models
from support.asking import (
    ENDINGS,
    GROUP,
    adapter,
    evaluated,
    evaluation_inputs,
    fetched,
    run,
    samples,
    save_model,
    write_tasks,
)

from ablate.core.errors import Interrupted, StageError
from ablate.evaluation import lm_eval_scores
from ablate.results.choice_answers import read_questions
from ablate.stages.evaluate import Evaluate, EvaluateSettings
from ablate.store.checkpoints import Checkpoints
from ablate.study.catalog import lm_eval_version
from ablate.study.evaluation_settings import Evaluate as Recipe
from ablate.training import batches

OWN = ("own_endings", "own_letters")


@pytest.fixture
def model(tmp_path):
    return save_model(tmp_path / "model")


@pytest.fixture
def inputs(tmp_path, model):
    return evaluation_inputs(tmp_path, model)


def _theirs(model, folder, monkeypatch, **settings):
    """What lm-eval itself says of a model folder: one call for all tasks, from where its data files are found."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(folder)
    args = {"pretrained": str(model), "dtype": "float32", "device": "cpu"}
    manager = TaskManager(include_defaults=False, include_path=str(folder))
    return simple_evaluate("hf", args, task_manager=manager, batch_size=16, **settings)


@pytest.mark.parametrize("settings", [{}, {"limit": 4}, {"num_fewshot": 2}])
def test_scores_errors_and_answers_are_lm_evals(tmp_path, model, inputs, monkeypatch, settings):
    theirs = _theirs(model, tmp_path / "tasks", monkeypatch, tasks=[*OWN], **settings)
    ours = evaluated(tmp_path / "stage", inputs, tasks=OWN, **settings)
    assert list(ours["tasks"]) == sorted(OWN)
    for task, result in ours["tasks"].items():
        assert result["version"] == 2.5
        assert result["n"] == settings.get("limit", 9)
        assert result["num_fewshot"] == settings.get("num_fewshot", 0)
        assert result["higher_is_better"] == {"acc": True, "acc_norm": True}
        assert result["metrics"].keys() == {"acc", "acc_norm"}
        for metric, score in result["metrics"].items():
            assert score["value"] == pytest.approx(theirs["results"][task][f"{metric},none"], abs=1e-6)
            assert score["stderr"] == pytest.approx(theirs["results"][task][f"{metric}_stderr,none"], abs=1e-6)
        for mine, other in zip(samples(tmp_path / "stage", task), theirs["samples"][task], strict=True):
            assert mine["doc_hash"] == other["doc_hash"]
            assert mine["loglikelihoods"] == pytest.approx([float(ll) for ll, _ in other["filtered_resps"]], abs=1e-4)


def test_what_was_asked_is_kept_in_words_beside_the_scores(tmp_path, inputs):
    evaluated(tmp_path / "stage", inputs, tasks=OWN, num_fewshot=1)
    words = list(read_questions(tmp_path / "stage" / "out" / "samples" / "own_endings.jsonl").values())
    documents = [asking.question("test", index) for index in range(9)]
    assert [one.choices for one in words] == [tuple(f" {text}" for text in one["endings"]) for one in documents]
    assert all(one.question.endswith(asked["context"]) for one, asked in zip(words, documents, strict=True))


def test_an_evaluation_goes_on_from_a_checkpoint_of_before_words_were_kept(tmp_path, inputs):
    whole = evaluated(tmp_path / "whole", inputs, tasks=OWN)
    with pytest.raises(Interrupted):
        evaluated(tmp_path / "stage", inputs, tasks=OWN, is_stopping=lambda: True)
    for path in (tmp_path / "stage").rglob("[0-9].json"):
        record = json.loads(path.read_text())
        record.pop("texts", None)
        path.write_text(json.dumps(record))
    assert evaluated(tmp_path / "stage", inputs, tasks=OWN) == whole
    for task in OWN:
        assert samples(tmp_path / "stage", task) == samples(tmp_path / "whole", task)


def test_two_models_with_one_tokenizer_have_its_tokens_from_one_file_a_task(tmp_path, model, inputs):
    settings = EvaluateSettings(recipe=Recipe(dtype="float32", tasks=OWN), lm_eval=lm_eval_version())
    trained = inputs | {"adapter_0": adapter(model, tmp_path / "trained")}
    for name, asked in (("a", inputs), ("b", trained)):
        run(tmp_path / name, replace(tiny_models.job(tmp_path / name, settings, **asked), tokens=tmp_path / "tokens"))
        evaluated(tmp_path / f"{name} alone", asked, tasks=OWN)
        assert samples(tmp_path / name, OWN[0]) == samples(tmp_path / f"{name} alone", OWN[0])
    assert len(list((tmp_path / "tokens").iterdir())) == len(OWN)


def test_a_template_is_compiled_once_and_lm_evals_environment_left_as_it_was(tmp_path, inputs, monkeypatch):
    compiled, compile_it = [], Environment.compile
    monkeypatch.setattr(
        Environment, "compile", lambda self, source, *args: compiled.append(source) or compile_it(self, source, *args)
    )
    before = utils.env
    evaluated(tmp_path / "stage", inputs, tasks=OWN)
    assert len(compiled) == len(set(compiled)) > 0
    assert utils.env is before
    assert "from_string" not in vars(before)


def test_every_question_keeps_its_scores_its_target_and_what_it_shares(tmp_path, inputs):
    results = evaluated(tmp_path / "stage", inputs, tasks=("own_endings",))
    kept = samples(tmp_path / "stage", "own_endings")
    assert [sample["doc_id"] for sample in kept] == list(range(9))
    assert [sample["cluster"] for sample in kept[:3]] == ["Ada", "Bo", "Cy"]
    assert [sample["target"] for sample in kept] == [index * 7 % 3 for index in range(9)]
    for metric, score in results["tasks"]["own_endings"]["metrics"].items():
        assert sum(sample["scores"][metric] for sample in kept) / 9 == pytest.approx(score["value"])


def test_the_right_answers_probability_is_told_in_nats_and_in_bits_per_byte(tmp_path, model, inputs, monkeypatch):
    theirs = _theirs(model, tmp_path / "tasks", monkeypatch, tasks=[*OWN])["samples"]
    results = evaluated(tmp_path / "stage", inputs, tasks=OWN)["tasks"]
    for task in OWN:
        right = [(sample["filtered_resps"], sample["arguments"], sample["target"]) for sample in theirs[task]]
        nats = [float(answers[target][0]) for answers, _, target in right]
        sizes = [len(arguments[target][1].encode()) for _, arguments, target in right]
        bits = [-value / math.log(2) / size for value, size in zip(nats, sizes, strict=True)]
        for name, values in (("log_probability", nats), ("bits_per_byte", bits)):
            assert results[task]["finer"][name]["value"] == pytest.approx(np.mean(values), abs=1e-5)
            assert results[task]["finer"][name]["stderr"] == pytest.approx(np.std(values, ddof=1) / 3, abs=1e-5)


def test_a_task_may_name_the_right_answer_by_its_words(tmp_path, inputs):
    path = tmp_path / "tasks" / "endings.yaml"
    path.write_text(path.read_text().replace("{{label}}", "{{endings[label]}}"))
    included = {"include": fetched(tmp_path / "other", path.parent)}
    results = evaluated(tmp_path / "spelt", inputs | included, tasks=OWN[:1])
    assert results["tasks"]["own_endings"]["finer"].keys() == {"log_probability", "bits_per_byte"}
    sample = samples(tmp_path / "spelt", "own_endings")[1]
    assert sample["finer"]["log_probability"] == sample["loglikelihoods"][1 * 7 % 3]


def question(target, *arguments, answers=None):
    """lm-eval's record of one, whose answers are likelier the later they stand."""
    responses = [(-float(9 - number), False) for number in range(len(arguments))] if answers is None else answers
    fixed = {"doc_id": 0, "doc_hash": "", "doc": {}}
    return fixed | {"target": target, "arguments": [*arguments], "filtered_resps": responses}


@pytest.mark.parametrize(
    ("record", "nats"),
    [
        (question(1, ("q", " a"), ("q", " b")), -8.0),
        (question("b", ("q", " a"), ("q", " b")), -8.0),
        (question("b", ("q", " b")), -9.0),
        (question("b", ("with a", " b"), ("with b", " b")), None),  # one ending under several beginnings
        (question(1, ("with a", " b"), ("with b", " b")), None),
        (question("b", ("q", " a"), ("q", " b"), ("", " a"), ("", " b")), None),
        (question("b", ("q", " b"), ("q", "b")), None),
        (question("c", ("q", " a"), ("q", " b")), None),
        (question([0, 1], ("q", " a"), ("q", " b")), None),
        (question(2, ("q", " a"), ("q", " b")), None),
        (question("b", ("q", {"until": ["."]}), answers=[["b"]]), None),
        (question(0, ("q", " a"), answers=[(-math.inf, False)]), None),
    ],
)
def test_nothing_is_said_of_a_right_answer_that_is_not_certain(record, nats):
    assert lm_eval_scores.question_record(record).get("finer", {}).get("log_probability") == nats


def test_what_was_asked_is_named_word_for_word(tmp_path, model, inputs):
    def prompts(name, **settings):
        return evaluated(tmp_path / name, inputs, tasks=OWN[:1], **settings)["tasks"]["own_endings"]["prompts"]

    assert prompts("a") == prompts("b", dtype="bfloat16") != prompts("c", num_fewshot=2)


def test_a_cluster_called_nothing_is_kept_and_a_missing_one_is_none(tmp_path, inputs):
    path = tmp_path / "tasks" / "data" / "test.jsonl"
    rows = [
        json.loads(line) | {"cluster": ["", "Bo", None][i % 3]} for i, line in enumerate(path.read_text().splitlines())
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    included = fetched(tmp_path / "numbered", tmp_path / "tasks")
    evaluated(tmp_path / "stage", inputs | {"include": included}, tasks=("own_endings",))
    kept = samples(tmp_path / "stage", "own_endings")
    assert [sample.get("cluster", "none") for sample in kept] == ["", "Bo", "none"] * 3


def test_a_trained_model_is_base_and_adapters_in_their_order(tmp_path, model, inputs, monkeypatch):
    from ablate.training.models import load_merged

    chain = {"adapter_0": adapter(model, tmp_path / "first"), "adapter_1": adapter(model, tmp_path / "second", seed=2)}
    evaluated(tmp_path / "stage", inputs | chain, tasks=("own_endings",))
    merged = load_merged(model, [tmp_path / "first" / "out", tmp_path / "second" / "out"], "float32")
    merged.model.save_pretrained(tmp_path / "merged")
    merged.tokenizer.save_pretrained(tmp_path / "merged")
    theirs = _theirs(tmp_path / "merged", tmp_path / "tasks", monkeypatch, tasks=["own_endings"])
    for mine, other in zip(samples(tmp_path / "stage", "own_endings"), theirs["samples"]["own_endings"], strict=True):
        assert mine["loglikelihoods"] == pytest.approx([float(ll) for ll, _ in other["filtered_resps"]], abs=1e-4)


def test_a_stopped_evaluation_goes_on_in_the_middle_of_the_second_task(tmp_path, inputs, monkeypatch):
    monkeypatch.setattr(batches, "CPU_BUDGET", 1)  # every question by itself
    heard = []
    whole = evaluated(tmp_path / "whole", inputs, tasks=OWN, is_stopping=lambda: heard.append("whole"))
    stop_at = len(heard) * 3 // 4

    def stop_in_the_second_task():
        heard.append("first")
        return heard.count("first") >= stop_at

    with pytest.raises(Interrupted):
        evaluated(tmp_path / "stage", inputs, tasks=OWN, is_stopping=stop_in_the_second_task)
    _, kept = Checkpoints(tmp_path / "stage" / "checkpoints").latest()
    assert {path.name for path in kept.iterdir()} == {"0.json", "partial.json", "manifest.json"}
    assert not (tmp_path / "stage" / "out" / "results.json").exists()
    assert evaluated(tmp_path / "stage", inputs, tasks=OWN, is_stopping=lambda: heard.append("second")) == whole
    assert heard.count("first") + heard.count("second") == heard.count("whole")
    for task in OWN:
        assert samples(tmp_path / "stage", task) == samples(tmp_path / "whole", task)


def test_progress_is_told_in_questions_of_all_tasks(tmp_path, inputs):
    evaluated(tmp_path / "stage", inputs, tasks=OWN, limit=4)
    progress = json.loads((tmp_path / "stage" / "progress.json").read_text())
    assert (progress["done"], progress["total"], progress["unit"]) == (8, 8, "questions")


def test_a_group_stands_beside_its_tasks(tmp_path, inputs):
    tasks = evaluated(tmp_path / "stage", inputs, tasks=("own",))["tasks"]
    assert tasks["own"]["members"] == [*OWN]
    assert tasks["own"]["n"] == 18
    mean = (tasks[OWN[0]]["metrics"]["acc"]["value"] + tasks[OWN[1]]["metrics"]["acc"]["value"]) / 2
    assert tasks["own"]["metrics"]["acc"]["value"] == pytest.approx(mean)
    assert len(samples(tmp_path / "stage", "own_letters")) == 9


def test_a_diverged_training_gives_no_score_but_the_news(tmp_path, model, inputs):
    diverged = tmp_path / "diverged"
    (diverged / "out").mkdir(parents=True)
    (diverged / "out" / "diverged.json").write_text('{"step": 7, "loss": "nan"}')
    results = evaluated(tmp_path / "stage", inputs | {"adapter_0": diverged}, tasks=OWN)
    assert results["diverged"] == {"step": 7, "loss": "nan"}
    assert "tasks" not in results


SHARE = (
    ENDINGS.replace("own_endings", "share").replace("  - {metric: acc_norm", "#")
    + "process_results: !function utils.share\n"
)
UTILS = """
import math
def share(doc, results):
    chances = [math.exp(ll) for ll, _ in results]
    value = chances[doc["label"]] / sum(chances)
    return {"acc": value, "acc_norm": value}
"""


@pytest.fixture
def coded(tmp_path, model):
    tasks = write_tasks(tmp_path / "tasks", share=SHARE)
    (tasks / "utils.py").write_text(UTILS + f"\nopen({str(tmp_path / 'ran')!r}, 'w')\n")
    return {"model": fetched(tmp_path / "fetched", model), "include": fetched(tmp_path / "included", tasks)}


def test_python_beside_a_task_runs_only_where_the_study_allows_it(tmp_path, coded):
    with pytest.raises(StageError, match=r"share.yaml:\d+: !function utils.share.*allow_code: true"):
        evaluated(tmp_path / "stage", coded, tasks=("own_endings",))
    assert not (tmp_path / "ran").exists()
    results = evaluated(tmp_path / "again", coded, tasks=("share",), allow_code=True)
    assert 0 < results["tasks"]["share"]["metrics"]["acc"]["value"] < 1


def test_a_score_that_is_no_number_stays_one(tmp_path, model, coded):
    from transformers import AutoModelForCausalLM

    broken = AutoModelForCausalLM.from_pretrained(model)
    broken.lm_head.weight.data.fill_(3e38)  # finite, and no logit of it is
    broken.save_pretrained(model)
    coded = coded | {"model": fetched(tmp_path / "fetched again", model)}
    results = evaluated(tmp_path / "stage", coded, tasks=("share",), allow_code=True)
    assert results["tasks"]["share"]["metrics"]["acc"] == {"value": "NaN", "stderr": "NaN"}
    assert samples(tmp_path / "stage", "share")[0]["scores"] == {"acc": "NaN", "acc_norm": "NaN"}


def test_a_template_cannot_reach_python(tmp_path, model):
    escape = ENDINGS.replace("own_endings", "escape").replace(
        "{{context}}", "{{''.__class__.__mro__[1].__subclasses__()}}"
    )
    include = fetched(tmp_path / "included", write_tasks(tmp_path / "tasks", escape=escape))
    inputs = {"model": fetched(tmp_path / "fetched", model), "include": include}
    with pytest.raises(StageError, match=r"task escape cannot be set up \(SecurityError"):
        evaluated(tmp_path / "stage", inputs, tasks=("escape",))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (GROUP.replace("own_letters", "own_leters"), "has no task 'own_leters' \\(a member of own\\).*'own_letters'"),
        (ENDINGS.replace("own_endings", "own").replace("test.jsonl", "tset.jsonl"), "task own cannot be set up"),
        (ENDINGS.replace("own_endings", "own").replace("data/test", "../outside"), "lies outside"),
        (
            ENDINGS.replace("own_endings", "own").replace("test_split: test", "test_split: none"),
            "task own cannot be set up",
        ),
    ],
)
def test_a_task_that_cannot_be_asked_is_told_before_the_model_is_loaded(tmp_path, file, message):
    (tmp_path / "outside.jsonl").write_text("{}")
    include = fetched(tmp_path / "included", write_tasks(tmp_path / "tasks", group=file))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "empty").touch()
    inputs = {"model": fetched(tmp_path / "fetched", tmp_path / "model"), "include": include}
    with pytest.raises(StageError, match=message):
        evaluated(tmp_path / "stage", inputs, tasks=("own",))


def test_questions_that_were_edited_after_the_plan_are_not_asked(tmp_path, inputs):
    rows = tmp_path / "tasks" / "data" / "test.jsonl"
    rows.write_text(rows.read_text().replace("Ada", "Bob"))
    with pytest.raises(StageError, match=r"test\.jsonl was changed after the study was planned"):
        evaluated(tmp_path / "stage", inputs, tasks=OWN)


def test_another_lm_eval_than_the_plans_is_refused(tmp_path, inputs):
    settings = EvaluateSettings(recipe=Recipe(tasks=OWN, dtype="float32"), lm_eval="0.0.1")
    with pytest.raises(StageError, match=r"planned with lm-eval 0\.0\.1"):
        run(tmp_path / "stage", tiny_models.job(tmp_path / "stage", settings, **inputs))


def test_an_evaluation_with_answers_missing_is_not_committed(tmp_path, inputs):
    evaluated(tmp_path / "stage", inputs, tasks=OWN)
    kept = tmp_path / "stage" / "out" / "samples" / "own_letters.jsonl"
    kept.write_text("".join(kept.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(StageError, match="own_letters has 9 answers in its score and 8 in its samples"):
        Evaluate().check(tmp_path / "stage")
