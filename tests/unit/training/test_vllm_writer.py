"""A teacher's answers by vLLM: what it is given is the teacher, and what it gives is what is trained on."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file
from support import fake_vllm
from support import tiny_models as tiny

from ablate.core.errors import Interrupted, StageError
from ablate.data import tokens
from ablate.store.kind import KINDS
from ablate.training import vllm_writer
from ablate.training.prompts import end_tokens

LENGTHS, PROMPTS = [9, 17, 6, 12, 8, 11, 10], [4, 9, 5, 12, 3, 6, 7]
"""The fourth has no answer."""
ROWS, HOLDOUT = tiny.random_rows(LENGTHS, PROMPTS), tiny.random_rows([7, 8], [3, 3], seed=9)
SHARE = 0.4


@pytest.fixture
def vllm(monkeypatch):
    monkeypatch.setattr(vllm_writer, "share_of_card", lambda: SHARE)
    for name, value in vllm_writer.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)  # so that it is as before afterwards
    return fake_vllm.installed(monkeypatch)


def inputs_of(folder, family="llama"):
    made = tiny.stage_inputs(folder, ROWS, HOLDOUT, family)
    path = made["rows"] / "out/summary.json"
    more = {"train": ROWS.counts._asdict(), "holdout": HOLDOUT.counts._asdict(), "notes": []}
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    return {name: made[name] for name in ("teacher", "rows")}


def generated(folder, inputs, *, device="cuda", is_stopping=lambda: False, writer="vllm", dtype="float32", **sampling):
    kind = KINDS["generate"]
    sampling = {"max_new_tokens": 6, "writer": writer} | sampling
    job = tiny.job(folder, kind.Settings.model_validate({"sampling": sampling, "dtype": dtype, "seed": 3}), **inputs)
    job.device, job.is_stopping = device, is_stopping
    kind.run(job)
    kind.check(folder)
    return job


def lines_of(job):
    return [json.loads(line) for line in (job.out / "answers.jsonl").read_text().splitlines()]


def tuned(folder, family):
    """-> a training that made all weights others."""
    (folder / "out").mkdir(parents=True)
    weights = {name: weight.detach().clone() for name, weight in tiny.make(family, 7).named_parameters()}
    save_file(weights, folder / "out/model.safetensors")
    return folder


@pytest.mark.parametrize("family", ["llama", "llama_tied", "gpt2", "gemma2", "cohere"])
def test_what_vllm_is_given_is_the_tuned_teacher_and_knows_no_token_beyond_the_tokenizers(tmp_path, vllm, family):
    """The likeliest tokens, by whomever, are the same bytes; heads have three rows more than the tokenizer."""
    inputs = inputs_of(tmp_path, family) | {"teacher_adapter": tuned(tmp_path / "tuned", family)}
    by_vllm = generated(tmp_path / "v", inputs, temperature=0)
    ours = generated(tmp_path / "t", inputs, temperature=0, writer="transformers", device="cpu")
    for name in ("train.safetensors", "holdout.safetensors", "summary.json"):
        assert (by_vllm.out / name).read_bytes() == (ours.out / name).read_bytes()
    for one, other in zip(lines_of(by_vllm), lines_of(ours), strict=True):
        assert one.pop("teacher_logprob") == pytest.approx(other.pop("teacher_logprob"), rel=1e-4)
        assert one == other
    (engine,) = vllm.engines
    assert engine._model.config.vocab_size == tiny.VOCABULARY
    assert by_vllm.notes["writer"] == "vLLM 0.33.0"
    assert not (tmp_path / "v/vllm_model").exists()


def test_a_teacher_whose_own_way_to_generate_contradicts_itself_is_handed_over_all_the_same(tmp_path, vllm):
    """transformers reads such a generation_config.json, and refuses to write it."""
    inputs = inputs_of(tmp_path)
    path = tmp_path / "teacher-model/generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_sample": False, "temperature": 0.6}))
    assert generated(tmp_path / "v", inputs).notes["writer"] == "vLLM 0.33.0"


def test_what_is_trained_on_is_what_vllm_wrote(tmp_path, vllm):
    sampling = {"num_answers": 2, "temperature": 0.7, "top_p": 0.9, "top_k": 20}
    job = generated(tmp_path / "v", inputs_of(tmp_path), **sampling)
    train = tokens.load(job.out / "train.safetensors")
    answers = {row: train.row(row)[0].tolist() for row in range(len(train)) if len(train.row(row)[0])}
    prompts = [prompt["prompt_token_ids"] for prompt, _ in vllm.asked]
    assert sorted(answers.values()) == sorted(a + b for a, b in zip(prompts, vllm.written, strict=True))
    assert len(answers) == 2 * 6
    ends = end_tokens(ROWS, tiny.tokenizer(), [tiny.make("llama")])
    (engine,) = vllm.engines
    assert engine.settings == (True, "vllm", 9 + 6, SHARE)
    for _, params in vllm.asked:
        assert (params.temperature, params.top_p, params.top_k, params.max_tokens) == (0.7, 0.9, 20, 6)
        assert (params.n, params.logprobs, params.detokenize, params.ignore_eos) == (1, 0, False, True)
        assert {*params.stop_token_ids} == ends
    assert len({params.seed for _, params in vllm.asked}) == 12


def test_asked_to_stop_it_goes_on_with_what_is_missing_to_the_same_bytes(tmp_path, vllm, monkeypatch):
    monkeypatch.setattr(vllm_writer, "GROUP", 2)
    inputs = inputs_of(tmp_path)
    whole = generated(tmp_path / "whole", inputs)
    vllm.asked.clear()
    with pytest.raises(Interrupted):
        generated(tmp_path / "v", inputs, is_stopping=lambda: True)
    assert len(vllm.asked) == 2
    assert not (tmp_path / "v/vllm_model").exists()
    again = generated(tmp_path / "v", inputs)
    assert len({tuple(prompt["prompt_token_ids"]) for prompt, _ in vllm.asked}) == len(vllm.asked) == 6
    for path in whole.out.iterdir():
        assert path.read_bytes() == (again.out / path.name).read_bytes()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"device": "cpu"}, "needs a CUDA card, and there is none"),
        ({"dtype": "float64"}, "and dtype is float64"),
    ],
)
def test_where_vllm_cannot_write_it_is_told_before_a_model_is_loaded(tmp_path, vllm, how, why):
    with pytest.raises(StageError, match=f"{why}.*sampling.writer: transformers"):
        generated(tmp_path / "v", {"teacher": inputs_of(tmp_path)["teacher"]}, **how)


def test_without_the_package_it_is_told_how_it_is_installed(tmp_path, vllm, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(StageError, match=r"vLLM is not installed: `pip install 'ablate\[vllm\]'`"):
        generated(tmp_path / "v", {"teacher": inputs_of(tmp_path)["teacher"]})


@pytest.mark.parametrize("damage", ["cut", "another prompt's", "beyond its end"])
def test_an_answer_that_was_not_asked_for_is_never_trained_on(tmp_path, vllm, monkeypatch, damage):
    output = fake_vllm.LLM._output

    def damaged(self, prompt, params):
        result = output(self, prompt, params)
        if damage == "cut":
            result.outputs[0].token_ids = [5]
        elif damage == "beyond its end":
            result.outputs[0].token_ids = [0, 5]
        else:
            result.prompt_token_ids = [1, 2, 3]
        return result

    monkeypatch.setattr(fake_vllm.LLM, "_output", damaged)
    with pytest.raises(StageError, match=r"vLLM gave row \d an answer that is not what was asked for"):
        generated(tmp_path / "v", inputs_of(tmp_path))
    assert not list((tmp_path / "v/out").iterdir())


def test_what_vllm_says_against_a_model_is_told_with_what_to_do(tmp_path, vllm, monkeypatch):
    def refusing(*arguments, **named):
        raise ValueError("no available memory for the cache blocks")

    monkeypatch.setattr(vllm, "LLM", refusing)
    with pytest.raises(StageError, match=r"no available memory for the cache blocks.*or say sampling.writer"):
        generated(tmp_path / "v", inputs_of(tmp_path))


def test_no_more_of_a_card_is_asked_for_than_the_stage_may_have_and_than_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (50, 100))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: 1.0)
    assert vllm_writer.share_of_card() == pytest.approx(0.45)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: 0.25)
    assert vllm_writer.share_of_card() == 0.25
