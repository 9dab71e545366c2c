"""A study whose teacher and student cut text into other tokens, from its file to its report and an exported student."""

import json

import pytest
import torch
from support.two_tokenizers import byte_level, study
from transformers import AutoModelForCausalLM

from ablate.core.errors import StudyError
from ablate.execution.study_run import RunOptions, run_cells
from ablate.export import export_cell
from ablate.machine.slots import Placing
from ablate.planning.project import open_study
from ablate.report.write import write_report

ALONE = RunOptions(placing=Placing(num_jobs=1))


@pytest.mark.slow
def test_a_teacher_with_another_tokenizer_teaches_by_gold_uld_and_dskd(tmp_path):
    project = open_study(study(tmp_path), tmp_path / "root")
    assert run_cells(project, ALONE).cells == "7 of 7 cells done"
    plan = project.plan()
    distilled = [cell.trained for cell in plan.cells if cell.row.model == "distill"]
    for stage in distilled:
        rows, own = (stage.inputs[name] for name in ("rows", "teacher_rows"))
        assert rows.content != own.content
        assert stage.inputs["teacher_adapter"].inputs["rows"] is own
        assert stage.aids == {}
    notes = [
        json.loads((plan.store.folder(stage) / "stage.json").read_text())["provenance"]["notes"] for stage in distilled
    ]
    assert "99.4% of the student's 530" in notes[0]["teacher"]  # a piece holds the border of prompt and answer
    page = (write_report(plan) / "report.md").read_text()
    assert "bits_per_byte" in page
    cell = next(cell for cell in plan.cells if cell.trained is distilled[-1])
    export_cell(plan, cell, tmp_path / "export")
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32)
    student = AutoModelForCausalLM.from_pretrained(tmp_path / "student", dtype=torch.float32)
    assert {name: weight.shape for name, weight in ours.named_parameters()} == {
        name: weight.shape for name, weight in student.named_parameters()
    }
    ids = torch.tensor([byte_level()("The lighthouse")["input_ids"]])
    assert not torch.equal(ours(input_ids=ids).logits, student(input_ids=ids).logits)


def test_answers_that_the_student_writes_are_refused_beside_a_loss_across_tokenizers(tmp_path):
    path = study(tmp_path, distill={"answers": "student"})
    with pytest.raises(StudyError, match="gold aligns the tokens of teacher and student in the answers of the data"):
        open_study(path, tmp_path / "root")
