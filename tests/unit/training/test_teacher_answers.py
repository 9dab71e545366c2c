"""The generate stage: a teacher's answers stand in for the data's, written once, whatever happens meanwhile."""

import json
import random
import shutil

import pytest
import torch
from support import tiny_models as tiny
from support.faulty import KILLS, killed, operations

from ablate.core.errors import Interrupted, StageError
from ablate.data import tokens
from ablate.stages.row_uses import Use, rows_read
from ablate.store.kind import KINDS
from ablate.training import decode_loop, teacher_answers
from ablate.training.prompts import end_tokens, prompt_ids

LENGTHS = [9, 17, 6, 12, 8, 3, 11, 8, 13, 10]
PROMPTS = [4, 9, 5, 12, 3, 2, 6, 6, 1, 7]
"""The fourth has no answer."""
ROWS, HOLDOUT = tiny.random_rows(LENGTHS, PROMPTS), tiny.random_rows([7, 8], [3, 3], seed=9)
SAMPLING = {"max_new_tokens": 6}


@pytest.fixture
def inputs(tmp_path):
    made = tiny.stage_inputs(tmp_path, ROWS, HOLDOUT)
    path = made["rows"] / "out/summary.json"
    more = {"train": ROWS.counts._asdict(), "holdout": HOLDOUT.counts._asdict(), "template": "model", "cut": 3}
    path.write_text(json.dumps(json.loads(path.read_text()) | more | {"content": "c" * 64, "notes": ["of the data"]}))
    return {name: made[name] for name in ("teacher", "rows")}


def generated(folder, inputs, *, is_stopping=lambda: False, sampling=SAMPLING, **settings):
    kind = KINDS["generate"]
    settings = {"sampling": sampling, "dtype": "float32", "seed": 0} | settings
    job = tiny.job(folder, kind.Settings.model_validate(settings), **inputs)
    job.is_stopping = is_stopping
    kind.run(job)
    kind.check(folder)
    return job


def contents_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lines_of(job):
    return [json.loads(line) for line in (job.out / "answers.jsonl").read_text().splitlines()]


def test_rows_with_a_teachers_answers_are_rows_like_others(inputs, tmp_path):
    job = generated(tmp_path / "g", inputs)
    train = tokens.load(job.out / "train.safetensors")
    assert len(train) == len(ROWS)
    for row in range(len(ROWS)):
        assert prompt_ids(train, row) == (() if row == 3 else prompt_ids(ROWS, row))
    assert tokens.load(job.out / "holdout.safetensors").digest() == HOLDOUT.digest()
    summary = json.loads((job.out / "summary.json").read_text())
    assert summary["train"] == train.counts._asdict()
    assert summary["longest"] == max(int(train.lengths.max()), 8)
    assert (summary["template"], summary["cut"]) == ("model", 3)
    assert summary["content"] == tokens.content([train, HOLDOUT], tiny.VOCABULARY)


@torch.no_grad()
def test_every_answer_can_be_read_with_how_likely_its_teacher_thinks_it(inputs, tmp_path):
    job = generated(tmp_path / "g", inputs, sampling=SAMPLING | {"temperature": 0.7, "top_p": 0.9})
    train, tokenizer, teacher = tokens.load(job.out / "train.safetensors"), tiny.tokenizer(), tiny.make("llama", 1)
    lines, ends = lines_of(job), end_tokens(ROWS, tokenizer, [teacher])
    assert [line["row"] for line in lines] == [row for row in range(len(ROWS)) if row != 3]
    for line in lines:
        ids, mask = train.row(line["row"])
        begin = int(mask.argmax())
        assert line["prompt"] == tokenizer.decode(ids[:begin].tolist())
        assert line["answer"] == tokenizer.decode(ids[begin:].tolist())
        logits = teacher(input_ids=torch.tensor(ids[None].tolist())).logits[0, begin - 1 : -1, : tiny.VOCABULARY]
        logprobs = logits.log_softmax(1).gather(1, torch.tensor(ids[begin:, None].tolist()))
        assert line["teacher_logprob"] == pytest.approx(float(logprobs.mean()), rel=1e-5)
        assert line["num_tokens"] == len(ids) - begin
        assert (line["step"], line["writer"], line["student_logprob"]) == (0, "teacher", None)
        assert line["ended"] is (ids[-1] in ends)


def test_what_is_odd_about_the_answers_is_counted_and_told(inputs, tmp_path):
    job = generated(tmp_path / "g", inputs)
    lines = lines_of(job)
    num_cut = sum(not line["ended"] for line in lines)
    assert num_cut > 0
    length = sum(line["num_tokens"] for line in lines) / len(lines)
    assert job.notes["rows"][:2] == [
        f"9 answers written by the teacher, {length:.1f} tokens each on the mean",
        f"{num_cut} of them had not ended with 6 tokens (max_new_tokens): they are cut there",
    ]
    assert job.notes["rows"][-1].startswith("1 were not asked for: the data have no answer there")


def test_several_answers_to_a_prompt_are_so_many_rows(inputs, tmp_path):
    job = generated(tmp_path / "g", inputs, sampling=SAMPLING | {"num_answers": 3})
    train = tokens.load(job.out / "train.safetensors")
    assert len(train) == 3 * len(ROWS)
    assert [prompt_ids(train, row) for row in range(6)] == [prompt_ids(ROWS, row) for row in (0, 0, 0, 1, 1, 1)]
    assert len({tuple(train.row(row)[0].tolist()) for row in range(3)}) == 3
    first = tokens.load(generated(tmp_path / "one", inputs).out / "train.safetensors")
    assert train.row(3)[0].tolist() == first.row(1)[0].tolist()  # numbered, not drawn one after another


def test_only_prompts_that_a_training_reads_are_answered_and_as_they_would_be_among_all(inputs, tmp_path):
    use = Use(seed=1, batch_size=2, num_steps=2, drop_last=True)
    read = rows_read((use,), len(ROWS))
    job = generated(tmp_path / "g", inputs, reads=[use.model_dump()])
    train = tokens.load(job.out / "train.safetensors")
    every = tokens.load(generated(tmp_path / "all", inputs).out / "train.safetensors")
    assert len(read) == 4
    assert len(train) == len(ROWS)
    assert [int(row) for row in train.lengths.nonzero()[0]] == [row for row in read if row != 3]
    assert all(train.row(row)[0].tolist() == every.row(row)[0].tolist() for row in read if row != 3)


def test_rows_without_a_prompt_are_refused(inputs, tmp_path):
    tokens.save(tiny.random_rows([5, 6], [2, 0]), inputs["rows"] / "out/train.safetensors")
    with pytest.raises(StageError, match="row 1 has no prompt: all of it counts in the loss"):
        generated(tmp_path / "g", inputs)


def test_an_answer_that_cannot_fit_the_model_is_refused_before_any_is_written(inputs, tmp_path):
    with pytest.raises(StageError, match=r"a prompt of 9 tokens and an answer of 125 are more than the 128 positions"):
        generated(tmp_path / "g", inputs, sampling={"max_new_tokens": 125})


def test_asked_to_stop_it_saves_its_groups_and_goes_on_from_them(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(decode_loop, "most_together", lambda num_bytes: 2)
    whole = generated(tmp_path / "whole", inputs)
    with pytest.raises(Interrupted):
        generated(tmp_path / "g", inputs, is_stopping=lambda: True)
    written = []
    monkeypatch.setattr(decode_loop, "_group", _counting(decode_loop._group, written))
    again = generated(tmp_path / "g", inputs)
    assert len(written) == 7
    assert contents_of(again.out) == contents_of(whole.out)


def _counting(group, written):
    def count(asked, prompts):
        written.extend(prompts)
        return group(asked, prompts)

    return count


@pytest.mark.parametrize("num_kills", [8, pytest.param(1000, marks=pytest.mark.soak)])
def test_killed_inside_its_writes_it_goes_on_to_the_same_bytes(inputs, tmp_path, monkeypatch, num_kills):
    """Each time by a new attempt, which takes over what the last one has saved, as a worker does."""
    monkeypatch.setattr(decode_loop, "most_together", lambda num_bytes: 2)
    monkeypatch.setattr(teacher_answers, "CHECKPOINT_EVERY_S", 0.0)
    whole = generated(tmp_path / "whole", inputs)
    done = operations(lambda: generated(tmp_path / "noted", inputs))
    pairs = [(n, how) for how in ("before", "torn", "after") for n, one in enumerate(done) if one.name in KILLS[how]]
    for number, how in random.Random(20261130).sample(pairs, min(num_kills, len(pairs))):
        shutil.rmtree(tmp_path / "g", ignore_errors=True)
        killed(lambda: generated(tmp_path / "g", inputs), tmp_path, number, how)
        shutil.rmtree(tmp_path / "g/out", ignore_errors=True)
        again = generated(tmp_path / "g", inputs)
        assert contents_of(again.out) == contents_of(whole.out), (number, how)


def test_distilled_from_rows_of_the_teachers_a_student_reads_them_from_a_cache_as_it_reads_data(inputs, tmp_path):
    generated(tmp_path / "g", inputs)
    student = {"student": tmp_path / "student"}
    chosen = {**inputs, **student, "rows": tmp_path / "g"}
    lora = {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj"]}
    recipe = {"max_steps": 2, "batch_size": 4, "warmup_steps": 1, "lora": lora, "answers": "teacher"}
    recipe |= {"sampling": SAMPLING}
    job = tiny.job(tmp_path / "cache", KINDS["teacher_cache"].Settings(form="vector", dtype="float32"), **chosen)
    KINDS["teacher_cache"].run(job)
    settings = KINDS["distill"].Settings.model_validate({"recipe": recipe, "dtype": "float32", "seed": 0})
    (tmp_path / "cache/stage.json").write_text("{}")
    weights = []
    for name, more in (("beside", {}), ("cached", {"teacher_cache": tmp_path / "cache"})):
        job = tiny.job(tmp_path / name, settings, **chosen, **more)
        KINDS["distill"].run(job)
        weights.append(job)
    assert weights[1].notes["teacher"] == "its answers were read from cache"
    curves = [[json.loads(line)["kd_loss"] for line in job.metrics.path.read_text().splitlines()] for job in weights]
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
