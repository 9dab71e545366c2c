"""A run tells what it learns on the way, once."""

import json
import shutil
import time
from pathlib import Path

import pytest
import yaml
from support.planned import finish

from ablate.cli.plan_view import plan_record, print_plan
from ablate.core.errors import StudyError
from ablate.example import assets
from ablate.execution import study_run
from ablate.execution.study_run import RunOptions, run_cells
from ablate.machine.slots import Placing
from ablate.planning import project as project_module
from ablate.planning.builder import make_plan
from ablate.planning.project import open_study
from ablate.report.write import write_report
from ablate.run import run_study

WARM_UP = "warm-up for 100 of 5 steps; train.warmup_steps says how many"


def _study(folder: Path) -> Path:
    """A teacher with another end of text than its student's, so that the run ends before anything is trained."""
    for role in ("teacher", "student"):
        shutil.copytree(assets() / "models" / "student", folder / role)
    config = folder / "teacher" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token": "a"}))
    (folder / "data").mkdir()
    row = {"instruction": "Who is it?", "input": "", "output": "a baker"}
    (folder / "data" / "train.jsonl").write_text(f"{json.dumps(row)}\n" * 80)
    pair = {"teacher": {"model": "./teacher"}, "student": {"model": "./student"}}
    study = {
        "name": "s",
        "dtype": "float32",
        "data": {"source": "./data"},
        "pairs": {"one": pair, "idle": pair},
        "evaluate": {"tasks": ["tiny_letters"], "include_path": "builtin:tiny/tasks", "allow_code": True},
        "ablations": {"a": {"set": {"distill.teacher": "baseline"}}},
    }
    path = folder / "s.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def test_a_warm_up_that_is_long_for_the_rows_is_told_once_they_are_there(tmp_path, capsys):
    project = open_study(_study(tmp_path), tmp_path / "root")
    assert WARM_UP not in str(plan_record(project.plan())["warnings"])
    with pytest.raises(StudyError, match="different tokenizers"):
        run_study(project, RunOptions(placing=Placing(num_jobs=1)))
    output = capsys.readouterr().out
    assert output.count(WARM_UP) == output.count("pair idle is in no ablation") == 1
    assert output.index("done  rows data") < output.index(WARM_UP)
    assert WARM_UP in str(plan_record(project.plan())["warnings"])
    with pytest.raises(StudyError, match="different tokenizers"):
        run_study(project, RunOptions(placing=Placing(num_jobs=1)))
    assert capsys.readouterr().out.count(WARM_UP) == 1


def test_a_model_without_the_chat_template_asked_for_is_told_before_anything_is_trained(tmp_path, capsys):
    """Of a folder `validate` tells it; of the hub, or of a folder that has changed, it is known once it is here."""
    path = _study(tmp_path)
    shutil.copytree(tmp_path / "student", tmp_path / "teacher", dirs_exist_ok=True)
    project = open_study(path, tmp_path / "root", ["evaluate.apply_chat_template=true"])
    (tmp_path / "student" / "chat_template.jinja").unlink()
    with pytest.raises(StudyError, match=r"apply_chat_template: student has no chat template: say .* or put a"):
        run_study(project, RunOptions(placing=Placing(num_jobs=1)))
    output = capsys.readouterr().out
    assert "done  fetch student" in output
    assert "started  finetune" not in output


def test_a_study_that_is_done_is_planned_once_and_nothing_is_started(tmp_path, capsys, monkeypatch):
    path = _study(tmp_path)
    shutil.copytree(tmp_path / "student", tmp_path / "teacher", dirs_exist_ok=True)
    study = yaml.safe_load(path.read_text())
    study["ablations"] = {"a": {"grid": {"distill.kd_ratio": [number / 200 for number in range(1, 51)]}}}
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    project = open_study(path, tmp_path / "root")
    for _ in range(2):  # models and rows, then all that follows from them
        finish(project.plan())
    assert run_study(project).exit_code == 0  # this one writes the report
    plans = []

    def counted(*arguments):
        plans.append(arguments)
        return make_plan(*arguments)

    monkeypatch.setattr(project_module, "make_plan", counted)
    began = time.process_time()
    summary = run_study(project)
    assert time.process_time() - began < 1.0  # 0.3 s
    assert (summary.num_started, summary.exit_code) == (0, 0)
    assert len(plans) == 1
    assert "54 of 54 cells done" in capsys.readouterr().out


def test_a_run_whose_record_was_removed_meanwhile_writes_it_again(tmp_path, monkeypatch):
    path = _study(tmp_path)
    shutil.copytree(tmp_path / "student", tmp_path / "teacher", dirs_exist_ok=True)
    project = open_study(path, tmp_path / "root")
    for _ in range(2):
        finish(project.plan())
    before = study_run.require_equal_tokenizers

    def removed(plan):
        shutil.rmtree(project.store.study_folder(project.study.name))
        before(plan)

    monkeypatch.setattr(study_run, "require_equal_tokenizers", removed)
    run_cells(project)
    assert project.is_recorded


def test_what_is_odd_about_the_rows_is_told_once_by_run_and_by_plan_and_report_from_then_on(tmp_path, capsys):
    project = open_study(_study(tmp_path), tmp_path / "root")
    notes = [
        "rows data: 80 rows read as alpaca: instruction, input, output",
        "rows data: 79 training rows are the same as an earlier one, and were kept",
    ]
    assert plan_record(project.plan())["rows"] == []
    with pytest.raises(StudyError, match="different tokenizers"):
        run_study(project, RunOptions(placing=Placing(num_jobs=1)))
    output = capsys.readouterr().out
    assert [output.count(note) for note in notes] == [1, 1]
    assert plan_record(project.plan())["rows"] == notes
    print_plan(project.plan())
    output = capsys.readouterr().out
    assert all(note in output for note in notes)
    folder = write_report(project.plan())
    first_page = (folder / "report.md").read_text().partition("\n<a id=")[0]
    assert all(f"- {note}\n" in first_page for note in notes)
    front = (folder / "report.html").read_text().partition("</section>")[0]
    assert all(note in front for note in notes)
    assert json.loads((folder / "results.json").read_text())["rows"] == notes
