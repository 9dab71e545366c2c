"""From rows to tokens and their loss mask."""

import csv
import datetime
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_models as tiny

from ablate.core.errors import StageError
from ablate.data import masks, plain_text, render, rows, tokens
from ablate.data.masks import TokenRow
from ablate.data.prepare import prepare
from ablate.store.kind import KINDS
from ablate.study.chat_templates import TODAY
from ablate.study.data_settings import Data

ROWS = [
    {"instruction": "Add.", "input": "1 2", "output": "3"},
    {"instruction": "Say hi.", "input": "", "output": "hi"},
    {"instruction": "Be still.", "input": "", "output": ""},
    {"instruction": "Count.", "input": "", "output": "1 2 3 4"},
]
CHAT = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "bc"},
    {"role": "user", "content": "d"},
    {"role": "assistant", "content": "ef"},
]


def data(**settings):
    return Data(**{"source": "rows.json"} | settings)


def text_of(tokenizer, row: TokenRow, *, counts=True) -> str:
    return tokenizer.decode([i for i, m in zip(row.ids, row.loss_mask, strict=True) if m == counts])


def rendered(row, tokenizer=None, **settings):
    tokenizer = tokenizer or tiny.tokenizer()
    (token_row,) = render.template(tokenizer, data(**settings)).render(row)
    return tokenizer, token_row


def prepared(tmp_path, rows, tokenizer=None, **settings):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    return prepare(path, data(**settings), tokenizer or tiny.tokenizer(), lambda done, total: None)


# templates


def test_alpacas_text_is_the_user_turn_and_the_output_the_assistants():
    tokenizer, row = rendered(ROWS[0])
    prompt = plain_text.alpaca_prompt(ROWS[0])
    assert prompt.endswith("### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n")
    assert tokenizer.decode(row.ids) == f"<user>{prompt}<eos><assistant>3<eos>"
    assert all(row.loss_mask)


def test_alpacas_text_without_an_input_does_not_speak_of_one():
    prompt = plain_text.alpaca_prompt(ROWS[1])
    assert prompt == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nSay hi.\n\n### Response:\n"
    )


def test_the_prompt_is_left_out_of_the_loss_where_the_study_says_so():
    tokenizer, row = rendered(ROWS[0], train_on_prompt=False)
    assert text_of(tokenizer, row) == "3<eos>"


def test_every_assistant_turn_of_a_chat_counts():
    tokenizer, row = rendered({"messages": CHAT}, format="chat", train_on_prompt=False)
    assert tokenizer.decode(row.ids) == "<user>a<eos><assistant>bc<eos><user>d<eos><assistant>ef<eos>"
    assert text_of(tokenizer, row) == "bc<eos>ef<eos>"


def test_a_date_in_a_chat_template_is_the_same_on_every_day():
    template = "{{ strftime_now('%d %b %Y') }}|{{ date_string }}|{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer, row = rendered({"messages": CHAT}, tiny.tokenizer(template), format="chat")
    assert tokenizer.decode(row.ids).startswith("26 Jul 2024|26 Jul 2024|abc")
    assert datetime.date(2024, 7, 26) == TODAY


def test_a_template_with_the_begin_of_sequence_in_it_gives_one_only():
    tokenizer, row = rendered(ROWS[0], tiny.tokenizer("{{ bos_token }}" + tiny.CHAT))
    assert row.ids.count(tokenizer.bos_token_id) == 1


def test_without_a_chat_template_rows_are_plain_text_and_an_end_of_sequence():
    tokenizer, row = rendered(ROWS[0], tiny.tokenizer(None), train_on_prompt=False)
    assert tokenizer.decode(row.ids) == plain_text.alpaca_prompt(ROWS[0]) + "3<eos>"
    assert text_of(tokenizer, row) == "3<eos>"
    assert render.template(tokenizer, data()).name == "plain"


def test_the_end_of_sequence_counts_even_where_it_is_the_pad_token():
    tokenizer, row = rendered(ROWS[1], tiny.tokenizer(pad="<eos>"))
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == row.ids[-1]
    assert row.loss_mask[-1]


def test_a_jinja_text_renders_everything_itself():
    template = "Q: {{ instruction }}\nA: {{ output }}{{ eos_token }}"
    tokenizer, row = rendered(ROWS[0], template=template, train_on_prompt=False)
    assert tokenizer.decode(row.ids) == "Q: Add.\nA: 3<eos>"
    assert text_of(tokenizer, row) == "3<eos>"


def test_a_jinja_text_runs_no_code():
    with pytest.raises(StageError, match=r"data\.template"):
        rendered(ROWS[0], template="{{ instruction.__class__.__mro__ }}")


def test_a_mistake_in_a_jinja_text_is_told():
    with pytest.raises(StageError, match=r"data\.template: .*unexpected"):
        rendered(ROWS[0], template="{{ instruction")


def test_text_rows_count_whole():
    tokenizer, row = rendered({"text": "abc"}, format="text", train_on_prompt=False)
    assert text_of(tokenizer, row) == "abc<eos>"


def test_chat_rows_without_any_template_are_refused():
    with pytest.raises(StageError, match="need a chat template"):
        rendered({"messages": CHAT}, tiny.tokenizer(None), format="chat")


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_the_common_beginning_is_common_and_the_longest(a, b):
    n = masks.num_common(a, b)
    assert a[:n] == b[:n]
    assert a[: n + 1] != b[: n + 1] or n == min(len(a), len(b))


# reading


def write(path, many):
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, many)))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, many[0])
            writer.writeheader()
            writer.writerows(many)
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(many), path)
    else:
        path.write_text(json.dumps(many))
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_rows_are_the_same_from_every_sort_of_file(tmp_path, suffix):
    assert rows.read(write(tmp_path / f"rows{suffix}", ROWS), data()) == ROWS


def test_columns_with_other_names_are_read_by_what_the_study_says(tmp_path):
    path = write(tmp_path / "rows.json", [{"q": "Add.", "a": "3"}])
    assert rows.read(path, data(columns={"instruction": "q", "output": "a"})) == [
        {"instruction": "Add.", "input": "", "output": "3"}
    ]


def test_a_column_that_lacks_is_told_with_those_there_are(tmp_path):
    path = write(tmp_path / "rows.json", [{"instruction": "a", "response": "b"}])
    with pytest.raises(StageError) as caught:
        rows.read(path, data())
    assert "no column 'output'" in str(caught.value)
    assert "Possible: instruction, response" in str(caught.value)
    assert "data.columns: {output: ...}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.json", "{", "json:1:2: not JSON"),
        ("rows.json", "[1, 2]", "row 1 is no mapping"),
        ("rows.json", "[]", "no rows"),
        ("rows.json", '{"a": 1}', "a list of rows is expected"),
        ("rows.txt", "hello", "rows are read from .json, .jsonl, .csv, .tsv, .parquet"),
        ("rows.parquet", "hello", "cannot be read as .parquet"),
    ],
)
def test_a_broken_file_is_told(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(StageError, match=message):
        rows.read(tmp_path / name, data())


def test_a_file_has_no_other_split_than_train(tmp_path):
    with pytest.raises(StageError, match="only the split train, got 'test'"):
        rows.read(write(tmp_path / "rows.json", ROWS), data(split="test"))


FETCH = """
from huggingface_hub import snapshot_download
for name in ("yahma/alpaca-cleaned", "truthfulqa/truthful_qa"):
    print(snapshot_download(name, repo_type="dataset"))
"""
READ = """
import sys
from pathlib import Path
from ablate.data import rows
from ablate.study.schema import Data
alpaca, truthful = map(Path, sys.argv[1:])
print(len(rows.read(alpaca, Data(source="a", limit=7))))
text = {"source": "t", "split": "validation", "format": "text", "columns": {"text": "question"}}
print(len(rows.read(truthful, Data(**text, config="multiple_choice"))))
try:
    rows.read(truthful, Data(**text, config="generation"))
except Exception as error:
    print(type(error).__name__, error)
"""


def printed(code, env, *arguments):
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.splitlines()


@pytest.mark.hub
def test_a_hub_snapshot_is_read_offline_configurations_and_splits_too(plain_hub):
    folders = printed(FETCH, plain_hub.env())
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    first, second, third = printed(READ, plain_hub.env(**offline), *folders)
    assert (first, second) == ("7", "817")
    assert third.startswith("StageError")
    assert "multiple_choice" in third


# prepared


def test_limit_takes_the_first_rows_and_holdout_the_last_of_them(tmp_path):
    whole = prepared(tmp_path, ROWS)
    part = prepared(tmp_path, ROWS, limit=3, holdout=1)
    assert (len(part.train), len(part.holdout)) == (2, 1)
    assert part.train.row(1)[0].tolist() == whole.train.row(1)[0].tolist()
    assert part.holdout.row(0)[0].tolist() == whole.train.row(2)[0].tolist()


def test_longer_rows_are_cut_counted_and_told(tmp_path):
    part = prepared(tmp_path, ROWS, max_length=150)
    assert part.train.lengths.max() == 150
    assert part.summary["cut"] == 4
    assert part.notes[1:] == [
        "4 rows were cut to data.max_length",
        "1 row has an empty answer",
    ]


def test_missing_values_and_empty_answers_are_counted_and_told(tmp_path):
    odd = [*ROWS, {"instruction": "x", "input": None, "output": None}, {"instruction": "x", "output": float("nan")}]
    part = prepared(tmp_path, odd)
    assert len(part.train) == 6
    assert (part.summary["empty"], part.summary["missing"]) == (3, 2)
    assert "2 rows have a missing value (null, NaN), read as empty" in part.notes


def test_rows_without_a_loss_bearing_token_are_kept_counted_and_told(tmp_path):
    part = prepared(
        tmp_path,
        [*ROWS, {"instruction": "long" * 60, "input": "", "output": "x"}],
        train_on_prompt=False,
        max_length=250,
    )
    assert part.summary["train"]["without_loss"] == 1
    assert "1 training row has no token that counts in the loss" in part.notes


def test_rows_none_of_which_counts_are_refused(tmp_path):
    with pytest.raises(StageError, match="cuts every answer off"):
        prepared(tmp_path, ROWS, train_on_prompt=False, max_length=20)


def test_a_holdout_of_everything_is_refused(tmp_path):
    with pytest.raises(StageError, match="would leave none to train on"):
        prepared(tmp_path, ROWS, holdout=4)


def test_content_names_tokens_mask_and_vocabulary(tmp_path):
    content = prepared(tmp_path, ROWS).summary["content"]
    assert prepared(tmp_path, ROWS, tiny.tokenizer()).summary["content"] == content
    bigger = tiny.tokenizer()
    bigger.add_tokens(["new"])
    others = [
        prepared(tmp_path, ROWS, train_on_prompt=False),
        prepared(tmp_path, ROWS[:3]),
        prepared(tmp_path, ROWS, holdout=1),
        prepared(tmp_path, ROWS, bigger),
    ]
    assert len({content, *(other.summary["content"] for other in others)}) == 5


@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.integers(0, 99))
def test_token_rows_come_back_from_their_file(tmp_path_factory, lengths, seed):
    path = tmp_path_factory.mktemp("rows") / "train.safetensors"
    before = tiny.random_rows(lengths, [seed % (n + 1) for n in lengths], seed)
    tokens.save(before, path)
    after = tokens.load(path)
    assert after.digest() == before.digest()
    assert after.counts == before.counts
    assert after.counts.loss_tokens == sum(int(after.row(i)[1][1:].sum()) for i in range(len(lengths)))


def test_a_torn_file_of_token_rows_is_told(tmp_path):
    path = tmp_path / "train.safetensors"
    tokens.save(tiny.random_rows([5, 6]), path)
    whole = path.read_bytes()
    for size in (0, 4, 50, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(StageError, match="no readable token rows"):
            tokens.load(path)


# the stage


def test_the_rows_stage_makes_what_its_check_accepts(tmp_path):
    student, source = tmp_path / "student", tmp_path / "data"
    tiny.save(tmp_path / "model")
    write(tmp_path / "rows.json", ROWS)
    for folder, path in ((student, tmp_path / "model"), (source, tmp_path / "rows.json")):
        (folder / "out").mkdir(parents=True)
        (folder / "out/manifest.json").write_text(json.dumps({"path": str(path)}))
    kind = KINDS["rows"]
    job = tiny.job(tmp_path / "rows", kind.Settings(data=data(holdout=1)), student=student, data=source)
    kind.run(job)
    kind.check(tmp_path / "rows")
    assert job.content == json.loads((job.out / "summary.json").read_text())["content"]
    assert job.notes["rows"] == ["4 rows read as alpaca: instruction, input, output", "1 row has an empty answer"]
    tokens.save(tiny.random_rows([5]), job.out / "train.safetensors")
    with pytest.raises(StageError, match=r"summary\.json says"):
        kind.check(tmp_path / "rows")


def test_rows_of_a_model_that_is_gone_are_a_missing_input(tmp_path):
    (tmp_path / "student/out").mkdir(parents=True)
    (tmp_path / "student/out/manifest.json").write_text(json.dumps({"path": str(tmp_path / "gone")}))
    job = tiny.job(tmp_path / "rows", KINDS["rows"].Settings(data=data()), student=tmp_path / "student")
    with pytest.raises(StageError, match="is gone"):
        KINDS["rows"].run(job)
