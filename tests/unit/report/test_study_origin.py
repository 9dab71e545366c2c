"""A report says which file it is of, and under which overrides."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.local_study import study as study
from support.report_study import ONE_TABLE, bench

from ablate.cli.app import app
from ablate.planning.plan import Origin
from ablate.planning.project import open_study
from ablate.report.page import report_files
from ablate.report.provenance import study_file
from ablate.report.results_json import results_record
from ablate.results.collect import collect


def test_the_head_of_the_page_and_results_json_say_file_and_overrides_in_one_line(tmp_path):
    plan = replace(
        bench(tmp_path, ablations=dict(ONE_TABLE)).plan(),
        origin=Origin(Path("/home/me/studies/kd.yaml"), ("train.lr=1e-3", "seeds=[0, 1]")),
    )
    files = report_files([collect(plan)])
    html, markdown = (files[f"report.{suffix}"].decode() for suffix in ("html", "md"))
    line = "from <code>studies/kd.yaml</code> with <code>--set train.lr=1e-3</code>, <code>--set seeds=[0, 1]</code>"
    assert html.index(line) < html.index("<nav")
    assert "From studies/kd.yaml with --set train.lr=1e-3, --set seeds=\\[0, 1\\].\n" in markdown
    record = results_record(collect(plan))
    assert (record["file"], record["overrides"]) == ("studies/kd.yaml", ["train.lr=1e-3", "seeds=[0, 1]"])


@pytest.mark.parametrize(
    ("file", "shown"),
    [("kd.yaml", "kd.yaml"), ("a/b/c/kd.yaml", "a/b/c/kd.yaml"), ("../other/place/kd.yaml", "place/kd.yaml")],
)
def test_a_file_is_named_by_its_place_below_the_root_and_else_with_its_folder(tmp_path, file, shown):
    plan = replace(bench(tmp_path).plan(), origin=Origin((tmp_path / file).resolve()))
    assert study_file(plan) == shown


def test_of_several_overrides_a_report_shows_those_that_are_asked_for_and_tells_where_the_last_run_had_others(
    study, capsys
):
    def reported(*words: str) -> tuple[list[str], str]:
        app(["report", *words, "--root", str(study.parent)], standalone_mode=False)
        record = json.loads((study.parent / "reports/named/results.json").read_text())
        assert record["file"] == "s.yaml"
        return record["overrides"], capsys.readouterr().err

    for sets in (("evaluate.limit=1",), ("evaluate.limit=2",)):
        project = open_study(study, study.parent, sets)
        project.record(project.locked_pins(), project.plan(is_online=False))
    assert reported("named") == (["evaluate.limit=2"], "")
    assert reported(str(study), "--set", "evaluate.limit=2") == (["evaluate.limit=2"], "")
    shown, words = reported(str(study), "--set", "evaluate.limit=1")
    assert shown == ["evaluate.limit=1"]
    assert "named was last run with --set evaluate.limit=2; this is named with --set evaluate.limit=1" in words
    shown, words = reported(str(study))
    assert shown == []
    assert "named was last run with --set evaluate.limit=2; this is named without --set" in words
