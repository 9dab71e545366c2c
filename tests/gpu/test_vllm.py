"""Answers by vLLM itself: a small teacher's, on a card."""

import json

import pytest
import torch
import transformers
from support import tiny_models as tiny

from ablate.data import tokens
from ablate.store.kind import KINDS

pytest.importorskip("vllm")
ROWS = tiny.random_rows([9, 17, 6, 12, 8, 11, 10, 20], [4, 9, 5, 11, 3, 6, 7, 12])
SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2, "num_key_value_heads": 2}


@pytest.fixture
def inputs(tmp_path):
    made = tiny.stage_inputs(tmp_path, ROWS, tiny.random_rows([7], [3]))
    torch.manual_seed(1)
    config = transformers.LlamaConfig(**(tiny.SMALL | SIZES | {"initializer_range": 0.05}))
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "teacher-model")
    return {name: made[name] for name in ("teacher", "rows")}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_teacher_answers_as_it_would_by_transformers_up_to_rounding(tmp_path, inputs, temperature):
    kind = KINDS["generate"]
    sampling = {"max_new_tokens": 8, "num_answers": 1 if temperature == 0 else 2, "temperature": temperature}
    settings = {"sampling": sampling | {"writer": "vllm"}, "dtype": "bfloat16", "seed": 0}
    job = tiny.job(tmp_path / "g", kind.Settings.model_validate(settings), **inputs)
    job.device = "cuda"
    kind.run(job)
    kind.check(tmp_path / "g")
    train = tokens.load(job.out / "train.safetensors")
    lines = [json.loads(line) for line in (job.out / "answers.jsonl").read_text().splitlines()]
    assert len(lines) == len(train) == len(ROWS) * sampling["num_answers"]
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "teacher-model", dtype=torch.float32).eval()
    for row, line in enumerate(lines):
        ids, mask = train.row(row)
        begin = int(mask.argmax())
        assert max(ids) < tiny.VOCABULARY
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(ids[None].tolist())).logits[0, begin - 1 : -1, : tiny.VOCABULARY]
        answer = torch.tensor(ids[begin:, None].tolist())
        assert line["teacher_logprob"] == pytest.approx(float(logits.log_softmax(1).gather(1, answer).mean()), abs=0.05)
        if temperature == 0:
            assert (logits.max(1).values - logits.gather(1, answer)[:, 0]).max() < 0.05
