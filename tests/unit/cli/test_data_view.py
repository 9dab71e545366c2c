"""ablate data: what a reader sees of training rows, before a run and after it, on a terminal, as a page, as JSON."""

import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import yaml
from peft import LoraConfig, get_peft_model
from rich.console import Console
from support import tiny_models as tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from ablate.cli.data_page import data_page
from ablate.cli.data_view import data_record, print_data, shown_rows
from ablate.core.errors import AblateError
from ablate.data import tokens
from ablate.data.prepare import prepare
from ablate.planning.project import open_study
from ablate.planning.row_sets import row_sets

ODD = "<script>alert(1)</script> & \u001b[31m"
ROWS = [
    {"messages": [{"role": "user", "content": ODD}, {"role": "assistant", "content": "</pre><b>"}]},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "no", "weight": 0}]},
]


@pytest.fixture
def study(tmp_path):
    for seed, name in enumerate(("teacher", "student")):
        tiny.save(tmp_path / name, seed=seed)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    settings = {
        "name": "shown",
        "data": {"source": "rows.jsonl", "format": "chat", "train_on_prompt": False, "max_length": 40},
        "pairs": {"p": {"teacher": {"model": "./teacher"}, "student": {"model": "./student"}}},
        "train": {"max_steps": 1, "batch_size": 2, "warmup_steps": 0},
        "evaluate": {"tasks": ["tiny_letters"], "include_path": "builtin:tiny/tasks", "allow_code": True},
        "ablations": {"a": {"grid": {"distill.kd_ratio": [0.5, 1.0]}}},
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return tmp_path / "s.yaml"


def shown(study, num_rows=3):
    plan = open_study(study, study.parent).plan()
    return [shown_rows(row_set, num_rows) for row_set in row_sets(plan)]


def test_the_rows_are_those_that_the_study_will_train_on_and_nothing_is_written(study):
    before = sorted(study.parent.rglob("*"))
    (rows,) = shown(study)
    settings = open_study(study, study.parent).study.data
    tokenizer = AutoTokenizer.from_pretrained(study.parent / "student")
    prepared = prepare(study.parent / "rows.jsonl", settings, tokenizer, lambda done, total: None)
    assert [one.num_tokens for one in rows.samples] == prepared.train.lengths.tolist()
    assert sum(one.num_counting for one in rows.samples) == rows.counts["loss_tokens"]
    ids = prepared.train.row(1)[0].tolist()
    assert "".join(piece.text for piece in rows.samples[1].pieces) == tokenizer.decode(ids)
    assert [(piece.text, piece.counts) for piece in rows.samples[1].pieces] == [
        ("<user>hi<eos><assistant>", False),
        ("ho<eos>", True),
    ]
    assert sorted(study.parent.rglob("*")) == before


def test_what_was_cut_and_what_does_not_count_is_said(study):
    (rows,) = shown(study)
    assert rows.counts["cut"] == 1
    assert [one.is_cut for one in rows.samples] == [True, False, False]
    assert "1 answer has weight 0 and does not count" in rows.notes
    assert sum(part.rows for part in rows.lengths) == 3
    assert all(part.shortest <= 40 and part.longest >= 8 for part in (rows.lengths[-1], rows.lengths[0]))


def test_another_template_of_the_teacher_is_shown_beside(study):
    tokenizer = tiny.tokenizer("T" + tiny.CHAT)
    tokenizer.save_pretrained(study.parent / "teacher")
    (rows,) = shown(study, num_rows=2)
    (teacher,) = rows.teachers
    assert teacher.differences == ("chat template: rows are rendered by the student's",)
    assert teacher.samples[1].pieces[0].text == "T<user>hi<eos><assistant>"
    assert len(teacher.samples) == 2


class Marks(HTMLParser):
    """What a browser makes of a page: its tags, and the text that is marked."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.marked, self._is_in = set(), [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self._is_in = tag == "mark" or (self._is_in and tag not in ("mark",))

    def handle_endtag(self, tag):
        self._is_in = self._is_in and tag != "mark"

    def handle_data(self, data):
        if self._is_in:
            self.marked.append(data)


def test_a_page_escapes_the_data_and_marks_what_counts(study):
    page = Marks(data_page("shown", shown(study)))
    assert page.tags.isdisjoint({"script", "b", "link", "img"})
    assert page.marked == ["What is marked so", "</pr", "ho<eos>"]


def test_the_record_is_json_and_whole(study):
    record = json.loads(json.dumps(data_record("shown", shown(study))))
    (rows,) = record["sets"]
    assert rows["pairs"] == ["p"]
    assert rows["samples"][1]["pieces"][1] == {"text": "ho<eos>", "counts": True}
    assert rows["lengths"][0].keys() == {"shortest", "longest", "rows"}


def printed(study, **options):
    console = Console(width=200, record=True, **options)
    print_data(console, shown(study))
    return console.export_text(styles=bool(options.get("force_terminal")))


def test_what_counts_stands_between_marks_where_there_is_no_colour_and_nothing_moves_the_cursor(study, capsys):
    text = printed(study)
    assert "<user>hi<eos><assistant>{+ho<eos>+}" in text
    assert "\x1b" not in capsys.readouterr().out


def test_on_a_terminal_it_is_in_colour(study, monkeypatch, capsys):
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = printed(study, force_terminal=True, color_system="standard")
    assert "{+" not in text
    assert "\x1b[1;32mho<eos>\x1b[0m" in text
    assert "\x1b[31m" not in text.split("row 2")[0].split("alert(1)")[1]


def test_a_pair_or_a_model_that_is_not_there_is_told(study):
    plan = open_study(study, study.parent).plan()
    with pytest.raises(AblateError, match=r"no such pair\. Possible: p"):
        row_sets(plan, "q")
    (row_set,) = row_sets(plan, "p")
    with pytest.raises(AblateError, match=r"rows\.jsonl is not on this machine yet: `ablate run` fetches it"):
        shown_rows(replace(row_set, source=replace(row_set.source, path=None)), 1)


def test_an_adapter_has_its_bases_tokenizer(study):
    folder = study.parent / "tuned"
    folder.mkdir()
    tuned = LoraConfig(r=2, target_modules=["q_proj"])
    get_peft_model(AutoModelForCausalLM.from_pretrained(study.parent / "student"), tuned).save_pretrained(folder)
    study.write_text(study.read_text().replace("./student", "./tuned"))
    (rows,) = shown(study)
    assert rows.student == "tuned, an adapter on student"
    assert rows.samples[1].pieces[1].text == "ho<eos>"


def test_rows_that_their_stage_made_are_shown_as_it_made_them(study, tmp_path):
    (row_set,) = row_sets(open_study(study, study.parent).plan())
    folder = tmp_path / "rows-0123"
    (folder / "out").mkdir(parents=True)
    tokens.save(tiny.random_rows([7, 9], [3, 0]), folder / "out/train.safetensors")
    summary = {"template": "model", "holdout": {"rows": 4}, "cut": 5}
    (folder / "out/summary.json").write_text(json.dumps(summary))
    rows = shown_rows(replace(row_set, folder=folder, source=replace(row_set.source, path=None)), 5)
    assert rows.is_made
    assert [(one.num_tokens, one.num_counting) for one in rows.samples] == [(7, 4), (9, 8)]
    assert (rows.counts["held_out"], rows.counts["cut"]) == (4, 5)


@pytest.mark.slow
def test_the_verb_works_on_a_terminal_and_writes_its_page_alone(study, tmp_path):
    main, worker = pty.openpty()
    command = [sys.executable, "-m", "ablate", "data", str(study), "--rows", "1", "--html", "page.html"]
    subprocess.run(command, stdout=worker, check=True, cwd=tmp_path)
    os.close(worker)
    assert b"wrote page.html" in os.read(main, 1000)
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert not (tmp_path / "runs").exists()
