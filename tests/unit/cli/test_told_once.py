"""What went wrong in the same way in many cells is one paragraph in `run`, `status` and the report."""

import pytest
from support.report_study import Bench, bench

from ablate.cli import status_view
from ablate.core.errors import StudyError, grouped_by_text
from ablate.core.failures import without_particulars
from ablate.execution.live_view import PlainLog, Tally
from ablate.execution.outcomes import Outcome
from ablate.execution.study_run import troubles
from ablate.report.page import report_files
from ablate.results.collect import collect
from ablate.study.load import load

NINE = {"lr": {"title": "Rates", "grid": {"distill.lr": [1e-3, 3e-4, 1e-5]}}}


@pytest.fixture
def failed(tmp_path) -> Bench:
    """Nine distillations that failed alike: each names a file of its own attempt."""
    study = bench(tmp_path, seeds=[0, 1, 2], ablations=NINE)
    for cell in study.plan().cells:
        if cell.row.model == "distill":
            study.fail(
                cell.trained, "error", f"no module 'nope' ({study.store.runs}/attempts/{cell.trained.key12}/1/a)"
            )
    return study


def test_status_tells_nine_failures_alike_once_and_name_the_first(failed, capsys):
    plan = failed.plan()
    status_view.print_status(status_view.look(plan))
    out = capsys.readouterr().out
    assert out.count("no module 'nope'") == 1
    line = next(line for line in out.splitlines() if "no module 'nope'" in line)
    assert [line.count(f"lr={rate}@") for rate in ("0.001", "0.0003", "1e-05")] == [3, 0, 0]
    assert " and 6 more: error: no module 'nope'" in line
    assert "(these are the first one's words; the others' differ in names and numbers)" in line


def test_a_report_tells_nine_failures_alike_once_above_and_each_row_once_for_its_seeds(failed):
    text = report_files([collect(failed.plan())])["report.md"].decode()
    above, _, table = text.partition("\n## Rates")
    assert above.count("no module 'nope'") == 1
    assert "lr/lr=0.001@0, lr/lr=0.001@1, lr/lr=0.001@2 and 6 more failed: error: no module" in above
    assert table.count("| seeds 0, 1, 2 failed: error: no module") == 2 * 3  # in the main table, and in the whole one


def test_what_diverged_is_told_with_the_step_of_each(tmp_path):
    study = bench(tmp_path, seeds=[0, 1], ablations=NINE)
    cells = [cell for cell in study.plan().cells if cell.row.name == "lr=0.001"]
    for cell, step in zip(cells, (12, 31), strict=True):
        study.diverge(cell, step)
    text = report_files([collect(study.plan())])["report.md"].decode()
    assert "diverged at step 12" in text
    assert "diverged at step 31" in text


def test_a_run_tells_a_failure_in_full_once_and_then_whom_it_is_like():
    lines, labels = [], {}
    log = PlainLog(Tally(lambda _: 1.0, 2), lambda stage: labels[stage], lines.append)
    for number in range(9):
        labels[number] = f"distill a/b={number}@0"
        outcome = Outcome("failed", "error", f"no module 'nope' (/runs/attempts/{number}/log.txt)")
        log.tally.end = lambda *_: 1.0
        log.ended(number, outcome)
    log.ended(0, Outcome("failed", "error", "another thing"))
    assert sum("no module 'nope'" in line for line in lines) == 1
    assert "failed  distill a/b=8@0, like distill a/b=0@0  " in lines[8]
    assert "failed  distill a/b=0@0: another thing" in lines[9]


def test_a_run_ends_with_a_paragraph_for_what_failed_alike_and_one_for_what_was_not_begun(tmp_path):
    plan = bench(tmp_path, seeds=[0, 1, 2], ablations=NINE).plan()
    cells = [cell for cell in plan.cells if cell.row.model == "distill"]
    outcomes = {}
    for number, cell in enumerate(cells):
        outcomes[cell.trained.key] = Outcome("failed", "error", f"no module in /{number}")
        outcomes[cell.evaluate.key] = Outcome("blocked", "error", f"needs distill-{number}, which failed: no module")
    outcomes[cells[-1].trained.key] = Outcome("blocked", "error", "3 distill stages failed alike (no module in /0)")
    failed, blocked = troubles(plan, outcomes)
    assert failed.startswith("failed: distill lr/lr=0.001@0, distill lr/lr=0.001@1, distill lr/lr=0.001@2 and 5 more: ")
    assert "no module in /0 (these are the first one's words" in failed
    assert blocked == "blocked: distill lr/lr=1e-05@2: 3 distill stages failed alike (no module in /0)"


def test_a_text_is_told_of_all_that_share_it_and_says_where_the_others_differ():
    pairs = [("a", "needs 12 MB"), ("b", "needs 12 MB"), ("c", "needs 7 MB"), ("d", "no such card")]
    assert grouped_by_text(pairs) == [("a, b", "needs 12 MB"), ("c", "needs 7 MB"), ("d", "no such card")]
    alike, other = grouped_by_text(pairs, likeness=without_particulars)
    assert alike == (
        "a, b, c",
        "needs 12 MB (these are the first one's words; the others' differ in names and numbers)",
    )
    assert other == ("d", "no such card")


STUDY = """name: s
data: {source: a/b}
pairs: {p: {teacher: {model: a/t}, student: {model: a/s}}}
seeds: [0, 1, 2]
ablations:
  one: {set: {evaluate.tasks: [helaswag]}, grid: {distill.kd_ratio: [0.1, 0.5, 0.9]}}
  two: {set: {evaluate.tasks: [helaswag]}, grid: {distill.lr: [1e-3, 1e-4]}}
  three: {set: {pairs.p.teacher.model: ./nowhere}, grid: {distill.lr: [1e-3, -1], distill.kd_ratio: [0.1, 0.5]}}
  four: {set: {pairs.p.teacher.model: ./nowhere}, grid: {distill.lr: [1e-3, 1e-4]}}
"""


def test_a_mistake_that_is_made_in_several_places_is_told_once_with_the_cells_that_it_stops(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(STUDY)
    with pytest.raises(StudyError) as error:
        load(path)
    lines = str(error.value).splitlines()
    assert len(error.value.problems) == 5
    assert [line.count("helaswag") for line in lines].count(1) == 1
    task = next(index for index, line in enumerate(lines) if "helaswag" in line)
    assert lines[task].startswith(f"{path}:6:")
    assert lines[task].endswith(" (stops 15 cells)")  # 3 and 2 rows, under 3 seeds
    assert lines[task + 1].startswith(f"    the same in {path}:7:")
    model = next(index for index, line in enumerate(lines) if "./nowhere is not there" in line)
    assert lines[model + 1].startswith(f"    the same in {path}:9:")
    assert sum("./nowhere is not there" in line for line in lines) == 1
    (rate,) = (line for line in lines if "must be greater than 0" in line)
    assert rate.endswith("got -1 (stops 6 cells)")
