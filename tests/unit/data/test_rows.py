"""Rows from every sort of file and folder, in every shape: equal, or refused, never changed."""

import bz2
import csv
import gzip
import json
import lzma
import math

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import tiny_models as tiny

from ablate.core.errors import StageError
from ablate.data import rows
from ablate.data.prepare import prepare
from ablate.study.data_settings import Data
from ablate.study.row_files.glance import glance

datasets.disable_progress_bars()

SONGS = [{"instruction": f"Sing {number}.", "input": "", "output": "la" * number} for number in range(1, 6)]
ASK, REPLY = {"role": "user", "content": "Where is the boat?"}, {"role": "assistant", "content": "At the pier."}


def written(path, many):
    """The rows in a file of the form that its name says."""
    opened = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(path.suffix, open)
    if path.suffix == ".zst":
        with pyarrow.output_stream(str(path), compression="zstd") as file:
            file.write("".join(f"{json.dumps(row)}\n" for row in many).encode())
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(many), path)
    elif path.suffix == "":
        datasets.Dataset.from_list(many).save_to_disk(path)
    else:
        with opened(path, "wt", newline="", encoding="utf-8") as file:
            _write_text(file, path.name.split(".")[1], many)
    return path


def _write_text(file, form, many):
    if form in ("csv", "tsv"):
        writer = csv.DictWriter(file, list(many[0]), delimiter="," if form == "csv" else "\t")
        writer.writeheader()
        writer.writerows(many)
    elif form == "json":
        json.dump(many, file, ensure_ascii=False)
    else:
        file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in many)


TABLES = ["csv", "tsv", "csv.gz", "tsv.xz"]
TREES = ["jsonl", "json", "parquet", "jsonl.gz", "jsonl.bz2", "json.xz", "jsonl.zst", "saved"]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
ROW = st.fixed_dictionaries({"instruction": TEXT, "input": TEXT, "output": TEXT})
EACH = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def from_file(folder, form, many, **of_data):
    path = folder / ("saved" if form == "saved" else f"rows.{form}")
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
    written(path, many)
    return rows.read(path, Data(source=str(path), **of_data))


@pytest.mark.parametrize("form", [*TABLES, *TREES])
@EACH
@given(many=st.lists(ROW, min_size=1, max_size=4))
def test_any_text_comes_back_as_it_was_from_every_sort_of_file(tmp_path, form, many):
    assert from_file(tmp_path, form, many) == many


TURNS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"role": st.sampled_from(["system", "user"]), "content": TEXT}),
        st.fixed_dictionaries({"role": st.just("assistant"), "content": TEXT}, optional={"weight": st.integers(0, 1)}),
    ),
    min_size=1,
    max_size=4,
)


def _as_parts(turn):
    half = len(turn["content"]) // 2
    texts = [turn["content"][:half], turn["content"][half:]]
    return turn | {"content": [{"type": "text", "text": text} for text in texts]}


def _as_sharegpt(turn):
    names = {"user": "human", "assistant": "gpt"}
    rest = {name: value for name, value in turn.items() if name == "weight"}
    return {"from": names.get(turn["role"], turn["role"]), "value": turn["content"]} | rest


SHAPES = {
    "turns": lambda turns: {"messages": turns},
    "parts": lambda turns: {"messages": [_as_parts(turn) for turn in turns]},
    "sharegpt": lambda turns: {"conversations": [_as_sharegpt(turn) for turn in turns]},
    "completion": lambda turns: {"prompt": [], "completion": turns},
}


@pytest.mark.parametrize("form", ["jsonl", "json.xz", "parquet", "saved"])
@pytest.mark.parametrize("shape", SHAPES)
@EACH
@given(many=st.lists(TURNS, min_size=1, max_size=3))
def test_any_conversation_comes_back_as_it_was_from_every_shape(tmp_path, shape, form, many):
    back = from_file(tmp_path, form, [SHAPES[shape](turns) for turns in many], format="chat")
    assert [row["messages"] for row in back] == many


CELL = st.one_of(TEXT, st.none(), st.booleans(), st.integers(-9, 9), st.floats(), st.lists(TEXT), st.just({"a": "b"}))


@EACH
@given(many=st.lists(st.fixed_dictionaries({"instruction": TEXT, "output": CELL}), min_size=1, max_size=3))
def test_a_cell_that_is_no_text_is_refused_or_missing_and_never_written_out(tmp_path, many):
    cells = [row["output"] for row in many]
    is_read = [isinstance(cell, str | None) or (isinstance(cell, float) and math.isnan(cell)) for cell in cells]
    if all(is_read):
        back = from_file(tmp_path, "jsonl", many)
        assert [row["output"] for row in back] == [cell if isinstance(cell, str) else "" for cell in cells]
        return
    with pytest.raises(StageError) as caught:
        from_file(tmp_path, "jsonl", many)
    bad = is_read.index(False) + 1
    assert f":{bad}: row {bad}, column 'output'" in str(caught.value) or "no number that JSON has" in str(caught.value)


def test_columns_that_arrow_adds_to_calls_and_tools_are_not_handed_on(tmp_path):
    calls = [{"function": {"name": name, "arguments": {key: "x"}}} for name, key in (("tide", "port"), ("wind", "at"))]
    turns = [ASK, *({"role": "assistant", "content": None, "tool_calls": [call]} for call in calls)]
    row = {"messages": turns, "tools": calls}
    assert from_file(tmp_path, "parquet", [row], format="chat") == [row]
    assert from_file(tmp_path, "saved", [row], format="chat") == [row]


def test_a_date_in_a_parquet_file_is_no_text(tmp_path):
    table = pyarrow.table({"instruction": ["a"], "output": pyarrow.array([0], pyarrow.timestamp("s"))})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(StageError, match="row 1, column 'output': text is expected, got a datetime"):
        rows.read(tmp_path / "rows.parquet", Data(source="r"))


# folders


@pytest.fixture
def saved(tmp_path):
    splits = {"train": datasets.Dataset.from_list(SONGS[:3]), "test": datasets.Dataset.from_list(SONGS[3:])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize(
    ("split", "many"),
    [("train", SONGS[:3]), ("test", SONGS[3:]), ("train+test", SONGS), ("train[1:]+test[:50%]", SONGS[1:4])],
)
def test_a_folder_of_saved_splits_has_them_and_their_slices(saved, split, many):
    data = Data(source=str(saved), split=split)
    assert rows.read(saved, data) == many
    assert glance(data).problem is None


def test_a_split_that_a_saved_folder_lacks_is_told_before_anything_is_run(saved):
    data = Data(source=str(saved), split="tset")
    with pytest.raises(StageError, match=r"no split 'tset'\. Did you mean 'test'\? Possible: test, train"):
        rows.read(saved, data)
    assert "no split 'tset'" in (glance(data).problem or "")


def test_a_data_set_that_was_saved_alone_keeps_its_split(tmp_path):
    path = tmp_path / "alone"
    datasets.Dataset.from_list(SONGS, split="validation").save_to_disk(path, num_shards=2)
    assert rows.read(path, Data(source=str(path), split="validation")) == SONGS
    assert "no split 'train'. Possible: validation." in (glance(Data(source=str(path))).problem or "")
    (path / "data-00001-of-00002.arrow").unlink()
    assert "is not there, and state.json" in (glance(Data(source=str(path), split="validation")).problem or "")


def test_a_folder_of_files_is_read_as_datasets_sorts_it_and_as_strictly_as_one_file(tmp_path):
    written(tmp_path / "train.csv", [{"instruction": "007", "output": "NA"}])
    written(tmp_path / "test.csv", [{"instruction": "1.50", "output": "nan"}])
    assert rows.read(tmp_path, Data(source="f")) == [{"instruction": "007", "input": "", "output": "NA"}]
    assert rows.read(tmp_path, Data(source="f", split="test"))[0]["instruction"] == "1.50"
    with pytest.raises(StageError, match="has no split 'dev'"):
        rows.read(tmp_path, Data(source="f", split="dev"))
    (tmp_path / "train.csv").write_text("instruction,output\na,b,c\n")
    with pytest.raises(StageError, match=r"train\.csv:2: 3 cells"):
        rows.read(tmp_path, Data(source="f"))


def test_what_the_readme_of_a_folder_says_of_its_files_is_heeded(tmp_path):
    (tmp_path / "songs.csv").write_text("instruction|output\na,b|c\n")
    (tmp_path / "README.md").write_text(
        '---\nconfigs:\n- config_name: default\n  data_files: songs.csv\n  sep: "|"\n---\n'
    )
    assert rows.read(tmp_path, Data(source="f")) == [{"instruction": "a,b", "input": "", "output": "c"}]


def test_limit_takes_the_first_rows_and_looks_no_further(tmp_path):
    path = written(tmp_path / "rows.jsonl", SONGS)
    path.write_text(path.read_text() + "{")
    assert rows.read(path, Data(source="r", limit=5)) == SONGS
    assert glance(Data(source=str(path), limit=5)).problem is None


# counts


def prepared(path, many, **of_data):
    return prepare(written(path, many), Data(source=path.name, **of_data), tiny.tokenizer(), lambda done, total: None)


def test_everything_odd_about_rows_is_counted_and_told_in_plain_words(tmp_path):
    narrator = {"role": "narrator", "content": "Dusk.", "mood": "calm"}
    talks = [
        [ASK, REPLY],
        [ASK, REPLY],
        [ASK, narrator],
        [ASK, {"role": "assistant", "content": None}],
        [{"role": "user", "content": "long " * 30}, REPLY],
        [ASK, REPLY],
    ]
    path = written(tmp_path / "talks.jsonl", [{"messages": talk} for talk in talks])
    path.write_text(path.read_text() + "\n\n")
    data = Data(source="talks.jsonl", format="chat", max_length=60, holdout=1)
    made = prepare(path, data, tiny.tokenizer(), lambda done, total: None)
    counts = {name: made.summary[name] for name in ("read", "cut", "missing", "empty", "without_answer", "blank_lines")}
    assert counts == {"read": 6, "cut": 1, "missing": 1, "empty": 1, "without_answer": 1, "blank_lines": 2}
    assert (made.summary["unknown_roles"], made.summary["further_keys"]) == ({"narrator": 1}, {"mood": 1})
    assert made.summary["notes"] == made.notes
    for note in (
        "6 rows read as chat: turns of role and content in messages",
        "1 row was cut to data.max_length",
        "1 row has an empty answer",
        "1 row has a missing value (null, NaN), read as empty",
        "1 row has no turn of the assistant's",
        "2 blank lines were skipped",
        "1 training row is the same as an earlier one, and was kept",
        "1 held-out row is also trained on: the held-out loss is of what was learnt by heart",
        "1 turn is of a role that is never trained on: narrator (1)",
        "turns have keys that only a chat template may read: mood (1)",
    ):
        assert note in made.notes


def test_rows_whose_whole_answer_was_cut_off_are_counted(tmp_path):
    many = [*SONGS, {"instruction": "long " * 60, "input": "", "output": "la"}]
    made = prepared(tmp_path / "songs.jsonl", many, train_on_prompt=False, max_length=250)
    assert made.summary["answers_cut_off"] == made.summary["without_loss"] == 1
    assert "1 row lost to data.max_length all that it should teach" in made.notes


def test_an_open_quote_that_swallowed_rows_is_told(tmp_path):
    path = tmp_path / "songs.csv"
    path.write_text('instruction,output\nSing.,"la\nHum.,mm\nCall.,oh"\nShout.,ho\n')
    made = prepare(path, Data(source="songs.csv"), tiny.tokenizer(), lambda done, total: None)
    assert made.notes[1:] == ["1 row has a cell that looks like rows: is a quote not closed?"]


def test_a_text_and_what_completes_it_are_one_text_of_which_the_rest_alone_is_trained_on(tmp_path):
    many = [{"prompt": "Once upon ", "completion": "a time"}]
    tokenizer = tiny.tokenizer()
    made = prepared(tmp_path / "tales.json", many, format="prompt_completion", train_on_prompt=False)
    ids, mask = (part.tolist() for part in made.train.row(0))
    assert tokenizer.decode(ids) == "Once upon a time<eos>"
    assert tokenizer.decode([token for token, counts in zip(ids, mask, strict=True) if counts]) == "a time<eos>"
    jinja = "{{ prompt }}|{{ completion }}{{ eos_token }}"
    own = prepared(tmp_path / "own.json", many, format="prompt_completion", train_on_prompt=False, template=jinja)
    ids, mask = (part.tolist() for part in own.train.row(0))
    assert tokenizer.decode([token for token, counts in zip(ids, mask, strict=True) if counts]) == "a time<eos>"


def test_equal_tokens_have_equal_names_whatever_they_were_read_from(tmp_path):
    plain = prepared(tmp_path / "songs.jsonl", SONGS).summary["content"]
    others = [prepared(tmp_path / f"songs.{form}", SONGS).summary["content"] for form in ("csv.gz", "parquet", "json")]
    assert {plain, *others} == {plain}
    turns = [{"messages": [ASK, REPLY]}]
    told = [{"conversations": [_as_sharegpt(ASK), _as_sharegpt(REPLY)]}]
    chat = [
        prepared(tmp_path / f"{len(many[0])}{i}.jsonl", many, format="chat") for i, many in enumerate((turns, told))
    ]
    assert chat[0].summary["content"] == chat[1].summary["content"]


@pytest.mark.parametrize(
    "path", ["../secret.jsonl", "ABOVE/secret.jsonl", "file://ABOVE/secret.jsonl", "linked/*.jsonl"]
)
def test_the_card_of_a_folder_of_rows_leads_to_nothing_that_is_in_no_key(tmp_path, path):
    folder, row = tmp_path / "rows", '{"instruction": "a", "input": "", "output": "b"}\n'
    (folder / "inside").mkdir(parents=True)
    for name in ("secret.jsonl", "rows/inside/train.jsonl"):
        (tmp_path / name).write_text(row)
    (folder / "linked").symlink_to(tmp_path)
    (folder / "a link.jsonl").symlink_to("../secret.jsonl")  # its content is in the folder's digest
    card = "---\nconfigs: [{config_name: default, data_files: [{split: train, path: 'PATH'}]}]\n---\n"
    (folder / "README.md").write_text(card.replace("PATH", path.replace("ABOVE", str(tmp_path))))
    with pytest.raises(StageError, match=r"secret\.jsonl, which is none of its files"):
        rows.read(folder, Data(source="rows"))
    for inside in ("inside/*.jsonl", "a link.jsonl"):
        (folder / "README.md").write_text(card.replace("PATH", inside))
        assert len(rows.read(folder, Data(source="rows"))) == 1
