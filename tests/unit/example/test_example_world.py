"""The world of the embedded study: small, reproducible, and one in which teaching works."""

import json
import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ablate.example import assets
from ablate.example.facts import RELATIONS, false_answers, people, true_answers
from ablate.example.make import SEED, write_texts
from ablate.example.pretrain import BASES
from ablate.example.rows import MISTAKEN, rows, told_relations
from ablate.example.tasks import TASKS
from ablate.example.walks.models import WALKERS

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (assets() / name).read_text(encoding="utf-8").splitlines()]


@cache
def _model(name: str) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    folder = assets() / "models" / name
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def test_all_but_the_weights_is_made_again_byte_for_byte(tmp_path: Path):
    write_texts(tmp_path)
    rebuilt = _files(tmp_path)
    shipped = _files(assets())
    assert {name for name in shipped if "__pycache__" not in name} - rebuilt.keys() == {
        f"{model}/{file}"
        for model in (*(f"models/{name}" for name in BASES), *(f"walks/models/{name}" for name in WALKERS))
        for file in ("config.json", "generation_config.json", "model.safetensors")
    }
    assert [name for name, content in rebuilt.items() if content != shipped[name]] == []


def test_the_assets_are_under_three_megabytes():
    assert sum(map(len, _files(assets()).values())) < 3_000_000


def test_the_four_models_have_one_tokenizer():
    folders = [assets() / "models" / name for name in BASES]
    for name in TOKENIZER_FILES:
        assert len({(folder / name).read_bytes() for folder in folders}) == 1


def test_the_four_models_differ():
    assert len({(assets() / "models" / name / "model.safetensors").read_bytes() for name in BASES}) == 4


@pytest.mark.parametrize("name", BASES)
def test_a_model_folder_is_what_its_generator_says(name: str):
    model, tokenizer = _model(name)
    base = BASES[name]
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (base.hidden, base.layers)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.config.vocab_size == len(tokenizer)
    for special in ("bos", "eos", "pad"):
        assert getattr(tokenizer, f"{special}_token_id") == getattr(model.config, f"{special}_token_id")


def test_every_word_of_rows_and_questions_is_one_token():
    _, tokenizer = _model("student")
    letters = {tokenizer.convert_tokens_to_ids(letter) for letter in "abcdefghijklmnopqrstuvwxyz"}
    texts = [text for row in _lines("data/train.jsonl") for text in row.values()]
    texts += [text for task in TASKS for question in _lines(f"tasks/data/{task}.jsonl") for text in _texts(question)]
    spelt = {text for text in texts if letters & set(tokenizer(text).input_ids)}
    assert spelt == set()


def _texts(question: dict[str, Any]) -> Iterator[str]:
    choices = question.get("choices", question.get("endings"))
    yield question.get("question", question.get("context"))
    yield from (f" {choice}" for choice in (choices["text"] if isinstance(choices, dict) else choices))


def test_a_text_from_elsewhere_is_spelt_and_comes_back_whole():
    _, tokenizer = _model("student")
    text = "Distilling  Llama 3.1 8B -> 1B:\n\n(it's new)"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_a_chat_has_one_begin_and_its_prompt_is_its_beginning():
    _, tokenizer = _model("student")
    turns = [{"role": "user", "content": "What does Mira sell?"}, {"role": "assistant", "content": "sells bread."}]
    prompt = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template(turns, return_dict=False)
    assert whole[: len(prompt)] == prompt
    assert whole.count(tokenizer.bos_token_id) == 1
    assert whole[-1] == tokenizer.eos_token_id


def test_the_rows_cover_half_of_what_can_be_asked_of_anybody():
    everybody = people(SEED)
    assert {len(told_relations(person, SEED)) for person in everybody} == {len(RELATIONS) // 2}


def test_rows_about_new_people_are_never_mistaken_and_some_about_the_others_are():
    mistaken: dict[bool, list[bool]] = {True: [], False: []}
    for person in people(SEED):
        for row in rows([person], SEED):
            answers = [relation for relation in RELATIONS if row["output"].startswith(relation.verb)]
            for relation in answers:
                answer = row["output"].removeprefix(f"{relation.verb} ").removesuffix(".")
                if answer in true_answers(person, relation) + false_answers(person, relation):
                    mistaken[person.fame == "new"].append(answer in false_answers(person, relation))
    assert not any(mistaken[True])
    assert MISTAKEN / 2 < sum(mistaken[False]) / len(mistaken[False]) < MISTAKEN * 1.5


def test_no_false_answer_is_true():
    for person in people(SEED):
        for relation in RELATIONS:
            assert not set(true_answers(person, relation)) & set(false_answers(person, relation))


def _share_of_truth(name: str, questions: Sequence[dict[str, Any]]) -> float:
    """-> the mean share of the probability that the true answers get, as tiny_truth scores it."""
    import torch

    model, tokenizer = _model(name)
    shares = []
    for question in questions:
        prompt = tokenizer(f"Question: {question['question']}\nAnswer:").input_ids
        whole = [tokenizer(f"Question: {question['question']}\nAnswer: {one}").input_ids for one in question["choices"]]
        assert len({len(ids) for ids in whole}) == 1
        with torch.no_grad():
            logp_BTV = model(input_ids=torch.tensor(whole)).logits.log_softmax(-1)
        targets_BT = torch.tensor(whole)[:, len(prompt) :]
        logp_B = logp_BTV[:, len(prompt) - 1 : -1].gather(-1, targets_BT[..., None]).sum((1, 2))
        weights = [math.exp(logp) for logp in logp_B.tolist()]
        true = sum(weight for weight, label in zip(weights, question["labels"], strict=True) if label)
        shares.append(true / sum(weights))
    return sum(shares) / len(shares)


@pytest.mark.parametrize("pair", ["", "close_"])
def test_a_teacher_knows_more_than_its_student(pair: str):
    questions = _lines("tasks/data/tiny_truth.jsonl")[::5]
    assert _share_of_truth(f"{pair}teacher", questions) > _share_of_truth(f"{pair}student", questions) + 0.05


def test_nobody_knows_the_new_people_before_the_rows_tell():
    new = {person.name for person in people(SEED) if person.fame == "new"}
    questions = [question for question in _lines("tasks/data/tiny_truth.jsonl") if question["cluster"] in new][::2]
    chance = sum(sum(one["labels"]) / len(one["labels"]) for one in questions) / len(questions)
    assert _share_of_truth("teacher", questions) < chance + 0.1


def test_lm_eval_reads_the_three_tasks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from ablate.evaluation.tasks import Tasks

    model, tokenizer = _model("teacher")
    results = simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=32),
        tasks=list(TASKS),
        task_manager=Tasks(TASKS, {}, assets() / "tasks"),
        limit=20,
        bootstrap_iters=0,
    )
    metrics = {task: {name for name in scores if name.endswith(",none")} for task, scores in results["results"].items()}
    assert {
        task: {name.removesuffix(",none") for name in names if "stderr" not in name} for task, names in metrics.items()
    } == {
        "tiny_truth": {"acc"},
        "tiny_endings": {"acc", "acc_norm"},
        "tiny_letters": {"acc"},
    }
    assert results["versions"] == dict.fromkeys(TASKS, 1.0)


def test_importing_the_world_imports_nothing_heavy():
    import subprocess
    import sys

    code = "import ablate.example, sys; assert not {'torch', 'tokenizers', 'transformers'} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
