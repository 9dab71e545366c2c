"""Along an axis of numbers: every row at its value, with the interval of its comparison."""

import re

import pytest
from support.report_study import ONE_TABLE, bench

from ablate.report import verdict_looks
from ablate.report.exhibits.base import EXHIBITS
from ablate.report.write import write_report
from ablate.results.collect import collect
from ablate.results.verdicts import findings_of


@pytest.fixture
def finished(tmp_path):
    study = bench(tmp_path)
    for cell in study.plan().cells:
        if not study.store.done(cell.evaluate):
            study.commit_evaluation(cell)
    return study


def test_every_row_is_told_in_the_order_of_the_axis_with_its_interval_and_verdict(finished):
    results = collect(finished.plan())
    piece = EXHIBITS["differences-along"](results, results.ablations[0])
    drawn = re.findall(r"lr (\S+): KD, lr=\S+ (\S+) \(\S+ to \S+\), (may be no different|ahead|behind)", piece.markdown)
    assert [float(x) for x, _, _ in drawn][:3] == [1e-5, 3e-4, 1e-3]
    verdicts = {(float(x), verdict) for x, _, verdict in drawn}
    expected = {
        (one.row.row.values["distill.lr"], verdict_looks.words(one))
        for one in findings_of(results, results.ablations[0]).all
    }
    assert verdicts == expected
    assert set(piece.files) == {"figures/learning_rate-along.png", "figures/learning_rate-along.svg"}
    assert "(logarithmic)" in piece.markdown


def test_rows_that_follow_no_axis_have_no_such_figure(finished):
    results = collect(finished.plan())
    assert EXHIBITS["differences-along"](results, results.ablations[1]) is None


@pytest.mark.slow
def test_every_figure_is_there_for_paper_too_and_the_same_when_made_again(tmp_path):
    finished = bench(tmp_path, ablations=ONE_TABLE)
    finished.commit(*finished.plan().cells)
    folder = write_report(finished.plan())
    first = {path.name: path.read_bytes() for path in (folder / "figures").iterdir()}
    assert {name.removesuffix(".png") for name in first if name.endswith(".png")} == {
        name.removesuffix(".svg") for name in first if name.endswith(".svg")
    }
    (folder / ".made.json").unlink()
    write_report(finished.plan())
    assert {path.name: path.read_bytes() for path in (folder / "figures").iterdir()} == first
