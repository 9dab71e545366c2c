"""Files of training rows: read as they are meant, or refused with file, line, row and column; never guessed at."""

import gzip
import json
import random
import time
import tracemalloc

import datasets
import pytest
from support import tiny_models as tiny

from ablate.core.errors import StageError, StudyError
from ablate.data import rows
from ablate.data.prepare import prepare
from ablate.planning.row_notes import shapes_found
from ablate.study.cells import rows as table_rows
from ablate.study.data_settings import Data
from ablate.study.load import load
from ablate.study.row_files.files import num_rows_in
from ablate.study.row_files.glance import MOST_BYTES, glance

FINE = '{"instruction": "Sing.", "input": "", "output": "la"}\n'
ASK, REPLY = {"role": "user", "content": "Where is the boat?"}, {"role": "assistant", "content": "At the pier."}
CALL = {"type": "function", "function": {"name": "tide", "arguments": {"port": "Bodø"}}}


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*many):
    return "".join(f"{json.dumps(row)}\n" for row in many)


def chat(*turns, **columns):
    return json.dumps({"messages": list(turns)} | columns)


def seen(path, **settings):
    return glance(Data(source=str(path), **settings))


def turns_of(path, **settings):
    (row,) = rows.read(path, Data(source=str(path), format="chat", **settings))
    return row["messages"]


# mistakes

ROW = {"instruction": "Sing.", "output": "la"}
TEXT_MISTAKES = {
    "a broken line": ("songs.jsonl", FINE * 4 + '{"instruction": "Sing.", outp', "songs.jsonl:5:26: not JSON"),
    "a line that is cut off": ("songs.jsonl", FINE * 2 + '{"instruction": "Si', "may be cut off"),
    "a trailing comma": ("songs.json", json.dumps([ROW], indent=1)[:-2] + ",\n]", "songs.json:6:1: not JSON"),
    "a comma that lacks": ("songs.json", '[{"instruction": "a", "output": "b"}\n {}]', "songs.json:2:2: not JSON: ','"),
    "a broken mapping": ("songs.json", '{\n "rows": [\n  {"a": }]}', "songs.json:3:9: not JSON"),
    "a key twice": (
        "songs.jsonl",
        FINE + '{"output": "a", "instruction": "b", "output": "c"}',
        r"jsonl:2:1: .*'output'",
    ),
    "a number that is none": ("songs.jsonl", FINE + '{"instruction": "a", "output": -Infinity}', "2:1: -Infinity"),
    "a text as a row": ("songs.jsonl", FINE + '\n"la"\n', r"songs.jsonl:3: row 2 is no mapping .* text \('la'\)"),
    "a key that another row has": (
        "songs.jsonl",
        FINE * 6 + '{"instruction": "a", "ouput": "b"}',
        "7: row 7: .*'ouput'",
    ),
    "a number": ("songs.jsonl", FINE + '{"instruction": "a", "output": 1.5}', r"2: row 2, column 'output': .*\(1.5\)"),
    "a truth": ("songs.jsonl", FINE + '{"instruction": "a", "output": true}', "row 2, column 'output'.*quotes"),
    "a list": ("songs.json", json.dumps([ROW, ROW | {"output": ["a"]}]), "row 2, column 'output'.*got a list"),
    "a mapping": (
        "songs.json",
        json.dumps([ROW | {"instruction": {"a": 1}}]),
        "row 1, column 'instruction'.*a mapping",
    ),
    "a number as an input": ("songs.jsonl", lines(ROW | {"input": 0}), r"column 'input': text .*\(0\)"),
    "half a character": ("songs.jsonl", lines(ROW) + '{"instruction": "\\udc80", "output": "b"}', "row 2.*U[+]DC80"),
    "Latin-1": (
        "songs.jsonl",
        FINE.encode() + '{"instruction": "Bodø"}'.encode("latin-1"),
        "songs.jsonl:2:21: byte 0xf8",
    ),
    "Latin-1 in CSV": ("songs.csv", "instruction,output\nBodø,la\n".encode("latin-1"), "songs.csv:2:4: byte 0xf8"),
    "UTF-16": ("songs.csv", "instruction,output\na,b\n".encode("utf-16"), "songs.csv:1:1: .*UTF-16: save it as UTF-8"),
    "gzip without its name": ("songs.jsonl", gzip.compress(FINE.encode()), "its name should end with .gz"),
    "gzip by its name alone": ("songs.jsonl.gz", FINE, "cannot be read as .gz"),
    "half of a gzip": ("songs.jsonl.gz", gzip.compress(FINE.encode() * 99)[:-9], "ended before"),
    "git-lfs": ("songs.jsonl", "version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "git-lfs for parquet": ("songs.parquet", "version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "JSON in JSON lines": ("songs.jsonl", json.dumps([ROW]), "name should end with .json"),
    "JSON over many lines": ("songs.jsonl", json.dumps([ROW], indent=1), "name should end with .json"),
    "several lists": ("songs.json", json.dumps({"meta": [{"a": "b"}], "songs": [ROW]}), r"'meta' \(1\), 'songs' \(1\)"),
    "a list beside an empty one": (
        "songs.json",
        json.dumps({"train": [], "test": [ROW]}),
        r"'train' \(0\), 'test' \(1\)",
    ),
    "columns of values": ("songs.json", json.dumps({"instruction": ["a"], "output": ["b"]}), 'orient="records"'),
    "columns of numbered values": ("songs.json", json.dumps({"output": {"0": "b"}}), 'orient="records"'),
    "nothing": ("songs.jsonl", "", "no rows"),
    "nothing but blank lines": ("songs.jsonl", "\n \n", "no rows"),
    "nothing in JSON": ("songs.json", "", "songs.json:1:1: not JSON"),
    "a header alone": ("songs.tsv", "instruction\toutput\n", "no rows"),
    "too many cells": ("songs.csv", "instruction,output\na,b\n\na,b, c\n", "songs.csv:4: 3 cells, more than .* 2"),
    "too few cells": ("songs.tsv", "instruction\tinput\toutput\na\tb\n", "songs.tsv:2: 2 cells, fewer than .* 3"),
    "an open quote": ("songs.csv", 'instruction,output\na,b\na,"b\nc,d\n', "songs.csv:3:1: a quote is opened"),
    "text behind a quote": ("songs.csv", 'instruction,output\n"Say" hi,b\n', "songs.csv:2:1: a closing quote"),
    "a surplus cell below a nameless column": (
        "songs.csv",
        "instruction,output,,\na,b,,\na,hockey, skiing,\n",
        "songs.csv:3: ' skiing' is in a column without a name",
    ),
    "a column twice": ("songs.csv", "instruction,output,output\na,b,c\n", "songs.csv:1: .* 'output' twice"),
    "another delimiter": ("songs.csv", "instruction;output\na;b\n", "one cell: is it cut by ';'"),
    "a NUL byte": ("songs.csv", b"instruction,output\na\0,b\n", "songs.csv:2:2: a NUL byte"),
}


@pytest.mark.parametrize("case", TEXT_MISTAKES)
def test_a_mistake_in_a_file_is_told_with_its_place_before_anything_is_run(tmp_path, case):
    name, content, message = TEXT_MISTAKES[case]
    path = written(tmp_path, name, content)
    problem = seen(path).problem
    with pytest.raises(Exception, match=message) as caught:
        rows.read(path, Data(source=str(path)))
    assert problem is not None
    assert "no rows" in problem or problem == str(caught.value)


IMAGE = {"type": "image_url", "image_url": {"url": "boat.png"}}
TURN_MISTAKES = {
    "an image": ([ASK | {"content": [IMAGE]}, REPLY], r"row 1, column 'messages', turn 1.*part 1: .*'image_url'"),
    "a bare part": ([ASK | {"content": ["Where?"]}, REPLY], "turn 1.*part 1"),
    "a number": ([ASK, REPLY | {"content": 7}], r"turn 2, key 'content': text is expected, got a number \(7\)"),
    "a mapping": ([ASK, REPLY | {"content": {"text": "x"}}], "turn 2.*got a mapping"),
    "a text": (["Where?"], "turn 1: a turn is a mapping"),
    "no role": ([{"speaker": "user", "content": "a"}], "turn 1: .* there is no 'role'"),
    "no content": ([ASK, {"role": "assistant", "contents": "a"}], "no 'content'. Did you mean 'contents'"),
    "a misspelt role": ([ASK, REPLY | {"role": "assitant"}], "turn 2: role: 'assitant' is none; is 'assistant' meant"),
    "a role in capitals": ([ASK | {"role": "User"}, REPLY], "turn 1.*is 'user' meant"),
    "an assistant's role in short": ([ASK, REPLY | {"role": "asst"}], "is 'assistant' meant"),
    "another library's role": ([ASK, REPLY | {"role": "model"}], "is 'assistant' meant"),
    "half a weight": ([ASK, REPLY | {"weight": 0.5}], r"turn 2: weight: 0 .* got a number \(0.5\)"),
    "a true weight": ([ASK, REPLY | {"weight": True}], "turn 2: weight"),
    "a user's weight": ([ASK | {"weight": 1}, REPLY], "turn 1: weight: 1 is an assistant's turn's alone"),
    "another mask": ([ASK, REPLY | {"train": False}], "'train' is not read; write weight: 0"),
    "an old call": (
        [ASK, {"role": "assistant", "content": None, "function_call": {"name": "tide"}}],
        "write tool_calls",
    ),
    "a user's call": ([ASK | {"tool_calls": [CALL]}], "only an assistant calls tools"),
    "a call of nothing": ([ASK, REPLY | {"tool_calls": [{"type": "function"}]}], "a call is"),
    "two speakers": ([{"role": "user", "from": "human", "value": "a", "content": "b"}], "role and from"),
    "thoughts that are none": ([ASK, REPLY | {"reasoning_content": ["a"]}], "reasoning_content: text is expected"),
}


@pytest.mark.parametrize("case", TURN_MISTAKES)
def test_a_turn_that_is_not_plain_is_refused_with_row_column_and_turn(tmp_path, case):
    turns, message = TURN_MISTAKES[case]
    path = written(tmp_path, "talks.jsonl", lines({"messages": turns}))
    with pytest.raises(Exception, match=message) as caught:
        turns_of(path)
    assert seen(path, format="chat").problem == str(caught.value)


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        ({"messages": [ASK, REPLY]}, {}, "Say data.format: chat"),
        ({"conversations": [{"from": "human", "value": "a"}]}, {}, "Say data.format: chat"),
        ({"prompt": "a", "completion": "b"}, {}, "Say data.format: prompt_completion"),
        ({"prompt": "a", "completion": "b"}, {"format": "chat"}, "say data.format: prompt_completion"),
        ({"prompt": [ASK], "completion": [REPLY]}, {"format": "prompt_completion"}, "say data.format: chat"),
        (ROW, {"format": "chat"}, "Say data.format: alpaca"),
        ({"text": "a"}, {}, "Say data.format: text"),
        ({"chosen": [ASK, REPLY], "rejected": [ASK, REPLY]}, {"format": "chat"}, "columns: {messages: chosen}"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, {}, "{prompt: prompt, completion: chosen}"),
        ({"dialog": [ASK, REPLY]}, {"format": "chat"}, "data.columns: {messages: ...}"),
        ({"messages": "Where?"}, {"format": "chat"}, "column 'messages': a list of turns is expected, got text"),
        ({"messages": [ASK, REPLY], "tools": "search"}, {"format": "chat"}, "column 'tools': not JSON"),
        (
            {"messages": [{"role": "system", "content": "a"}], "system": "b"},
            {"format": "chat"},
            "a system turn of its own",
        ),
    ],
)
def test_rows_of_another_format_are_refused_with_what_to_say(tmp_path, row, settings, message):
    path = written(tmp_path, "talks.jsonl", lines(row))
    with pytest.raises(Exception, match=message):
        rows.read(path, Data(source=str(path), **settings))
    assert message.partition("{")[0] in (seen(path, **settings).problem or "")


# shapes


def test_parts_of_text_are_joined_and_weights_calls_and_thoughts_are_kept(tmp_path):
    parts = [{"type": "text", "text": "Where is "}, {"type": "text", "text": "the boat?"}]
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    thought = REPLY | {"reasoning_content": "Look.", "weight": 0}
    path = written(
        tmp_path, "talks.jsonl", chat(ASK | {"content": parts}, call, {"role": "tool", "content": "low"}, thought)
    )
    assert turns_of(path) == [ASK, call, {"role": "tool", "content": "low"}, thought]


def test_sharegpts_turns_are_found_without_a_word_of_the_study(tmp_path):
    told = [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "Where is the boat?"},
        {"from": "function_call", "value": json.dumps(CALL["function"])},
        {"from": "observation", "value": "low"},
        {"from": "gpt", "value": "At the pier."},
    ]
    path = written(tmp_path, "talks.jsonl", lines({"id": "7", "conversations": told}))
    assert turns_of(path) == [
        {"role": "system", "content": "Be brief."},
        ASK,
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "low"},
        REPLY,
    ]
    assert seen(path, format="chat").shape == "chat: turns of from and value in conversations; not read: id"
    named = written(tmp_path, "named.jsonl", lines({"dialog": told}))
    assert turns_of(named, columns={"messages": "dialog"}) == turns_of(path)


def test_of_prompt_and_completion_as_turns_the_completions_answers_alone_are_trained_on(tmp_path):
    path = written(tmp_path, "talks.jsonl", lines({"prompt": [ASK, REPLY, ASK], "completion": [REPLY]}))
    assert turns_of(path) == [ASK, REPLY | {"weight": 0}, ASK, REPLY]
    assert "only the completion's answers are trained on" in (seen(path, format="chat").shape or "")


def test_tools_and_a_system_prompt_beside_the_turns_belong_to_them(tmp_path):
    path = written(tmp_path, "talks.jsonl", chat(ASK, REPLY, system="Be brief.", tools=json.dumps([CALL])))
    (row,) = rows.read(path, Data(source=str(path), format="chat"))
    assert row == {"messages": [{"role": "system", "content": "Be brief."}, ASK, REPLY], "tools": [CALL]}


def test_the_only_list_of_mappings_in_a_json_file_is_taken_and_json_lines_too(tmp_path):
    nested = written(tmp_path, "nested.json", json.dumps({"version": 3, "tags": ["a"], "songs": [ROW]}))
    as_lines = written(tmp_path, "lines.json", lines(ROW, ROW))
    assert rows.read(nested, Data(source="n")) == [ROW | {"input": ""}]
    assert rows.read(as_lines, Data(source="n")) == [ROW | {"input": ""}] * 2


def test_what_looks_like_a_missing_value_in_csv_is_text(tmp_path):
    path = written(tmp_path, "songs.csv", "instruction,input,output\nnan,NA,007\n")
    assert rows.read(path, Data(source="s")) == [{"instruction": "nan", "input": "NA", "output": "007"}]


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n\n"])
def test_lines_end_as_they_like_and_a_byte_order_mark_is_none_of_the_text(tmp_path, end):
    path = written(tmp_path, "songs.jsonl", "\ufeff" + FINE.replace("\n", end) * 3)
    assert rows.read(path, Data(source="s")) == [json.loads(FINE)] * 3
    table = written(tmp_path, "songs.csv", f"\ufeffinstruction,output{end}Sing.,la{end}")
    assert rows.read(table, Data(source="s")) == [ROW | {"input": ""}]


def test_turns_have_a_weight_of_zero_beside_the_answers_too_as_some_sources_write_it(tmp_path):
    told = [
        {"from": "system", "value": "Be brief.", "weight": None},
        {"from": "human", "value": ASK["content"], "weight": 0.0},
        {"from": "gpt", "value": REPLY["content"], "weight": 1.0},
    ]
    path = written(tmp_path, "talks.jsonl", lines({"conversations": told}))
    assert turns_of(path) == [{"role": "system", "content": "Be brief."}, ASK | {"weight": 0}, REPLY | {"weight": 1}]


def test_tools_and_system_prompts_that_only_later_rows_have_are_not_left_out(tmp_path):
    row = {"messages": [ASK, REPLY]}
    path = written(tmp_path, "talks.jsonl", lines(row, row | {"tools": [CALL]}, row | {"system": "Be brief."}))
    assert rows.read(path, Data(source=str(path), format="chat")) == [
        row,
        row | {"tools": [CALL]},
        {"messages": [{"role": "system", "content": "Be brief."}, ASK, REPLY]},
    ]


@pytest.mark.parametrize("role", ["search", "moderator", "ipython", "environment"])
def test_a_role_that_only_a_template_knows_is_kept(tmp_path, role):
    path = written(tmp_path, "talks.jsonl", chat(ASK, {"role": role, "content": "low"}, REPLY))
    assert turns_of(path)[1] == {"role": role, "content": "low"}


def test_a_table_may_have_an_index_and_what_a_spreadsheet_leaves_around_it(tmp_path):
    path = written(tmp_path, "songs.csv", ",instruction,output,,\r\n0,Sing.,la,,\r\n   \r\n1,Sing.,la,,\r\n")
    assert rows.read(path, Data(source="s")) == [ROW | {"input": ""}] * 2
    assert seen(path).shape == "alpaca: instruction, output; not read: ''"


# no answers

EMPTY = REPLY | {"content": ""}
SILENT = {
    "alpaca": ([ROW | {"output": ""}, ROW | {"output": None}, ROW | {"output": " \n"}], {}, "column 'output'"),
    "another column": ([ROW | {"reply": ""}] * 2, {"columns": {"output": "reply"}}, "column 'reply' is empty"),
    "text": ([{"text": ""}], {"format": "text"}, "column 'text'"),
    "completions": ([{"prompt": "a", "completion": ""}], {"format": "prompt_completion"}, "column 'completion'"),
    "empty turns": ([{"messages": [ASK, EMPTY, ASK, EMPTY]}] * 2, {"format": "chat"}, "every turn of the assistant's"),
    "no turns": (
        [{"messages": [ASK]}] * 2,
        {"format": "chat", "train_on_prompt": False},
        r"\(2\): no turn is the assistant's",
    ),
    "the first rows": ([ROW | {"output": ""}, ROW], {"limit": 1}, "column 'output'"),
}


@pytest.mark.parametrize("case", SILENT)
def test_rows_none_of_which_has_an_answer_are_refused_before_anything_is_run(tmp_path, case):
    many, settings, message = SILENT[case]
    path = written(tmp_path, "silent.jsonl", lines(*many))
    with pytest.raises(StageError, match=f"no answer in its rows .*{message}") as caught:
        prepare(path, Data(source=str(path), **settings), tiny.tokenizer(), lambda done, total: None)
    assert seen(path, **settings).problem == str(caught.value)


@pytest.mark.parametrize(
    "last",
    [
        [ASK, EMPTY, ASK, REPLY],
        [ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}],
        [ASK, EMPTY | {"reasoning_content": "Look."}],
    ],
)
def test_one_row_with_an_answer_is_enough(tmp_path, last):
    path = written(tmp_path, "talks.jsonl", chat(ASK, EMPTY) + "\n" + chat(*last))
    assert len(rows.read(path, Data(source=str(path), format="chat"))) == 2
    assert seen(path, format="chat").problem is None


def test_questions_without_answers_may_be_trained_on_as_prompts(tmp_path):
    path = written(tmp_path, "talks.jsonl", chat(ASK))
    assert turns_of(path) == [ASK]
    assert seen(path, format="chat").problem is None


def test_of_a_folder_the_first_of_whose_files_has_no_answers_the_others_are_read(tmp_path):
    many = datasets.Dataset.from_list([ROW | {"output": ""}] * 2 + [ROW] * 2)
    many.save_to_disk(tmp_path / "songs", num_shards=2)
    assert seen(tmp_path / "songs").problem is None
    assert len(rows.read(tmp_path / "songs", Data(source="s"))) == 4


# before anything is run

STUDY = """
name: songs
data: {data}
pairs: {{p: {{teacher: {{model: org/big}}, student: {{model: org/small}}}}}}
evaluate: {{tasks: [hellaswag]}}
ablations: {{a: {{grid: {{distill.kd_ratio: [0.25, 0.5]}}}}}}
"""


def study_of(folder, data):
    return written(folder, "study.yaml", STUDY.format(data=data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{source: songs.jsonl, format: chat}", "study.yaml:3:16: data.source: .*Say data.format: alpaca"),
        ("{source: songs.jsonl, columns: {output: reply}}", "no column 'reply' for format alpaca"),
        ("{source: songs.jsonl, holdout: 3}", "study.yaml:3:38: data.holdout: 3 of 3 rows are held out"),
        ("{source: songs.jsonl, config: main}", "one file has no configurations"),
    ],
)
def test_a_study_whose_rows_do_not_fit_it_is_refused_at_once(tmp_path, data, message):
    written(tmp_path, "songs.jsonl", FINE * 3)
    with pytest.raises(StudyError, match=message):
        load(study_of(tmp_path, data))


def test_validate_says_which_shape_it_found_and_of_how_many_rows(tmp_path):
    turns = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Here."}]
    datasets.Dataset.from_list([{"id": 1, "conversations": turns}] * 4).save_to_disk(tmp_path / "talks")
    study = load(study_of(tmp_path, "{source: ./talks, format: chat}"))
    shape = "4 rows, chat: turns of from and value in conversations; not read: id"
    assert shapes_found(table_rows(study)) == [f"{tmp_path / 'talks'}: {shape}"]


def test_rows_that_only_an_ablation_reads_are_looked_at_too(tmp_path):
    written(tmp_path, "songs.jsonl", FINE * 3)
    written(tmp_path, "more.csv", "instruction,output\na,b,c\n")
    path = study_of(tmp_path, "{source: songs.jsonl}")
    path.write_text(path.read_text().replace("distill.kd_ratio: [0.25, 0.5]", "data.source: [songs.jsonl, more.csv]"))
    with pytest.raises(StudyError, match=r"more\.csv:2: 3 cells"):
        load(path)


@pytest.mark.parametrize(
    "name", ["long.json", "long.jsonl", "long.csv", "long.jsonl.gz", "one_line.json", "text.jsonl"]
)
def test_a_look_at_a_huge_file_is_short_and_small(tmp_path, name):
    most = 5 * MOST_BYTES
    num = most // len(FINE)
    content = {
        "long.json": "[" + ",\n".join([FINE.strip()] * num) + "]",
        "long.jsonl": FINE * num,
        "long.csv": "instruction,input,output\n" + "Sing.,,la\n" * (most // 10),
        "long.jsonl.gz": gzip.compress(b" " * most * 4),
        "one_line.json": "[" + ",".join([FINE.strip()] * num) + "]",
        "text.jsonl": json.dumps(ROW | {"output": "a" * most}),
    }[name]
    path = written(tmp_path, name, content)
    del content
    begin = time.process_time()
    look = seen(path)
    assert (look.problem, look.num_rows) == (None, None)
    assert time.process_time() - begin < 3


def test_a_look_at_a_line_that_never_ends_takes_little_memory(tmp_path):
    path = written(tmp_path, "long.json.gz", gzip.compress(b'[{"instruction": "' + b"a" * 20 * MOST_BYTES))
    tracemalloc.start()
    assert seen(path).problem is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * MOST_BYTES


def test_a_file_that_is_cut_where_the_look_ends_is_no_mistake(tmp_path):
    row = lines(ROW | {"output": 'a, "b"\n' * 900})
    for name, text in (("a.jsonl", row * 2000), ("a.json", f"[{','.join([row.strip()] * 2000)}]")):
        assert seen(written(tmp_path, name, text)).problem is None
    cell = '"' + 'a, ""b""\n' * 900 + '"'
    assert seen(written(tmp_path, "a.csv", "instruction,output\n" + f"x,{cell}\n" * 2000)).problem is None


FORMS = {
    "a.jsonl": (FINE * 5, "alpaca"),
    "a.json": (json.dumps({"version": 1, "songs": [ROW] * 5}, indent=1), "alpaca"),
    "a.csv": ("instruction,input,output\n" + 'Sing.,"a ""b""","la\nla"\n' * 5, "alpaca"),
    "a.jsonl.gz": (gzip.compress(FINE.encode() * 5), "alpaca"),
    "b.json": (f"[{chat(ASK, REPLY, tools=[CALL])}]", "chat"),
}
PIECES = [b'"', b",", b"{", b"}", b"[", b"]", b"\n", b"null", b"NaN", b"\0", b"\xff", b"1e999", b":", b"\\ud800"]


@pytest.mark.parametrize("name", FORMS)
def test_a_file_that_was_damaged_anyhow_is_read_or_refused_and_validate_knows_which(tmp_path, name):
    content, form = FORMS[name]
    fine = content if isinstance(content, bytes) else content.encode()
    draw = random.Random(name)
    for _ in range(150):
        place, end = sorted(draw.randrange(len(fine)) for _ in range(2))
        raw = fine[:place] + draw.choice([draw.choice(PIECES), draw.randbytes(2), fine[place:end]])
        path = written(tmp_path, name, raw + fine[draw.choice([place, place + 1, end]) :])
        data = Data(source=str(path), format=form)
        assert _place(glance(data).problem) == _place(_refusal(path, data))


def _refusal(path, data):
    try:
        rows.read(path, data)
    except StageError as error:
        return str(error)
    return None


def _place(message):
    return message and message.partition(": ")[0]


def test_rows_are_counted_in_files_of_every_form(tmp_path):
    many = FINE * 40 + "\n" + FINE.strip()
    files = [
        written(tmp_path, "a.jsonl", many),
        written(tmp_path, "a.jsonl.gz", gzip.compress(many.encode())),
        written(tmp_path, "a.json", json.dumps({"songs": [ROW] * 41})),
        written(tmp_path, "a.tsv", "instruction\toutput\n" + 'a\t"b\nc"\n' * 41),
    ]
    assert [num_rows_in(path, "train") for path in files] == [41] * 4
    assert num_rows_in(written(tmp_path, "b.csv", "a,b\nc\n"), "train") is None
